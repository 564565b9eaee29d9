/** A frame of a stream of server-sent events. */
export interface Frame {
  id: string;
  event: string;
  data: string;
}

/** Parses server-sent events (HTML Standard, 9.2.6), piece by piece. */
export class FrameParser {
  #rest = '';
  #data: string[] = [];
  #event = '';
  /** Id of the last frame, for `last-event-id`. */
  lastId = '';

  push(text: string): Frame[] {
    const frames: Frame[] = [];
    let all = this.#rest + text;
    // A final CR may be the first half of CRLF.
    const held = all.endsWith('\r') ? '\r' : '';
    all = held ? all.slice(0, -1) : all;
    const lines = all.split(/\r\n|\n|\r/);
    this.#rest = (lines.pop() ?? '') + held;
    for (const line of lines) this.#line(line, frames);
    return frames;
  }

  #line(line: string, frames: Frame[]): void {
    if (line === '') {
      if (this.#data.length) frames.push({ id: this.lastId, event: this.#event || 'message', data: this.#data.join('\n') });
      this.#data = [];
      this.#event = '';
      return;
    }
    const at = line.indexOf(':');
    const field = at < 0 ? line : line.slice(0, at);
    const value = at < 0 ? '' : line.slice(at + 1).replace(/^ /, '');
    if (field === 'data') this.#data.push(value);
    else if (field === 'event') this.#event = value;
    else if (field === 'id' && !value.includes('\0')) this.lastId = value;
  }
}

/** Seconds before try `n` (from 0) to connect again: 0.5, 1, 2, … 15. */
export function backoff(n: number): number {
  return Math.min(15, 0.5 * 2 ** n);
}

/** Silence after which a stream is given up (ms); the service sends something every 15 seconds. */
const SILENCE = 45_000;

export interface StreamOptions {
  url: string;
  headers?: Record<string, string>;
  lastId?: string;
  onFrame: (frame: Frame) => void;
  /** The stream is open (true), or broken until the next try (false). */
  onOpen?: (open: boolean) => void;
  /** An answer that trying again does not change, such as 401 and 404. */
  onRefused?: (response: Response) => void;
  isLast?: (frame: Frame) => boolean;
}

/**
 * Follows a stream until its last frame, across cuts. It is closed while the page is hidden, since a
 * browser opens six connections to a host at most. Returns a function that ends it.
 */
export function follow(options: StreamOptions): () => void {
  let lastId = options.lastId ?? '';
  let tries = 0;
  let ended = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let controller: AbortController | undefined;
  let watch: ReturnType<typeof setTimeout> | undefined;

  const again = () => {
    if (ended || document.hidden) return;
    options.onOpen?.(false);
    timer = setTimeout(connect, backoff(tries++) * 1000);
  };
  const connect = async () => {
    const own = new AbortController();
    controller = own;
    const { signal } = own;
    let isSilent = false;
    const heard = () => {
      clearTimeout(watch);
      watch = setTimeout(() => {
        isSilent = true;
        own.abort();
      }, SILENCE);
    };
    heard();
    try {
      const headers: Record<string, string> = { accept: 'text/event-stream', ...options.headers };
      if (lastId) headers['last-event-id'] = lastId;
      const response = await fetch(options.url, { headers, signal, credentials: 'same-origin', cache: 'no-store' });
      if ([401, 403, 404].includes(response.status)) {
        ended = true;
        options.onRefused?.(response);
        return;
      }
      if (!response.ok || !response.body) throw new Error(`status ${response.status}`);
      options.onOpen?.(true);
      const parser = new FrameParser();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        heard();
        for (const frame of parser.push(value)) {
          tries = 0;
          lastId = frame.id || lastId;
          options.onFrame(frame);
          if (options.isLast?.(frame)) {
            ended = true;
            own.abort();
            return;
          }
        }
      }
    } catch {
      if (ended || (signal.aborted && !isSilent)) return;
    } finally {
      if (controller === own) clearTimeout(watch);
    }
    again();
  };
  const visibility = () => {
    if (ended) return;
    clearTimeout(timer);
    controller?.abort();
    if (!document.hidden) {
      tries = 0;
      void connect();
    }
  };
  document.addEventListener('visibilitychange', visibility);
  if (!document.hidden) void connect();
  return () => {
    ended = true;
    clearTimeout(timer);
    controller?.abort();
    document.removeEventListener('visibilitychange', visibility);
  };
}
