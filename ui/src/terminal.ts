import { BASE } from './api';

/** A word of a shell command, quoted where it must be. */
export function quote(word: string): string {
  return /^[\w./:=@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** The beginning of each curl command. */
export function curl(path: readonly string[], query = ''): string {
  const url = `${BASE.href}${path.map(encodeURIComponent).join('/')}${query}`;
  return `curl ${quote(url)} -H "Authorization: Bearer $REHEAD_API_KEY"`;
}

function rehead(args: readonly string[]): string {
  return `rehead ${args.map(quote).join(' ')} --url ${quote(BASE.href.replace(/\/$/, ''))}`;
}

export function curlJob(id: string): string {
  const path = ['v1', 'fine_tuning', 'jobs', id];
  return [curl(path, '?wait=60&until=terminal'), curl([...path, 'report']), `${curl([...path, 'events'])} -H "Accept: text/event-stream"`].join('\n');
}

export function cliWatch(id: string): string {
  return [rehead(['watch', id]), rehead(['report', id]), rehead(['logs', id])].join('\n');
}

export function curlJson(path: readonly string[], body: unknown): string {
  return `${curl(path)} \\\n  --json ${quote(JSON.stringify(body, null, 2))}`;
}

export function cli(args: readonly string[]): string {
  return rehead(args);
}
