import assert from 'node:assert/strict';
import test from 'node:test';
import { describe } from '../../src/drop.ts';

const entry = (path, size = 10) => ({ path, file: { size } });
const folder = (...entries) => ({ archive: null, name: 'photos', entries, skipped: 0 });

test('what cannot work is told before anything is sent', () => {
  const two = [entry('train/a/1.png'), entry('val/b/2.JPEG', 90)];
  assert.equal(describe(folder(...two), 100).problem, '');
  assert.match(describe(folder(...two), 99).problem, /100.B.*99.B/);
  assert.match(describe(folder(), 100).problem, /empty/);
  assert.match(describe(folder(entry('a/notes.txt')), 100).problem, /no images/);
  assert.match(describe(folder(entry('a/1.png'), entry('train/a/2.png')), 100).problem, /one class, “a”/);
  assert.match(describe(folder(entry('1.png')), 100).problem, /in no folder/);
  // A manifest names the labels.
  assert.equal(describe(folder(entry('1.png'), entry('manifest.csv')), 100).problem, '');
});

test('an archive is measured as a folder is', () => {
  const archive = (size) => ({ archive: { name: 'photos.zip', size }, name: 'photos.zip', entries: [], skipped: 0 });
  assert.equal(describe(archive(100), 100).problem, '');
  assert.match(describe(archive(101), 100).problem, /101.B.*100.B/);
});

test('classes are counted below split folders, files by their ending', () => {
  const { images, bytes, types, classes } = describe(folder(entry('train/a/1.png'), entry('val/a/2.png'), entry('b/x/3.jpg'), entry('README'), entry('train/4.png')), 100);
  assert.deepEqual([images, bytes], [4, 50]);
  assert.deepEqual(types, [['png', 3], ['jpg', 1], ['no ending', 1]]);
  assert.deepEqual(classes, [['a', 2], ['b', 1], ['train', 1]]);
});
