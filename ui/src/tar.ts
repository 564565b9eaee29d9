/** A file in an archive, at its path there. */
export interface Entry {
  path: string;
  file: Blob & { lastModified?: number };
}

const BLOCK = 512;
/** Largest size that 11 octal digits hold. */
const OCTAL_MAX = 0o77777777777;
const encoder = new TextEncoder();

/** Blocks of the ustar header (POSIX.1-2017, pax) of a file. */
function header(name: Uint8Array, size: number, time: number, type: string): Uint8Array {
  const block = new Uint8Array(BLOCK);
  const put = (text: string, at: number) => block.set(encoder.encode(text), at);
  block.set(name.subarray(0, 100), 0);
  put('0000644\0', 100);
  put('0000000\0', 108);
  put('0000000\0', 116);
  put(`${Math.min(size, OCTAL_MAX).toString(8).padStart(11, '0')}\0`, 124);
  put(`${Math.max(0, Math.min(Math.floor(time), OCTAL_MAX)).toString(8).padStart(11, '0')}\0`, 136);
  put('        ', 148);
  put(type, 156);
  put('ustar\0' + '00', 257);
  let sum = 0;
  for (const byte of block) sum += byte;
  put(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}

/** `LENGTH KEY=VALUE\n`, where LENGTH counts itself. */
export function paxRecord(key: string, value: string): string {
  const rest = encoder.encode(` ${key}=${value}\n`).length;
  let length = rest + String(rest).length;
  if (rest + String(length).length !== length) length = rest + String(length).length;
  return `${length} ${key}=${value}\n`;
}

function padding(size: number): Uint8Array {
  return new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);
}

function headers(path: string, size: number, time: number): Uint8Array[] {
  const name = encoder.encode(path);
  const records: string[] = [];
  // Bytes beyond ASCII have no encoding in ustar.
  if (name.length > 100 || name.some((byte) => byte > 126 || byte < 32)) records.push(paxRecord('path', path));
  if (size > OCTAL_MAX) records.push(paxRecord('size', String(size)));
  if (!records.length) return [header(name, size, time, '0')];
  const body = encoder.encode(records.join(''));
  const plain = encoder.encode(path.replace(/[^ -~]/g, '_').slice(-100));
  return [header(encoder.encode('PaxHeaders/entry'), body.length, time, 'x'), body, padding(body.length), header(plain, size, time, '0')];
}

/**
 * A tar archive of files, as a Blob of headers and the files themselves: nothing is read before it is
 * sent, so that size does not matter.
 */
export function tar(entries: Iterable<Entry>): Blob {
  const parts: BlobPart[] = [];
  for (const { path, file } of entries) {
    const time = (file.lastModified ?? 0) / 1000;
    for (const block of headers(path, file.size, time)) parts.push(block as BlobPart);
    parts.push(file, padding(file.size) as BlobPart);
  }
  parts.push(new Uint8Array(2 * BLOCK));
  return new Blob(parts, { type: 'application/x-tar' });
}
