import { asFailure, get, isAbort, newKey, upload, type Failure, type Schemas } from './api';
import type { Chosen } from './drop';
import { repeat } from './repeat';
import { tar } from './tar';

export type DataFile = Schemas['File'];

/** An upload and the validation that follows it. */
export class Upload {
  sent = $state(0);
  total = $state(0);
  busy = $state(false);
  failure = $state.raw<Failure | null>(null);
  #controller: AbortController | null = null;

  async send(chosen: Chosen, purpose: 'fine-tune' | 'weights'): Promise<DataFile | null> {
    if (this.busy) return null;
    this.busy = true;
    this.failure = null;
    this.#controller = new AbortController();
    try {
      const body = chosen.archive ?? tar(chosen.entries);
      const name = chosen.archive ? chosen.archive.name : `${chosen.name.replace(/[\x00-\x1f\x7f]/g, '_')}.tar`;
      this.total = body.size;
      this.sent = 0;
      const form = new FormData();
      form.set('purpose', purpose);
      form.set('file', body, name);
      return await upload<DataFile>(['v1', 'files'], form, {
        signal: this.#controller.signal,
        headers: { 'idempotency-key': newKey() },
        progress: (sent) => (this.sent = sent),
      });
    } catch (error) {
      if (!isAbort(error)) this.failure = asFailure(error);
      return null;
    } finally {
      this.busy = false;
    }
  }

  abort(): void {
    this.#controller?.abort();
  }
}

/** Follows a file until it is validated; returns a function that ends it. */
export function followFile(id: string, take_: (file: DataFile) => void, onError: (failure: Failure | null) => void): () => void {
  return repeat(async (signal) => {
    const file = await get('/v1/files/{id}', { path: { id }, query: { wait: 20, until: 'processed' }, signal });
    take_(file);
    return file.status === 'processed' || file.status === 'error' ? null : 0;
  }, onError);
}
