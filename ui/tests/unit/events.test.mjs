import assert from 'node:assert/strict';
import test from 'node:test';
import { backoff, FrameParser } from '../../src/events.ts';

test('frames are found however the stream is cut into pieces', () => {
  const text = ': heartbeat\n\nid: 1\ndata: {"a":\ndata: 1}\n\nid: 2\r\nevent: x\r\ndata:two\r\n\r\nretry: 3\n\ndata: öß漢\n\n';
  for (let size = 1; size < text.length; size++) {
    const parser = new FrameParser();
    const frames = [];
    for (let at = 0; at < text.length; at += size) frames.push(...parser.push(text.slice(at, at + size)));
    assert.deepEqual(
      frames,
      [
        { id: '1', event: 'message', data: '{"a":\n1}' },
        { id: '2', event: 'x', data: 'two' },
        { id: '2', event: 'message', data: 'öß漢' },
      ],
      `pieces of ${size}`,
    );
  }
});

test('waits between tries grow to 15 seconds', () => {
  assert.deepEqual([0, 1, 2, 3, 4, 5, 50].map(backoff), [0.5, 1, 2, 4, 8, 15, 15]);
});
