import type uPlot from 'uplot';
import { decimate, lowerBound, smooth } from './decimate';

/** A line of a chart: columns of equal length, x ascending. */
export interface Line {
  name: string;
  x: ArrayLike<number>;
  y: ArrayLike<number>;
  length: number;
  /** From 1: color and dash, the same for no two of the first 64. */
  series: number;
  points?: boolean;
  /** May be smoothed: the raw line is then drawn faintly below. */
  noisy?: boolean;
}

export interface Range {
  min: number;
  max: number;
}

export const DASHES: readonly number[][] = [[], [7, 3], [2, 3], [9, 3, 2, 3], [14, 4], [4, 2], [1, 2], [12, 3, 2, 3, 2, 3]];

/** The color of a line, a variable of the theme. */
export function hue(series: number): string {
  return `--s${((series - 1) % DASHES.length) + 1}`;
}

/** The dashes of a line: colors that come again come with others. */
export function dash(series: number): number[] {
  const turn = Math.floor((series - 1) / DASHES.length);
  return DASHES[(series - 1 + 3 * turn) % DASHES.length] ?? [];
}

/** The whole range of x. */
export function extent(lines: readonly Line[], log: boolean): Range {
  let min = Infinity;
  let max = -Infinity;
  for (const { x, length } of lines) {
    if (!length) continue;
    const first = log ? lowerBound(x, Number.MIN_VALUE, length) : 0;
    if (first >= length) continue;
    min = Math.min(min, x[first] as number);
    max = Math.max(max, x[length - 1] as number);
  }
  if (min > max) return { min: log ? 1 : 0, max: log ? 10 : 1 };
  return min === max ? { min: log ? min / 2 : min - 0.5, max: log ? max * 2 : max + 0.5 } : { min, max };
}

/** Smoothed columns, kept until the line grows or the weight changes. */
const smoothed = new WeakMap<object, { length: number; weight: number; y: Float64Array }>();

function smoothY(line: Line, weight: number): ArrayLike<number> {
  const known = smoothed.get(line.y as object);
  if (known && known.length === line.length && known.weight === weight) return known.y;
  const y = smooth(line.y, line.length, weight);
  smoothed.set(line.y as object, { length: line.length, weight, y });
  return y;
}

export interface Drawing {
  data: uPlot.AlignedData;
  /** For each series of `data`: its line, and whether it is the raw form of a smoothed one. */
  series: { line: number; faint: boolean }[];
}

/** What is drawn of the lines in a range of x, on so many pixels. */
export function drawing(
  lines: readonly Line[],
  range: Range,
  pixels: number,
  options: { smoothing: number; logY: boolean; join: typeof uPlot.join },
): Drawing {
  const tables: uPlot.AlignedData[] = [];
  const series: Drawing['series'] = [];
  lines.forEach((line, index) => {
    const add = (y: ArrayLike<number>, faint: boolean) => {
      const [xs, ys] = decimate(line.x, y, line.length, range.min, range.max, Math.max(50, Math.floor(pixels)));
      if (options.logY) ys.forEach((value, i) => { if (value !== null && value <= 0) ys[i] = null; });
      tables.push([xs, ys]);
      series.push({ line: index, faint });
    };
    const isSmooth = options.smoothing > 0 && line.noisy === true;
    add(line.y, isSmooth);
    if (isSmooth) add(smoothY(line, options.smoothing), false);
  });
  const filled = tables.some((table) => table[0].length);
  const empty = [[range.min, range.max], ...tables.map(() => [null, null])] as unknown as uPlot.AlignedData;
  return { data: filled ? options.join(tables) : empty, series };
}

/** The value of a line at the x that is nearest to `x`; the last one for infinity. */
export function valueAt(line: Line, x: number): number {
  if (!line.length) return NaN;
  if (x === Infinity) return line.y[line.length - 1] as number;
  const after = Math.min(line.length - 1, lowerBound(line.x, x, line.length));
  const before = Math.max(0, after - 1);
  const nearest = Math.abs((line.x[before] as number) - x) <= Math.abs((line.x[after] as number) - x) ? before : after;
  return line.y[nearest] as number;
}

/** Rows of all lines by x, at most `limit` of them, evenly chosen. */
export function tableOf(lines: readonly Line[], limit: number): { rows: (number | null)[][]; all: number } {
  const xs = new Set<number>();
  for (const line of lines) for (let i = 0; i < line.length; i++) xs.add(line.x[i] as number);
  const sorted = [...xs].sort((a, b) => a - b);
  const all = sorted.length;
  const chosen = all <= limit ? sorted : Array.from({ length: limit }, (_, i) => sorted[Math.floor((i * (all - 1)) / (limit - 1))] as number);
  const rows = chosen.map((x) => [
    x,
    ...lines.map((line) => {
      const at = lowerBound(line.x, x, line.length);
      return at < line.length && line.x[at] === x ? (line.y[at] as number) : null;
    }),
  ]);
  return { rows, all };
}

/** A sentence on what a line does, for those who cannot see it. */
export function summary(line: Line, format: (y: number) => string): string {
  let least = -1;
  let greatest = -1;
  let first = -1;
  let last = -1;
  for (let i = 0; i < line.length; i++) {
    const y = line.y[i] as number;
    if (!Number.isFinite(y)) continue;
    if (first < 0) first = i;
    last = i;
    if (least < 0 || y < (line.y[least] as number)) least = i;
    if (greatest < 0 || y > (line.y[greatest] as number)) greatest = i;
  }
  if (first < 0) return `${line.name}: no values yet.`;
  const at = (i: number) => format(line.y[i] as number);
  return `${line.name}: from ${at(first)} to ${at(last)}; least ${at(least)}, greatest ${at(greatest)}.`;
}
