import createClient, { type Middleware } from 'openapi-fetch';
import type { components, paths } from './schema';

export type Schemas = components['schemas'];

/** The service, wherever a proxy has put it: this page is its `ui/`. */
export const BASE = new URL('../', document.baseURI);

/** An error of the API, or of the way to it. */
export class Failure extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly details: Schemas['Problem'][] = [],
    readonly requestId = '',
    readonly param = '',
  ) {
    super(message);
  }
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}

export function asFailure(error: unknown): Failure {
  if (error instanceof Failure) return error;
  if (error instanceof TypeError) {
    return new Failure(0, 'unreachable', 'The service cannot be reached. Check that it runs and that this machine is online; the page tries again by itself.');
  }
  return new Failure(0, 'page_error', error instanceof Error ? error.message : String(error));
}

export async function failureOf(response: Response): Promise<Failure> {
  const text = await response.text();
  try {
    const error = (JSON.parse(text) as Schemas['ErrorBody']).error;
    return new Failure(response.status, error.code, error.message, error.details, error.request_id, error.param ?? '');
  } catch {
    const message = `Status ${response.status} from something between this page and the service, such as a proxy.`;
    return new Failure(response.status, 'unexpected_answer', message);
  }
}

let unauthorized = () => {};
export function onUnauthorized(run: () => void): void {
  unauthorized = run;
}

export const HEADERS = { 'x-rehead-ui': '1' };

const middleware: Middleware = {
  async onResponse({ response }) {
    if (response.ok || response.status === 304) return response;
    const failure = await failureOf(response);
    if (failure.status === 401) unauthorized();
    throw failure;
  },
};

export const api = createClient<paths>({
  baseUrl: BASE.href.replace(/\/$/, ''),
  headers: HEADERS,
  credentials: 'same-origin',
});
api.use(middleware);

/** The body of a good answer; others are thrown as `Failure`. */
export async function take<T>(answer: Promise<{ data?: T }>): Promise<T> {
  const { data } = await answer;
  return data as T;
}

interface Plain {
  method?: string;
  query?: Record<string, string>;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

/** A request whose path or answer the contract does not type. */
export async function ask<T>(path: readonly (string | number)[], options: Plain = {}): Promise<T> {
  const init: RequestInit = { method: options.method ?? 'GET', headers: { ...HEADERS, ...options.headers }, credentials: 'same-origin' };
  if (options.signal) init.signal = options.signal;
  if (options.body !== undefined) {
    init.body = JSON.stringify(options.body);
    init.headers = { ...init.headers, 'content-type': 'application/json' };
  }
  const response = await fetch(address(path, options.query), init);
  if (!response.ok) {
    const failure = await failureOf(response);
    if (failure.status === 401) unauthorized();
    throw failure;
  }
  return response.status === 204 ? (undefined as T) : ((await response.json()) as T);
}

/** The address of a resource, for links and images. */
export function address(path: readonly (string | number)[], query: Record<string, string> = {}): string {
  const url = new URL(path.map((part) => encodeURIComponent(part)).join('/'), BASE);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  return url.href;
}

/** Sends a form with progress, which `fetch` cannot report. */
export function upload<T>(
  path: readonly string[],
  form: FormData,
  options: { headers?: Record<string, string>; signal?: AbortSignal; progress?: (sent: number, total: number) => void },
): Promise<T> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open('POST', address(path));
    for (const [name, value] of Object.entries({ ...HEADERS, ...options.headers })) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => options.progress?.(event.loaded, event.total);
    request.onload = async () => {
      if (request.status < 300) return resolve(JSON.parse(request.responseText) as T);
      const failure = await failureOf(new Response(request.responseText, { status: request.status }));
      if (failure.status === 401) unauthorized();
      reject(failure);
    };
    const unreachable = () => reject(asFailure(new TypeError('network')));
    request.onerror = unreachable;
    request.onabort = () => reject(new DOMException('aborted', 'AbortError'));
    options.signal?.addEventListener('abort', () => request.abort());
    request.send(form);
  });
}

/** Saves a file of the service by the browser's own download. */
export function download(href: string, name = ''): void {
  const link = document.createElement('a');
  link.href = href;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
}
