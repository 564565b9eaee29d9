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

interface Plain {
  query?: object;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

/** The JSON of a good answer to a request that the contract does not type; others are thrown as `Failure`. */
export async function ask<T>(method: string, path: readonly (string | number)[], options: Plain = {}): Promise<T> {
  const init: RequestInit = { method, headers: { ...HEADERS, ...options.headers }, credentials: 'same-origin' };
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

type Method = 'get' | 'post' | 'delete';
type With<M extends Method> = { [P in keyof paths]: paths[P] extends Record<M, { responses: unknown }> ? P : never }[keyof paths];
type Good<R> = R[keyof R & (200 | 201 | 202)];
type Answer<O> = O extends { responses: infer R } ? (Good<R> extends { content: { 'application/json': infer T } } ? T : undefined) : never;
type Asked<O> = Omit<Plain, 'query' | 'body'> &
  (O extends { parameters: { path: infer V } } ? { path: V } : unknown) &
  (O extends { parameters: { query?: infer Q } } ? { query?: Q | undefined } : unknown) &
  (O extends { requestBody: { content: { 'application/json': infer B } } } ? { body: B } : unknown);

/** A request as the contract has it: its path, what goes into that, its query and body, and its answer are typed by it. */
function typed<M extends Method>(method: M) {
  return <P extends With<M>>(
    path: P,
    ...[options]: object extends Asked<paths[P][M]> ? [options?: Asked<paths[P][M]>] : [options: Asked<paths[P][M]>]
  ): Promise<Answer<paths[P][M]>> => {
    const { path: inserted, ...plain } = (options ?? {}) as Plain & { path?: Record<string, string | number> };
    const parts = path.slice(1).split('/');
    return ask(method.toUpperCase(), parts.map((part) => inserted?.[part.slice(1, -1)] ?? part), plain);
  };
}

export const get = typed('get');
export const post = typed('post');
export const remove = typed('delete');

/** An idempotency key; browsers give random ones to pages of secure addresses only. */
export function newKey(): string {
  return crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
}

/** The address of a resource, for links and images. */
export function address(path: readonly (string | number)[], query: object = {}): string {
  const url = new URL(path.map((part) => encodeURIComponent(part)).join('/'), BASE);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null) url.searchParams.set(name, String(value));
  }
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
