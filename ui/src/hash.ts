/** The route in the hash: `#/jobs/ID/curves?x=epoch`. The part behind `?` is the page's whole view state. */
export interface Route {
  path: string[];
  query: URLSearchParams;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function parse(hash: string): Route {
  const text = hash.replace(/^#?\/?/, '');
  const at = text.indexOf('?');
  const path = at < 0 ? text : text.slice(0, at);
  return {
    path: path.split('/').filter(Boolean).map(decoded),
    query: new URLSearchParams(at < 0 ? '' : text.slice(at + 1)),
  };
}

export type Query = Record<string, string | number | boolean | null | undefined>;

/** The hash of a route. Parts and values are encoded; empty values are left out. */
export function href(path: readonly string[], query: Query = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== '' && value !== false) search.set(name, String(value));
  }
  const text = search.toString();
  return `#/${path.map(encodeURIComponent).join('/')}${text ? `?${text}` : ''}`;
}
