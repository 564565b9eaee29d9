// D21: what is built stays small, and neither evaluates text nor names another host.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import test from 'node:test';

const DIST = resolve(import.meta.dirname, '../../dist');

function files(folder = DIST) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? files(join(folder, entry.name)) : [join(folder, entry.name)]));
}

const size = (paths) => paths.reduce((sum, path) => sum + readFileSync(path).length, 0) / 1000;
const gz = (paths) => paths.map((path) => `${path}.gz`);

test('the first page and the whole stay within their budgets', () => {
  const page = readFileSync(join(DIST, 'index.html'), 'utf8');
  const first = [...page.matchAll(/\.\/(assets\/[^"]+)"/g)].map(([, name]) => join(DIST, name));
  const js = first.filter((path) => path.endsWith('.js'));
  const css = first.filter((path) => path.endsWith('.css'));
  assert.equal(js.length + css.length, 2, page);
  assert.ok(size(js) <= 91 && size(gz(js)) <= 34.5, `first page: ${size(js)} kB, ${size(gz(js))} kB compressed`);
  assert.ok(size(css) <= 20, `style: ${size(css)} kB`);
  const all = files().filter((path) => path.endsWith('.js'));
  assert.ok(size(gz(all)) <= 140, `all scripts: ${size(all)} kB, ${size(gz(all))} kB compressed`);
});

test('nothing evaluates text, and no address of another host is in the bundle', () => {
  for (const path of files().filter((each) => /\.(js|css|html)$/.test(each))) {
    const text = readFileSync(path, 'utf8');
    for (const [, found] of text.matchAll(/\b(https?:\/\/[^\s"'`)]+)/g)) {
      assert.match(found, /^(http:\/\/www\.w3\.org\/|https:\/\/svelte\.dev\/e\/)/, `${path}: ${found}`);
    }
    assert.doesNotMatch(text, /\beval\(|new Function\(/, path);
    // An absolute address would break below a path prefix.
    assert.doesNotMatch(text, /(?:src|href)="\//, path);
  }
  const source = resolve(DIST, '../src');
  for (const path of files(source).filter((each) => each.endsWith('.svelte'))) assert.doesNotMatch(readFileSync(path, 'utf8'), /\{@html|innerHTML/, path);
});

test('every file lies there compressed, and licenses are named', () => {
  for (const path of files().filter((each) => !each.endsWith('.gz'))) assert.ok(existsSync(`${path}.gz`), path);
  const licenses = readFileSync(join(DIST, 'licenses.txt'), 'utf8');
  for (const name of ['svelte', 'uplot']) assert.match(licenses, new RegExp(`^${name} \\d`, 'm'));
});
