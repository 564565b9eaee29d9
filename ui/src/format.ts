const NONE = '–';

export function bytes(n: number | null | undefined): string {
  if (n === null || n === undefined) return NONE;
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = n;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 || value >= 99.5 ? Math.round(value) : value.toPrecision(2)}\u00a0${units[unit]}`;
}

/** 12,345 with the digits grouped. */
export function count(n: number | null | undefined): string {
  return n === null || n === undefined ? NONE : n.toLocaleString('en-US');
}

/** 4.7 M, for numbers of parameters. */
export function short(n: number | null | undefined): string {
  if (n === null || n === undefined) return NONE;
  for (const [size, unit] of [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k']] as const) {
    if (n >= 0.9995 * size) return `${(n / size).toPrecision(3).replace(/\.?0+$/, '')}\u00a0${unit}`;
  }
  return String(n);
}

export function percent(share: number | null | undefined, digits = 1): string {
  return share === null || share === undefined ? NONE : `${(100 * share).toFixed(digits)}\u00a0%`;
}

/** A number with four significant digits. */
export function number(x: number | null | undefined, digits = 4): string {
  if (x === null || x === undefined || Number.isNaN(x)) return NONE;
  if (Number.isInteger(x) && Math.abs(x) < 1e6) return count(x);
  const size = Math.abs(x);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return x.toExponential(2);
  return x.toPrecision(digits);
}

export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined) return NONE;
  const s = Math.max(0, Math.round(seconds));
  if (seconds > 0 && seconds < 9.95 && !Number.isInteger(seconds)) return `${seconds.toFixed(1)}\u00a0s`;
  if (s < 60) return `${s}\u00a0s`;
  if (s < 3600) return `${Math.floor(s / 60)}\u00a0min ${String(s % 60).padStart(2, '0')}\u00a0s`;
  if (s < 86400) return `${Math.floor(s / 3600)}\u00a0h ${String(Math.floor((s % 3600) / 60)).padStart(2, '0')}\u00a0min`;
  return `${Math.floor(s / 86400)}\u00a0d ${Math.floor((s % 86400) / 3600)}\u00a0h`;
}

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });
const full = new Intl.DateTimeFormat('en-GB', { dateStyle: 'full', timeStyle: 'long' });

export function time(unix: number): string {
  return clock.format(unix * 1000);
}

export function date(unix: number | null | undefined): string {
  return unix === null || unix === undefined ? NONE : day.format(unix * 1000);
}

export function longDate(unix: number): string {
  return full.format(unix * 1000);
}

/** 3 min ago; dates beyond a day. */
export function ago(unix: number | null | undefined, now = Date.now() / 1000): string {
  if (unix === null || unix === undefined) return NONE;
  const s = now - unix;
  if (s < 10) return 'just now';
  if (s < 60) return `${Math.floor(s)} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
  return date(unix);
}

/** The beginning of an id that is long. */
export function shortId(id: string): string {
  const at = id.search(/[-_](?=[0-9a-f]{32}$)/);
  return at < 0 ? id : id.slice(0, at + 9);
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}
