import assert from 'node:assert/strict';
import test from 'node:test';
import { csv } from '../../src/csv.ts';
import { bytes, duration, number, percent, short, shortId } from '../../src/format.ts';
import { href, parse } from '../../src/hash.ts';
import { pruned, cliArgs } from '../../src/request.ts';
import { getAt, removeAt, setAt, whatOf, STAGED } from '../../src/options.ts';

const plain = (text) => text.replaceAll('\u00a0', ' ');

test('CSV is as RFC 4180 has it, and no cell becomes a formula', () => {
  const rows = [
    ['=HYPERLINK("http://x")', '+1', '-2', '@a', '\t=1'],
    ['a"b', 'a,b', 'a\nb', '', null],
    [-1.5, NaN, 0, undefined, 'plain'],
  ];
  assert.equal(
    csv(['1', '2', '3', '4', '5'], rows),
    '1,2,3,4,5\r\n"\'=HYPERLINK(""http://x"")",\'+1,\'-2,\'@a,\'\t=1\r\n"a""b","a,b","a\nb",,\r\n-1.5,,0,,plain\r\n',
  );
});

test('routes survive every text', () => {
  for (const text of ['a/b', 'ft:x:y', '100 %', '?&=#', '<img src=x>', '漢字', '..', '\u202e', '\n']) {
    const { path, query } = parse(href(['jobs', text, 'samples'], { label: text, empty: '', none: null }));
    assert.deepEqual(path, ['jobs', text, 'samples'].filter(Boolean));
    assert.equal(query.get('label'), text);
    assert.equal(query.has('empty'), false);
  }
  assert.deepEqual(parse('#/a%ZZ').path, ['a%ZZ']);
  assert.deepEqual(parse('').path, []);
});

test('numbers are short and have their unit', () => {
  assert.equal(plain(bytes(69_249_881)), '69 MB');
  assert.equal(plain(bytes(999_600)), '1.0 MB');
  assert.equal(plain(short(4_652_008)), '4.65 M');
  assert.equal(plain(short(999)), '999');
  assert.equal(plain(percent(0.7719)), '77.2 %');
  assert.deepEqual([5, 65, 3700, 90_000].map((s) => plain(duration(s))), ['5 s', '1 min 05 s', '1 h 01 min', '1 d 1 h']);
  assert.equal(number(NaN), '–');
  assert.equal(shortId('ftjob-01a22fbdb11076a5811dbfb30463d7bc'), 'ftjob-01a22fbd');
  assert.equal(shortId('efficientnet_lite0'), 'efficientnet_lite0');
});

test('requests keep what was asked and leave out defaults', () => {
  const transfer = { task: 'auto', freeze: { all_but_last_stages: 1 }, hyperparameters: { n_epochs: 3, batch_size: 'auto' }, head: { layers: 'auto' }, early_stopping: { min_delta: 0 }, checkpoint_every_seconds: 300 };
  const kept = pruned(transfer);
  assert.deepEqual(kept, { freeze: { all_but_last_stages: 1 }, hyperparameters: { n_epochs: 3 } });
  const args = cliArgs({ model: 'm', training_file: 'f', method: { transfer: kept } });
  assert.deepEqual(args, ['submit', '--file', 'f', '--model', 'm', '--freeze', '{"all_but_last_stages":1}', '--epochs', '3', '--watch']);
});

test('options are set and removed by their path', () => {
  const tree = {};
  setAt(tree, 'hyperparameters.n_epochs', 3);
  assert.equal(getAt(tree, 'hyperparameters.n_epochs'), 3);
  removeAt(tree, 'hyperparameters.n_epochs');
  assert.deepEqual(tree, {});
  assert.equal(whatOf(structuredClone(STAGED)), 'staged');
  assert.equal(whatOf('auto'), 'all');
  assert.equal(whatOf({ first_n: 2 }), 'custom');
});
