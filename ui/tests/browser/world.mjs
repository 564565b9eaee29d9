// What the browser tests share: a real service with its own Postgres and trainer, a real Chromium,
// and pages that fail a test on any console error, policy report or request to another host.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { chromium } from 'playwright-core';
import { proxy } from '../serve.mjs';

const ROOT = resolve(import.meta.dirname, '../../..');
export const OUT = process.env.UI_TEST_OUTPUT ?? join(ROOT, 'ui/test-output');
export const DEMO = join(process.env.REHEAD_CACHE ?? join(homedir(), '.cache/rehead'), 'demo');
const FLAGS = '--no-sandbox --disable-gpu --disable-quic --disable-background-networking --disable-component-update --disable-sync --no-first-run --js-flags=--expose-gc --enable-precise-memory-info';

export const executable = process.env.REHEAD ?? join(ROOT, 'target/release/rehead');

/** A folder for the files of one run. */
export const scratch = mkdtempSync(join(tmpdir(), 'rehead-ui-'));

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Waits until `find` gives something, or fails with what was waited for. */
export async function until(what, find, seconds = 60) {
  const end = Date.now() + 1000 * seconds;
  for (;;) {
    const found = await find();
    if (found) return found;
    if (Date.now() > end) assert.fail(`after ${seconds} s: ${what}`);
    await sleep(150);
  }
}

/** Services that run. */
const running = new Set();

/** A service of its own; `UI_DIST` serves the page from a folder in place of the executable's. */
export class Service {
  static async start(args = []) {
    const service = new Service();
    service.folder = mkdtempSync(join(scratch, 'service-'));
    service.args = args;
    await service.run();
    return service;
  }

  async run() {
    assert.ok(existsSync(executable), `${executable} is missing: make build`);
    const data = join(this.folder, 'data');
    rmSync(join(data, 'url'), { force: true });
    const listen = this.direct ? new URL(this.direct).host : '127.0.0.1:0';
    this.log = '';
    this.process = spawn(executable, ['up', '--data-dir', data, '--listen', listen, ...this.args], { stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(this);
    for (const stream of [this.process.stdout, this.process.stderr]) stream.on('data', (text) => (this.log += text));
    await until('the service is up', () => {
      assert.equal(this.process.exitCode, null, this.log);
      return existsSync(join(data, 'url')) && readFileSync(join(data, 'url'), 'utf8').trim();
    });
    this.direct = readFileSync(join(data, 'url'), 'utf8').trim().replace(/\/?$/, '/');
    const dist = process.env.UI_DIST;
    if (!this.front) this.front = dist ? await proxy(this.direct, { dist: resolve(dist) }) : null;
    this.url = this.front?.url ?? this.direct;
  }

  async call(path, options = {}) {
    const response = await fetch(`${this.direct}v1/${path}`, options);
    const body = await response.json();
    assert.ok(response.ok, JSON.stringify(body));
    return body;
  }

  post(path, body) {
    return this.call(path, { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } });
  }

  async upload(path, purpose, name = path.split('/').pop()) {
    const form = new FormData();
    form.set('purpose', purpose);
    form.set('file', new Blob([readFileSync(path)]), name);
    const file = await this.call('files', { method: 'POST', body: form });
    return purpose === 'weights' ? file : this.call(`files/${file.id}?wait=60&until=processed`);
  }

  async baseModel(id = 'efficientnet_lite0') {
    const file = await this.upload(weights(), 'weights');
    return this.post('base_models', { id, architecture: 'tf_efficientnet_lite0', weights: { file: file.id }, license: 'Apache-2.0', source_task: { name: 'image classification', classes: 1000, dataset: 'ImageNet-1k' } });
  }

  job(model, file, suffix, transfer, more = {}) {
    return this.post('fine_tuning/jobs', { model, training_file: file, suffix, seed: 7, ...more, method: { type: 'transfer', transfer } });
  }

  ended(id) {
    return until(`job ${id} ends`, async () => {
      const job = await this.call(`fine_tuning/jobs/${id}?wait=30&until=terminal`);
      return job.is_terminal && job;
    }, 240);
  }

  async stop() {
    running.delete(this);
    if (this.process.exitCode !== null) return;
    const ended = new Promise((done) => this.process.once('exit', done));
    this.process.kill('SIGTERM');
    await ended;
  }

  async close() {
    await this.front?.close();
    await this.stop();
  }
}

function find(folder, ending) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    const found = entry.isDirectory() ? find(path, ending) : entry.name.endsWith(ending) && path;
    if (found) return found;
  }
  return null;
}

export function weights() {
  return find(join(DEMO, 'lite0'), '.pth');
}

/** The demo's images as a folder, with a folder for each class. */
export function imageFolder() {
  const folder = join(scratch, 'clipart');
  if (!existsSync(folder)) {
    mkdirSync(folder);
    execFileSync('python3', ['-m', 'zipfile', '--extract', join(DEMO, 'clipart.zip'), folder]);
  }
  return folder;
}

let browser;
export async function launch() {
  browser ??= await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS.split(' ') });
  return browser;
}

export async function quit() {
  await browser?.close();
  // Of tests that failed before they could end theirs.
  await Promise.all([...running].map((service) => service.close()));
  rmSync(scratch, { recursive: true, force: true });
}

/** A page that remembers what went wrong in it. `expected` are answers that a test provokes. */
export async function open(base, { scheme = 'light', width = 1280, height = 860, expected = [], ...context } = {}) {
  const within = await (await launch()).newContext({ viewport: { width, height }, colorScheme: scheme, reducedMotion: 'reduce', ...context });
  await within.grantPermissions(['clipboard-read', 'clipboard-write']).catch(() => {});
  const page = await within.newPage();
  const wrong = [];
  const { origin } = new URL(base);
  const watch = (each) => {
    each.on('pageerror', (error) => wrong.push(`error: ${error.stack ?? error}`));
    each.on('console', (message) => {
      const text = `${message.text()} ${message.location().url}`;
      if (['error', 'warning'].includes(message.type()) && !expected.some((part) => text.includes(part))) wrong.push(`console: ${text}`);
    });
    each.on('dialog', (dialog) => {
      wrong.push(`dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
  };
  watch(page);
  let requests = 0;
  // Nothing but the service is reachable.
  await within.route((url) => url.origin !== origin && /^(https?|wss?):$/.test(url.protocol), (route) => {
    wrong.push(`foreign request: ${route.request().url()}`);
    return route.abort();
  });
  page.on('request', () => requests++);
  return {
    page,
    context: within,
    base,
    wrong,
    get requests() {
      return requests;
    },
    go: async (route) => {
      await page.goto(`${base}ui/#/${route}`);
      await page.locator('main h1').first().waitFor();
    },
    close: () => within.close(),
  };
}

/** Runs a test in a page of its own; it fails if the page had errors, and leaves a screenshot then. */
export async function within(base, options, run) {
  const view = await open(base, options);
  try {
    await run(view);
    assert.deepEqual(view.wrong, [], 'the page had errors');
  } catch (error) {
    await view.page.screenshot({ path: join(OUT, `failed-${Date.now()}.png`) }).catch(() => {});
    if (view.wrong.length) console.log(`# page: ${view.wrong.join('\n# ')}`);
    throw error;
  } finally {
    await view.close();
  }
}

/** Waits until no request is running and the page has drawn. */
export async function quiet(page) {
  // A page that waits for changes is never idle.
  await page.waitForLoadState('networkidle', { timeout: 1200 }).catch(() => {});
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
}

/** Drops a folder of this machine on an element, as a user does. */
export async function drop(page, selector, path) {
  const box = await page.locator(selector).first().boundingBox();
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  const client = await page.context().newCDPSession(page);
  const data = { items: [], files: [path], dragOperationsMask: 1 };
  for (const type of ['dragEnter', 'dragOver', 'drop']) await client.send('Input.dispatchDragEvent', { type, x, y, data });
  await client.detach();
}
