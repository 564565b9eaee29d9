import { href, parse, type Query } from './hash';

class Router {
  hash = $state(location.hash);
  route = $derived(parse(this.hash));

  constructor() {
    addEventListener('hashchange', () => (this.hash = location.hash));
  }

  get query(): URLSearchParams {
    return this.route.query;
  }

  get(name: string): string {
    return this.route.query.get(name) ?? '';
  }

  /** Opens another page, as a new entry of the history. */
  go(path: readonly string[], query: Query = {}): void {
    location.hash = href(path, query);
  }

  /** Changes the view state of this page, without a new entry. */
  set(changes: Query): void {
    const query: Query = { ...Object.fromEntries(this.route.query), ...changes };
    const hash = href(this.route.path, query);
    if (hash === this.hash) return;
    history.replaceState(history.state, '', hash);
    this.hash = hash;
  }
}

export const router = new Router();
