import { ask, type Schemas } from './api';

export type Summary = Schemas['JobSummary'];
export type Page = Schemas['JobSummaryList'];

const PAGE = 100;
/** Seconds that a request for changes is held back. */
const WAIT = 25;

export function summaries(query: Record<string, string>, signal?: AbortSignal): Promise<Page> {
  return ask('GET', ['v1', 'fine_tuning', 'job_summaries'], { query, signal });
}

/** The rows of the jobs table, page by page, and their changes. */
export class JobRows {
  rows = $state.raw<Summary[]>([]);
  total = $state<number | null>(null);
  more = $state(false);
  loaded = $state(false);
  #hasMore = false;
  #busy = false;
  #last = '';
  #version = '';

  constructor(readonly query: Record<string, string>) {}

  /** Loads the first page. */
  async start(signal?: AbortSignal): Promise<void> {
    const page = await summaries({ limit: String(PAGE), ...this.query }, signal);
    this.rows = page.data;
    this.total = typeof page.count === 'number' ? page.count : null;
    this.more = page.count === 'more';
    this.#hasMore = page.has_more;
    this.#last = page.last_id ?? '';
    this.#version = page.version;
    this.loaded = true;
  }

  async next(): Promise<void> {
    if (this.#busy || !this.#hasMore) return;
    this.#busy = true;
    try {
      const page = await summaries({ limit: String(PAGE), ...this.query, after: this.#last });
      const known = new Set(this.rows.map((row) => row.id));
      this.rows = [...this.rows, ...page.data.filter((row) => !known.has(row.id))];
      this.#hasMore = page.has_more;
      this.#last = page.last_id ?? '';
    } finally {
      this.#busy = false;
    }
  }

  /** Waits for changes and takes them over; rows keep their places. */
  async follow(signal: AbortSignal): Promise<void> {
    const { sort, ...conditions } = this.query;
    const page = await summaries({ limit: String(PAGE), ...conditions, changed_since: this.#version, wait: String(WAIT) }, signal);
    if (page.has_more) return this.start(signal);
    this.#version = page.version;
    const changed = new Map(page.data.map((row) => [row.id, row]));
    if (!changed.size) return;
    const at = new Map(this.rows.map((row, i) => [row.id, i]));
    const rows = [...this.rows];
    const gone = new Set<string>();
    const fresh: Summary[] = [];
    for (const row of changed.values()) {
      const index = at.get(row.id);
      if (index === undefined) {
        if (row.matches !== false) fresh.push(row);
      } else if (row.matches === false) gone.add(row.id);
      else if (row.version >= (rows[index] as Summary).version) rows[index] = row;
    }
    // Of the jobs that were not listed only new ones have a place that is known.
    const newest = rows[0]?.created_at ?? 0;
    const added = sort === undefined ? fresh.filter((row) => row.created_at >= newest).sort((a, b) => b.created_at - a.created_at) : [];
    this.rows = [...added, ...rows.filter((row) => !gone.has(row.id))];
    if (this.total !== null) this.total += added.length - gone.size;
  }
}
