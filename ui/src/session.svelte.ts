import { asFailure, get, isAbort, onUnauthorized, post, remove, type Failure, type Schemas } from './api';
import { router } from './router.svelte';

type SessionObject = Schemas['Session'];
type Access = 'unknown' | 'refused' | SessionObject['status'];

/** Who uses the page: an open service needs no key; others give a session for one. */
class Session {
  access = $state<Access>('unknown');
  who = $state<SessionObject | null>(null);
  refusal = $state<Failure | null>(null);

  async load(): Promise<void> {
    try {
      this.who = await get('/v1/session');
      this.access = this.who.status;
    } catch (error) {
      if (isAbort(error)) return;
      const failure = asFailure(error);
      if (failure.status === 401) this.access = 'signed_out';
      else if (failure.status === 403) {
        this.access = 'refused';
        this.refusal = failure;
      }
    }
  }

  async signIn(key: string, keep: boolean): Promise<void> {
    await post('/v1/session', { body: { key, keep } });
    await this.load();
  }

  async signOut(): Promise<void> {
    await remove('/v1/session');
    this.access = 'signed_out';
    this.who = null;
    router.go(['login']);
  }
}

export const session = new Session();

// The page asks for a key in its place, so that its address stays.
onUnauthorized(() => (session.access = 'signed_out'));
