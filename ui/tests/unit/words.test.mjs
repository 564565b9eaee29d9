// D25: every value of the API that a page shows has words, and none has words that is no value.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import test from 'node:test';
import * as words from '../../src/words.ts';

const schema = readFileSync(resolve(import.meta.dirname, '../../src/schema.d.ts'), 'utf8');

/** The values of an enum of the contract. */
function valuesOf(name) {
  const found = new RegExp(`^\\s+${name}: ("[^;]+);`, 'm').exec(schema);
  assert.ok(found, `the contract has no ${name}`);
  return [...found[1].matchAll(/"([^"]+)"/g)].map(([, value]) => value);
}

const WORDS = { JobStatus: words.JOB_STATUS, Phase: words.PHASE, WaitReason: words.WAIT_REASON, FileStatus: words.FILE_STATUS, ModelStatus: words.MODEL_STATUS, Purpose: words.PURPOSE, Task: words.TASK, Metric: words.METRIC, Split: words.SPLIT };

test('every status, phase and reason has words', () => {
  for (const [name, texts] of Object.entries(WORDS)) {
    assert.deepEqual(Object.keys(texts).sort(), valuesOf(name).sort(), name);
    for (const [value, text] of Object.entries(texts)) {
      const shown = typeof text === 'string' ? [text] : [text.label, text.sentence].filter((each) => each !== undefined);
      for (const each of shown) assert.match(each, /\S/, `${name} ${value}`);
    }
  }
  for (const texts of [words.JOB_STATUS, words.PHASE]) for (const [value, { sentence }] of Object.entries(texts)) assert.match(sentence, /^[A-Z].*\.$/, value);
  for (const [value, sentence] of Object.entries(words.WAIT_REASON)) assert.match(sentence, /^[A-Z].*\.$/, value);
});

test('a queued job says why it waits in one sentence for every reason', () => {
  for (const reason of valuesOf('WaitReason')) {
    const text = words.queueSentence({ reason, ahead: 2, until: 1060, estimated_start: { p50: 1120, p90: 1200 } }, 1000);
    assert.match(text, /^[A-Z].*\. 2 ahead\. Starts in about 2\smin.*\.$/, text);
  }
});
