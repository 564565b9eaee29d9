// D11, D12: keys and sessions in the page; what other sites can and cannot do.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createServer, request } from 'node:http';
import { join } from 'node:path';
import test from 'node:test';
import { executable, open, Service, until } from './world.mjs';

export function register() {
  test('keys: wrong, right, of another tenant, revoked; one returns to where one was', async () => {
    const service = await Service.start();
    const make = (tenant) => execFileSync(executable, ['keys', 'create', '--tenant', tenant, '--role', 'admin', '--data-dir', join(service.folder, 'data'), '--json'], { encoding: 'utf8' });
    const mine = JSON.parse(make('default'));
    const theirs = JSON.parse(make('others'));
    const view = await open(service.url, { expected: ['401', '404'] });
    const { page } = view;
    try {
      await page.goto(`${service.url}ui/#/workers`);
      await page.getByRole('heading', { name: 'Sign in' }).waitFor();
      await page.getByLabel('API key').fill('rh_000000000000_wrong');
      await page.getByRole('button', { name: 'Sign in' }).click();
      await page.getByRole('alert').getByText('API key').waitFor();
      await page.getByLabel('API key').fill(mine.value);
      await page.getByRole('button', { name: 'Sign in' }).click();
      await page.getByRole('heading', { name: 'Workers', level: 1 }).waitFor();
      const cookies = await view.context.cookies();
      const cookie = cookies.find((each) => each.name === 'rehead_session');
      assert.ok(cookie.httpOnly && cookie.sameSite === 'Strict', JSON.stringify(cookie));
      assert.equal(await page.evaluate(() => document.cookie), '');
      assert.ok(!(await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }]))).includes(mine.value));

      const other = { authorization: `Bearer ${theirs.value}` };
      const file = await upload(service, other);
      await page.goto(`${service.url}ui/#/files/${file}`);
      await page.getByRole('heading', { name: 'Not found' }).waitFor();

      await page.goto(`${service.url}ui/#/files?purpose=weights`);
      await page.getByRole('heading', { name: 'Files' }).waitFor();
      execFileSync(executable, ['keys', 'revoke', mine.id, '--data-dir', join(service.folder, 'data')]);
      await page.getByRole('button', { name: 'Results' }).click();
      await page.getByRole('heading', { name: 'Sign in' }).waitFor({ timeout: 30_000 });
      await page.getByLabel('API key').fill(theirs.value);
      await page.getByRole('button', { name: 'Sign in' }).click();
      await page.getByRole('heading', { name: 'Files' }).waitFor();
      assert.match(page.url(), /files\?purpose=fine-tune-results/);
      await page.getByRole('button', { name: 'Sign out' }).click();
      await page.getByRole('heading', { name: 'Sign in' }).waitFor();
      assert.equal((await view.context.cookies()).filter((each) => each.name === 'rehead_session' && each.value).length, 0);
      assert.deepEqual(view.wrong, []);
    } finally {
      await view.close();
      await service.close();
    }
  });

  test('a key that expires signs out, and its session with it', async () => {
    const service = await Service.start();
    const view = await open(service.url, { expected: ['401'] });
    const { page } = view;
    try {
      const make = (...more) => JSON.parse(execFileSync(executable, ['keys', 'create', '--tenant', 'default', '--role', 'admin', '--data-dir', join(service.folder, 'data'), '--json', ...more], { encoding: 'utf8' }));
      const lasting = make();
      const brief = make('--expires', '20s');
      await page.goto(`${service.url}ui/#/workers`);
      for (const [key, heading] of [[brief, 'Sign in'], [lasting, 'Workers']]) {
        await page.getByLabel('API key').fill(key.value);
        await page.getByRole('button', { name: 'Sign in' }).click();
        await page.getByRole('heading', { name: 'Workers', level: 1 }).waitFor();
        // The page asks for workers by itself, again and again.
        await page.getByRole('heading', { name: heading, level: 1 }).waitFor({ timeout: 60_000 });
      }
      assert.match(page.url(), /#\/workers$/);
      assert.deepEqual(view.wrong, []);
    } finally {
      await view.close();
      await service.close();
    }
  });

  test('a page of another site can do nothing with a session', async () => {
    const service = await Service.start();
    const key = JSON.parse(execFileSync(executable, ['keys', 'create', '--tenant', 'default', '--role', 'admin', '--data-dir', join(service.folder, 'data'), '--json'], { encoding: 'utf8' }));
    // The same host with another port is the same site: cookies go along.
    const evil = createServer((_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>evil</title><iframe id="frame"></iframe>'));
    await new Promise((done) => evil.listen(0, '127.0.0.1', done));
    const view = await open(service.url, { expected: ['40', 'frame', 'CORS', 'Cross-Origin', 'ERR_'] });
    const { page } = view;
    try {
      await page.goto(`${service.url}ui/#/login`);
      await page.getByLabel('API key').fill(key.value);
      await page.getByRole('button', { name: 'Sign in' }).click();
      await page.getByRole('heading', { name: 'Jobs', level: 1 }).waitFor();
      const headers = await page.evaluate(async (url) => (await fetch(url, { method: 'POST', body: '{}', headers: { 'content-type': 'application/json' } })).status, `${service.url}v1/fine_tuning/jobs/plan`);
      assert.equal(headers, 403, 'without x-rehead-ui');

      await view.context.unrouteAll();
      const reached = [];
      page.on('response', (response) => response.url().includes('/v1/') && reached.push(response.status()));
      await page.goto(`http://127.0.0.1:${evil.address().port}/`);
      await page.evaluate(async (url) => {
        const body = JSON.stringify({ url: 'http://127.0.0.1/x' });
        await fetch(`${url}v1/webhooks`, { method: 'POST', mode: 'no-cors', credentials: 'include', body }).catch(() => {});
        await fetch(`${url}v1/files`, { credentials: 'include' }).catch(() => {});
        const image = new Image();
        image.src = `${url}v1/workers`;
        await new Promise((done) => (image.onerror = image.onload = done));
        document.getElementById('frame').src = `${url}ui/`;
        await new Promise((done) => setTimeout(done, 800));
      }, service.url);
      assert.ok(reached.every((status) => status === 403 || status === 401), reached.join());
      // The browser shows its own page of errors in the place of a page that refuses to be framed.
      assert.deepEqual(page.frames().slice(1).map((frame) => frame.url()), ['chrome-error://chromewebdata/']);
      const socket = await page.evaluate((url) => new Promise((done) => {
        const opened = new WebSocket(`${url.replace('http', 'ws')}v1/fine_tuning/jobs`);
        opened.onopen = () => done('open');
        opened.onerror = () => done('refused');
      }), service.url);
      assert.equal(socket, 'refused');
      const cookies = await view.context.cookies(service.url);
      const cookie = cookies.map(({ name, value }) => `${name}=${value}`).join('; ');
      assert.match(cookie, /rehead_session=/);
      for (const origin of [`http://127.0.0.1:${evil.address().port}`, 'null', 'http://evil.example']) {
        const status = await upgraded(service.direct, { cookie, origin });
        assert.ok(status === 401 || status === 403, `${origin}: ${status}`);
      }
      await page.evaluate((url) => {
        const form = document.createElement('form');
        form.method = 'post';
        form.enctype = 'multipart/form-data';
        form.action = `${url}v1/files`;
        document.body.append(form);
        form.submit();
      }, service.url);
      await until('the form is refused', () => /other_site|invalid_api_key/.test(page.url() + '') || page.evaluate(() => /other_site|invalid_api_key/.test(document.body.innerText)).catch(() => false), 10);
    } finally {
      await view.close();
      evil.close();
      await service.close();
    }
  });
}

/** The status of a request to become a websocket. */
function upgraded(base, headers) {
  const asked = request(new URL('v1/files', base), {
    headers: { ...headers, connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==', 'sec-websocket-version': '13', 'sec-fetch-site': 'same-site' },
  });
  return new Promise((done, fail) => {
    asked.on('response', (response) => done(response.resume().statusCode));
    asked.on('upgrade', (response, socket) => done(socket.destroy() && response.statusCode));
    asked.on('error', fail);
    asked.end();
  });
}

async function upload(service, headers) {
  const form = new FormData();
  form.set('purpose', 'weights');
  form.set('file', new Blob(['x']), 'theirs.bin');
  const response = await fetch(`${service.direct}v1/files`, { method: 'POST', body: form, headers });
  return (await response.json()).id;
}
