// A proxy in front of a service, for tests and development: below a path prefix, and, with a folder,
// with the page served from there. It buffers nothing.
import { createReadStream, existsSync, statSync } from 'node:fs';
import http from 'node:http';
import { extname, join, normalize } from 'node:path';

const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.txt': 'text/plain' };
export const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; " +
  "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types svelte-trusted-html";

/** Starts the proxy; `prefix` is such as `/x/rehead`. What `own` answers (true) does not reach the service. */
export function proxy(target, { prefix = '', dist = '', port = 0, own = () => false } = {}) {
  const upstream = new URL(target);
  const open = new Set();
  const server = http.createServer((request, response) => {
    if (!request.url.startsWith(`${prefix}/`)) {
      response.writeHead(404).end('outside of the prefix');
      return;
    }
    const path = request.url.slice(prefix.length);
    if (own(path, response)) return;
    if (dist && (path === '/ui/' || path.startsWith('/ui/'))) {
      const name = normalize(decodeURIComponent(path.slice(4).split('?')[0])) || 'index.html';
      const file = join(dist, name === '.' ? 'index.html' : name);
      if (!file.startsWith(dist) || !existsSync(file) || !statSync(file).isFile()) return void response.writeHead(404).end();
      response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream', 'content-security-policy': POLICY });
      createReadStream(file).pipe(response);
      return;
    }
    const passed = http.request(
      { host: upstream.hostname, port: upstream.port, path, method: request.method, headers: request.headers },
      (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
        answer.on('close', () => answer.complete || response.destroy());
      },
    );
    open.add(passed);
    passed.on('close', () => open.delete(passed));
    passed.on('error', () => (response.headersSent ? response.destroy() : response.writeHead(502).end()));
    response.on('close', () => passed.destroy());
    request.pipe(passed);
  });
  return new Promise((resolve) => {
    server.listen(port, '127.0.0.1', () => {
      resolve({
        url: `http://127.0.0.1:${server.address().port}${prefix}/`,
        /** Cuts every connection to the service. */
        cut: () => open.forEach((each) => each.destroy()),
        close: () => {
          server.closeAllConnections();
          return new Promise((done) => server.close(done));
        },
      });
    });
  });
}

if (process.argv[1] === import.meta.filename) {
  const [target, prefix, dist, port] = process.argv.slice(2);
  const { url } = await proxy(target, { prefix: prefix === '-' ? '' : prefix, dist, port: Number(port ?? 0) });
  console.log(url);
}
