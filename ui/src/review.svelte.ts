/** Corrections of a data set that a user collects, before they become a new data set. */

export interface Change {
  /** Number of the sample in its file. */
  sample: number;
  file: string;
  path: string;
  /** Its new class; null excludes it. */
  label: string | null;
}

export class Review {
  changes = $state.raw<Change[]>([]);
  #key: string;

  constructor(job: string) {
    this.#key = `rehead.review.${job}`;
    try {
      this.changes = JSON.parse(sessionStorage.getItem(this.#key) ?? '[]') as Change[];
    } catch {
      this.changes = [];
    }
  }

  #keep(changes: Change[]): void {
    this.changes = changes;
    if (changes.length) sessionStorage.setItem(this.#key, JSON.stringify(changes));
    else sessionStorage.removeItem(this.#key);
  }

  of(file: string, sample: number): Change | undefined {
    return this.changes.find((change) => change.file === file && change.sample === sample);
  }

  set(change: Change): void {
    this.#keep([...this.changes.filter((other) => other.file !== change.file || other.sample !== change.sample), change]);
  }

  remove(file: string, sample: number): void {
    this.#keep(this.changes.filter((other) => other.file !== file || other.sample !== sample));
  }

  undo(): Change | undefined {
    const last = this.changes[this.changes.length - 1];
    this.#keep(this.changes.slice(0, -1));
    return last;
  }

  clear(): void {
    this.#keep([]);
  }

  /** Files with corrections, each with the body of its request. */
  requests(): { file: string; body: { exclude: number[]; relabel: Record<string, string> } }[] {
    const files = [...new Set(this.changes.map((change) => change.file))];
    return files.map((file) => {
      const changes = this.changes.filter((change) => change.file === file);
      const relabel = Object.fromEntries(changes.filter((change) => change.label !== null).map((change) => [String(change.sample), change.label as string]));
      return { file, body: { exclude: changes.filter((change) => change.label === null).map((change) => change.sample), relabel } };
    });
  }
}
