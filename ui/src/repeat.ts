import { asFailure, isAbort, type Failure } from './api';
import { backoff } from './events';

/**
 * Calls `run` again and again while the page is visible; it returns the milliseconds until the next
 * call, or null at the end. Errors are handed to `onError`, and tried again with a back-off unless
 * the request itself is refused. Returns a function that ends it.
 */
export function repeat(run: (signal: AbortSignal) => Promise<number | null>, onError?: (failure: Failure | null) => void): () => void {
  let ended = false;
  let busy = false;
  let tries = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const controller = new AbortController();
  const turn = async () => {
    if (ended || busy || document.hidden) return;
    busy = true;
    let wait: number | null;
    try {
      wait = await run(controller.signal);
      if (tries) onError?.(null);
      tries = 0;
    } catch (error) {
      if (isAbort(error) || ended) return;
      const failure = asFailure(error);
      onError?.(failure);
      const isFinal = failure.status >= 400 && failure.status < 500 && failure.status !== 429 && failure.status !== 408;
      wait = isFinal ? null : backoff(tries++) * 1000;
    } finally {
      busy = false;
    }
    if (wait === null) ended = true;
    if (!ended) timer = setTimeout(turn, wait ?? 0);
  };
  const visibility = () => {
    clearTimeout(timer);
    void turn();
  };
  document.addEventListener('visibilitychange', visibility);
  void turn();
  return () => {
    ended = true;
    clearTimeout(timer);
    controller.abort();
    document.removeEventListener('visibilitychange', visibility);
  };
}
