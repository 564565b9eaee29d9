import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { paxRecord, tar } from '../../src/tar.ts';

async function listed(entries) {
  const folder = mkdtempSync(join(tmpdir(), 'tar-'));
  const path = join(folder, 'a.tar');
  writeFileSync(path, Buffer.from(await tar(entries).arrayBuffer()));
  execFileSync('tar', ['--extract', '--file', path, '--directory', folder]);
  const names = execFileSync('tar', ['--list', '--quoting-style=literal', '--file', path], { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C.UTF-8' } });
  return { folder, names: names.trimEnd().split('\n') };
}

test('a tar of plain, long and non-ASCII names is read back by GNU tar', async () => {
  const long = `train/${'ordner-'.repeat(20)}/ä ö 漢字.png`;
  const entries = [
    { path: 'cats/1.png', file: new Blob(['one']) },
    { path: long, file: new Blob(['x'.repeat(1000)]) },
    { path: 'cats/empty.png', file: new Blob([]) },
    { path: `dogs/${'a'.repeat(94)}.png`, file: new Blob(['edge']) },
    { path: 'spaces and = signs/2.png', file: new Blob(['y'.repeat(512)]) },
  ];
  const { folder, names } = await listed(entries);
  assert.deepEqual(names, entries.map((entry) => entry.path));
  for (const { path, file } of entries) assert.equal(readFileSync(join(folder, path), 'utf8'), await file.text());
});

test('the length of a PAX record counts itself, also where it gains a digit', () => {
  for (let n = 1; n < 1100; n++) {
    const record = paxRecord('path', 'ä'.repeat(n % 7) + 'x'.repeat(n));
    assert.equal(Number(record.slice(0, record.indexOf(' '))), Buffer.byteLength(record), record.slice(0, 40));
  }
});

test('nothing is read before it is sent: a file of 9 GiB costs its headers', (context) => {
  let parts = [];
  context.mock.method(globalThis, 'Blob', function (all) {
    parts = all;
  });
  const file = { size: 9 * 2 ** 30, lastModified: 0 };
  tar([{ path: 'big/1.png', file }]);
  assert.ok(parts.includes(file));
  const headers = parts.filter((part) => part !== file);
  const text = Buffer.concat(headers).toString('latin1');
  assert.ok(text.length < 8192, String(text.length));
  assert.ok(text.includes(`size=${9 * 2 ** 30}\n`));
});
