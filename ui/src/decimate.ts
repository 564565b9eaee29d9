/** Index of the first of the sorted `xs` that is at least `x`. */
export function lowerBound(xs: ArrayLike<number>, x: number, end = xs.length): number {
  let low = 0;
  let high = end;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((xs[middle] as number) < x) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Points to draw of a line, between `from` and `to`, in `buckets` columns of pixels: first, least,
 * greatest and last of each, so that a spike of one point stays visible. NaN ends a line and becomes
 * null. One point beyond either end is kept, so that lines reach the edges.
 */
export function decimate(
  xs: ArrayLike<number>,
  ys: ArrayLike<number>,
  length: number,
  from: number,
  to: number,
  buckets: number,
): [number[], (number | null)[]] {
  const start = Math.max(0, lowerBound(xs, from, length) - 1);
  let end = lowerBound(xs, to, length);
  while (end < length && (xs[end] as number) <= to) end++;
  end = Math.min(length, end + 1);
  const outX: number[] = [];
  const outY: (number | null)[] = [];
  const push = (i: number) => {
    const y = ys[i] as number;
    outX.push(xs[i] as number);
    outY.push(Number.isFinite(y) ? y : null);
  };
  const count = end - start;
  if (count <= 4 * buckets) {
    for (let i = start; i < end; i++) push(i);
    return [outX, outY];
  }
  for (let bucket = 0; bucket < buckets; bucket++) {
    const low = start + Math.floor((bucket * count) / buckets);
    const high = start + Math.floor(((bucket + 1) * count) / buckets);
    let least = -1;
    let greatest = -1;
    let gap = -1;
    for (let i = low; i < high; i++) {
      const y = ys[i] as number;
      if (!Number.isFinite(y)) gap = i;
      else {
        if (least < 0 || y < (ys[least] as number)) least = i;
        if (greatest < 0 || y > (ys[greatest] as number)) greatest = i;
      }
    }
    const kept = [...new Set([low, least, greatest, gap, high - 1])].filter((i) => i >= low && i < high).sort((a, b) => a - b);
    for (const i of kept) push(i);
  }
  return [outX, outY];
}

/** Exponential moving average with the bias of the start corrected; NaN stays and is skipped. */
export function smooth(ys: ArrayLike<number>, length: number, weight: number): Float64Array {
  const out = new Float64Array(length);
  let mean = 0;
  let norm = 0;
  for (let i = 0; i < length; i++) {
    const y = ys[i] as number;
    if (Number.isFinite(y)) {
      mean = weight * mean + (1 - weight) * y;
      norm = weight * norm + (1 - weight);
      out[i] = mean / norm;
    } else out[i] = NaN;
  }
  return out;
}

/** Numbers that are appended to: capacity doubles, so that live data cost no copies. */
export class Column {
  values = new Float64Array(256);
  length = 0;

  push(value: number | null | undefined): void {
    if (this.length === this.values.length) {
      const larger = new Float64Array(2 * this.length);
      larger.set(this.values);
      this.values = larger;
    }
    this.values[this.length++] = value ?? NaN;
  }

  get last(): number {
    return this.length ? (this.values[this.length - 1] as number) : NaN;
  }

  static of(values: ArrayLike<number | null>): Column {
    const column = new Column();
    for (let i = 0; i < values.length; i++) column.push(values[i]);
    return column;
  }
}
