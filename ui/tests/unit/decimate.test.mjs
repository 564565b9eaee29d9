import assert from 'node:assert/strict';
import test from 'node:test';
import { Column, decimate, lowerBound, smooth } from '../../src/decimate.ts';
import { dash, hue } from '../../src/draw.ts';

test('a spike of one point among a million stays visible, and zoom finds it', () => {
  const n = 1_000_000;
  const xs = Float64Array.from({ length: n }, (_, i) => i);
  const ys = new Float64Array(n);
  ys[654_321] = 7;
  const started = performance.now();
  const [, drawn] = decimate(xs, ys, n, 0, n, 1000);
  assert.ok(performance.now() - started < 1500);
  assert.ok(drawn.length <= 5000, String(drawn.length));
  assert.equal(Math.max(...drawn), 7);
  const [zoomX, zoomY] = decimate(xs, ys, n, 654_300, 654_340, 1000);
  assert.equal(zoomX[zoomY.indexOf(7)], 654_321);
  assert.ok(zoomX.length < 50);
});

test('gaps stay gaps, few points stay as they are', () => {
  const [xs, ys] = decimate([0, 1, 2, 3], [1, NaN, 3, Infinity], 4, 0, 3, 100);
  assert.deepEqual(xs, [0, 1, 2, 3]);
  assert.deepEqual(ys, [1, null, 3, null]);
  const many = Float64Array.from({ length: 10_000 }, (_, i) => (i > 4000 && i < 6000 ? NaN : 1));
  const [, kept] = decimate(many.map((_, i) => i), many, 10_000, 0, 10_000, 100);
  assert.ok(kept.includes(null) && kept.includes(1));
});

test('lines reach the edges of a range between two points', () => {
  const [xs] = decimate([0, 10, 20, 30], [1, 2, 3, 4], 4, 12, 18, 100);
  assert.deepEqual(xs, [10, 20]);
  assert.equal(lowerBound([1, 2, 2, 3], 2), 1);
});

test('columns grow without losing values, smoothing starts without a bias', () => {
  const column = new Column();
  for (let i = 0; i < 1000; i++) column.push(i === 3 ? null : i);
  assert.equal(column.length, 1000);
  assert.equal(column.last, 999);
  assert.ok(Number.isNaN(column.values[3]));
  const flat = smooth([5, 5, NaN, 5], 4, 0.9);
  assert.ok(Math.abs(flat[0] - 5) < 1e-9 && Math.abs(flat[3] - 5) < 1e-9 && Number.isNaN(flat[2]));
});

test('no two of sixteen lines look alike', () => {
  const looks = Array.from({ length: 16 }, (_, i) => `${hue(i + 1)} ${dash(i + 1)}`);
  assert.equal(new Set(looks).size, 16);
  assert.deepEqual([hue(1), dash(1), hue(9)], ['--s1', [], '--s1']);
});
