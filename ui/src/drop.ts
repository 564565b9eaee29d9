import { bytes } from './format';
import type { Entry } from './tar';

/** What a user dropped or chose. */
export interface Chosen {
  /** An archive to send as it is. */
  archive: File | null;
  /** Name of the folder. */
  name: string;
  entries: Entry[];
  /** Hidden files and the like that are left out. */
  skipped: number;
}

const ARCHIVE = /\.(zip|tar|tgz|tar\.gz|tar\.zst|csv|jsonl)$/i;
const IMAGE = /\.(jpe?g|png|webp|gif|bmp)$/i;
const SPLITS = new Set(['train', 'training', 'val', 'valid', 'validation', 'test']);

/** Parts of a path that archives made on other machines carry along, and hidden files. */
function isHidden(path: string): boolean {
  return path.split('/').some((part) => part.startsWith('.') || part === '__MACOSX' || part === 'Thumbs.db');
}

/** Paths below the one folder that all have in common. */
function chosen(files: { path: string; file: File }[]): Chosen {
  const kept = files.filter(({ path }) => !isHidden(path));
  const roots = new Set(kept.map(({ path }) => (path.includes('/') ? path.slice(0, path.indexOf('/')) : '')));
  const [root] = roots;
  const single = roots.size === 1 && root ? root : '';
  const entries = kept.map(({ path, file }) => ({ path: single ? path.slice(single.length + 1) : path, file }));
  const only = entries[0];
  const archive = entries.length === 1 && only && ARCHIVE.test(only.path) ? (only.file as File) : null;
  return { archive, name: single || only?.path || 'folder', entries: archive ? [] : entries, skipped: files.length - kept.length };
}

/** Files of an input, with or without `webkitdirectory`. */
export function fromInput(list: FileList): Chosen {
  return chosen([...list].map((file) => ({ path: file.webkitRelativePath || file.name, file })));
}

function readEntries(reader: FileSystemDirectoryReader): Promise<FileSystemEntry[]> {
  return new Promise((resolve, reject) => reader.readEntries(resolve, reject));
}

function fileOf(entry: FileSystemFileEntry): Promise<File> {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}

/** Files and folders of a drop. A reader gives at most 100 entries at once. */
export async function fromDrop(items: DataTransferItemList, progress?: (count: number) => void): Promise<Chosen> {
  const roots = [...items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  const files: { path: string; file: File }[] = [];
  const walk = async (entry: FileSystemEntry, path: string): Promise<void> => {
    if (entry.isFile) {
      files.push({ path, file: await fileOf(entry as FileSystemFileEntry) });
      if (files.length % 100 === 0) progress?.(files.length);
      return;
    }
    const reader = (entry as FileSystemDirectoryEntry).createReader();
    for (;;) {
      const batch = await readEntries(reader);
      if (!batch.length) return;
      for (const inner of batch) await walk(inner, `${path}/${inner.name}`);
    }
  };
  for (const root of roots) await walk(root, root.name);
  return chosen(files);
}

export interface Described {
  images: number;
  bytes: number;
  /** Files by ending, most frequent first. */
  types: [string, number][];
  /** Images by class. */
  classes: [string, number][];
  /** Why it cannot work, before anything is sent. */
  problem: string;
}

/** What a folder or an archive has, and what is wrong with it, as far as this machine can tell. */
export function describe({ archive, entries }: Chosen, limit: number): Described {
  const tooLarge = (size: number) => (size > limit ? `It has ${bytes(size)}; the service accepts ${bytes(limit)}.` : '');
  if (archive) return { images: 0, bytes: archive.size, types: [], classes: [], problem: tooLarge(archive.size) };
  const types = new Map<string, number>();
  const classes = new Map<string, number>();
  let images = 0;
  let size = 0;
  let hasManifest = false;
  for (const { path, file } of entries) {
    const at = path.lastIndexOf('.');
    const ending = at > path.lastIndexOf('/') ? path.slice(at + 1).toLowerCase() : 'no ending';
    types.set(ending, (types.get(ending) ?? 0) + 1);
    size += file.size;
    if (/^[^/]*\.(csv|jsonl)$/i.test(path)) hasManifest = true;
    if (!IMAGE.test(path)) continue;
    images++;
    const parts = path.split('/');
    if (SPLITS.has((parts[0] ?? '').toLowerCase()) && parts.length > 2) parts.shift();
    const name = parts.length > 1 ? (parts[0] as string) : '';
    classes.set(name, (classes.get(name) ?? 0) + 1);
  }
  const sorted = (map: Map<string, number>) => [...map].sort((a, b) => b[1] - a[1]);
  let problem = '';
  if (!entries.length) problem = 'The folder is empty.';
  else if (!images) problem = 'There are no images in it: JPEG, PNG, WebP, GIF or BMP, in a folder for each class.';
  else if (tooLarge(size)) problem = tooLarge(size);
  else if (!hasManifest && classes.size === 1) {
    const [only] = classes.keys();
    problem = only ? `All images are in one class, “${only}”. Make a folder for each class.` : 'The images lie in no folder. Make a folder for each class, and put its images there.';
  }
  return { images, bytes: size, types: sorted(types), classes: sorted(classes), problem };
}
