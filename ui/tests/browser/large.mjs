// D7, D8, D20, D24: many jobs, many points, many classes, and a page that stays open for long. The
// counts cannot be made in the time of a test: their answers are made up, all else is real.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import test from 'node:test';
import { proxy } from '../serve.mjs';
import { quiet, sleep, until, within } from './world.mjs';

const PAGE = 100;

function summary(i) {
  const hex = i.toString(16).padStart(32, '0');
  return { id: `ftjob-${hex}`, object: 'fine_tuning.job.summary', created_at: 1_790_000_000 - i, started_at: 1_790_000_000, finished_at: 1_790_000_100, status: 'succeeded', phase: 'exporting', fraction: 1, step: 10, model: 'base', fine_tuned_model: `ft:base:x:${i}`, suffix: `job-${i}`, training_file: `file-${hex}`, metric: { name: 'valid_accuracy', value: ((i * 7919) % 10_000) / 10_000 }, version: 1 };
}

/** Answers the list of `n` jobs as the service would, also sorted by metric. */
async function manyJobs(page, n) {
  const asked = [];
  await page.route('**/job_summaries?*', async (route) => {
    const { searchParams } = new URL(route.request().url());
    if (searchParams.has('changed_since')) {
      await sleep(5000);
      return route.fulfill({ json: { object: 'list', data: [], has_more: false, version: '1-0000000000000000' } }).catch(() => {});
    }
    asked.push(searchParams);
    let rows = Array.from({ length: n }, (_, i) => i);
    if (searchParams.get('q')) rows = rows.filter((i) => `job-${i}`.includes(searchParams.get('q')));
    if (searchParams.get('sort') === '-metric') rows.sort((a, b) => ((b * 7919) % 10_000) - ((a * 7919) % 10_000));
    const from = Number(searchParams.get('after') || 0);
    const data = rows.slice(from, from + PAGE).map(summary);
    return route.fulfill({ json: { object: 'list', data, has_more: from + PAGE < rows.length, first_id: '0', last_id: String(from + PAGE), count: rows.length, version: '1-0000000000000000' } });
  });
  return asked;
}

async function heap(page) {
  const client = await page.context().newCDPSession(page);
  for (let i = 0; i < 3; i++) await client.send('HeapProfiler.collectGarbage');
  const { usedSize } = await client.send('Runtime.getHeapUsage');
  await client.detach();
  return usedSize;
}

export function register(world) {
  test('the first page takes six requests at most', async () => {
    await within(world.service.url, {}, async (view) => {
      const { page } = view;
      await view.go('jobs');
      await page.getByRole('link', { name: 'clipart', exact: true }).first().waitFor();
      const requests = view.requests;
      const painted = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime);
      assert.ok(requests <= 6, `${requests} requests`);
      assert.ok(painted < 4000, `${painted} ms`);
      console.log(`# first page: ${requests} requests, first contentful paint after ${Math.round(painted)} ms`);
    });
  });

  test('10,000 jobs: one request for the first rows, few nodes, and the view is in the address', async () => {
    await within(world.service.url, {}, async ({ page, go, base, context }) => {
      const asked = await manyJobs(page, 10_000);
      const started = Date.now();
      await go('jobs');
      await page.getByRole('link', { name: 'job-0', exact: true }).waitFor();
      const first = Date.now() - started;
      assert.equal(asked.length, 1);
      assert.ok(first < 4000, `${first} ms`);
      assert.equal(await page.locator('table').getAttribute('aria-rowcount'), '10000');
      const box = page.getByRole('region', { name: 'Jobs' });
      await until('the end of the list', async () => {
        await box.evaluate((each) => (each.scrollTop = each.scrollHeight));
        return page.getByRole('link', { name: 'job-9999', exact: true }).isVisible();
      }, 60);
      assert.ok(asked.length <= 105, `${asked.length} requests`);
      const rows = await page.locator('tbody tr').count();
      assert.ok(rows <= 100, `${rows} rows`);
      await page.getByRole('button', { name: 'Best metric' }).click();
      await page.getByRole('searchbox').fill('99');
      await until('the view is in the address', async () => page.url().includes('sort=-metric') && page.url().includes('q=99'), 5);
      const shown = () => page.locator('tbody a').allInnerTexts();
      await until('the rows match', async () => (await shown()).length > 10 && (await shown()).every((name) => name.includes('99')), 10);
      const before = await shown();
      await page.reload();
      await until('a reload shows the same', async () => (await shown()).join() === before.join(), 10);
      const other = await context.newPage();
      await manyJobs(other, 10_000);
      await other.goto(page.url());
      await until('the address shows the same elsewhere', async () => (await other.locator('tbody a').allInnerTexts()).join() === before.join(), 10);
      await page.getByRole('link', { name: before[0], exact: true }).focus();
      await page.keyboard.press('j');
      await until('j goes to the next row', () => page.evaluate((name) => document.activeElement?.textContent === name, before[1]), 5);
      console.log(`# 10,000 jobs: first rows ${first} ms (${base ? 'loopback' : ''}), ${asked.length} requests to the end`);
    });
  });

  test('a million points: a spike is seen, zoom is quick, the export has every point', async () => {
    const { id } = world.jobs[1];
    await within(world.service.url, {}, async ({ page, go }) => {
      const n = 1_000_000;
      const step = Array.from({ length: n }, (_, i) => i + 1);
      const flat = new Array(n).fill(1);
      const loss = flat.slice();
      loss[654_321] = 7;
      const json = JSON.stringify({ object: 'fine_tuning.job.metrics', columns: { step, epoch: flat, train_loss: loss, learning_rate: flat, samples_per_second: flat }, evaluations: [], last_step: n, has_more: false });
      await page.route('**/metrics', (route) => route.fulfill({ body: json, contentType: 'application/json' }));
      await go(`jobs/${id}`);
      await quiet(page);
      const before = await heap(page);
      await page.getByRole('link', { name: 'Curves', exact: true }).click();
      const chart = page.getByRole('figure', { name: 'Loss' });
      const started = Date.now();
      await until('the spike is in the summary', async () => /greatest 7/.test((await chart.getByRole('group').last().getAttribute('aria-label')) ?? ''), 60);
      const drawn = Date.now() - started;
      await chart.locator('canvas').waitFor();
      const zoom = await page.evaluate(async () => {
        const button = document.querySelector('figure button[aria-label="Zoom in"]');
        const start = performance.now();
        button.click();
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        return performance.now() - start;
      });
      assert.ok(zoom < 1500, `${zoom} ms`);
      const [saved] = await Promise.all([page.waitForEvent('download', { timeout: 60_000 }), chart.getByRole('button', { name: 'CSV' }).click()]);
      const lines = readFileSync(await saved.path(), 'utf8').trimEnd().split('\r\n');
      assert.equal(lines.length, n + 1);
      assert.ok(lines.includes('654322,7,'));
      const grown = ((await heap(page)) - before) / 2 ** 20;
      assert.ok(grown < 200, `${grown} MiB`);
      console.log(`# a million points: shown after ${drawn} ms, zoom ${Math.round(zoom)} ms, heap + ${Math.round(grown)} MiB`);
    });
  });

  test('thirty visits of a page with charts leave nothing behind', async () => {
    const { id } = world.jobs[0];
    await within(world.service.url, {}, async ({ page, go }) => {
      await go('workers');
      const visit = async () => {
        await page.evaluate((route) => (location.hash = route), `#/jobs/${id}/curves`);
        await page.locator('figure canvas').first().waitFor();
        await page.evaluate(() => (location.hash = '#/workers'));
        await page.getByRole('heading', { name: 'Workers', level: 1 }).waitFor();
      };
      await visit();
      await visit();
      const before = await heap(page);
      for (let i = 0; i < 28; i++) await visit();
      const grown = ((await heap(page)) - before) / 2 ** 20;
      assert.ok(grown < 5, `${grown} MiB`);
      console.log(`# thirty visits: heap + ${grown.toFixed(1)} MiB`);
    });
  });

  test('two hours of events, one a second, keep the page small', async () => {
    const { id } = world.jobs[0];
    const [seconds, step] = [7200, 20];
    let stream = null;
    let streams = 0;
    const own = (path, response) => {
      if (!path.startsWith(`/v1/fine_tuning/jobs/${id}/events`)) return false;
      stream = response.writeHead(200, { 'content-type': 'text/event-stream' });
      stream.flushHeaders();
      streams++;
      return true;
    };
    const frame = (seq) => {
      const event = { id: `ftevent-${seq.toString(16).padStart(32, '0')}`, object: 'fine_tuning.job.event', created_at: 1_790_000_000 + seq, level: 'info', message: `event ${seq}`, type: 'message', data: {}, seq, kind: seq === seconds ? 'succeeded' : 'message' };
      return `id: ${event.id}\ndata: ${JSON.stringify(event)}\n\n`;
    };
    const front = await proxy(world.service.direct, { own, dist: process.env.UI_DIST ? resolve(process.env.UI_DIST) : '' });
    try {
      await within(front.url, {}, async ({ page, go }) => {
        await page.clock.install();
        await go('workers');
        await quiet(page);
        const before = await heap(page);
        await page.evaluate((route) => (location.hash = route), `#/jobs/${id}/events`);
        await until('the stream is open', () => stream, 10);
        for (let seq = 0; seq < seconds; seq += step) {
          for (let i = 1; i <= step; i++) stream.write(frame(seq + i));
          const last = page.getByText(`event ${seq + step}`, { exact: true });
          const end = Date.now() + 20_000;
          while (!(await last.count())) assert.ok(Date.now() < end, `event ${seq + step} is not shown`);
          await page.clock.runFor(1000 * step);
        }
        const nodes = await page.locator('[role=log] tr').count();
        assert.ok(nodes <= 600, `${nodes} rows`);
        const grown = ((await heap(page)) - before) / 2 ** 20;
        assert.ok(grown < 10, `${grown} MiB`);
        assert.equal(streams, 1, 'a stream that is heard stays open');
        console.log(`# two hours of events: heap + ${grown.toFixed(1)} MiB, ${nodes} rows`);
      });
    } finally {
      await front.close();
    }
  });

  test('a thousand classes, several labels, and numbers have views of their own', async () => {
    const { id } = world.jobs[0];
    const common = { split: 'test', samples: 5000, step: 10, epoch: 1 };
    const reports = {
      many: { ...common, task: 'single_label_classification', accuracy: 0.5, accuracy_interval: [0.4, 0.6], majority_baseline: 0.1, balanced_accuracy: 0.5, macro_f1: 0.5, log_loss: 1,
        classes: Array.from({ length: 1000 }, (_, i) => ({ name: `class-${i}`, precision: 0.5, recall: 0.5, f1: 0.5, support: 5 })),
        confusion: Array.from({ length: 1000 }, (_, i) => Array.from({ length: 1000 }, (_, j) => (i === j ? 4 : i + 1 === j ? 1 : 0))) },
      none: { ...common, task: 'single_label_classification', accuracy: 0.5, accuracy_interval: [0.4, 0.6], majority_baseline: 0.1, balanced_accuracy: 0.5, macro_f1: 0.5, log_loss: 1, classes: [{ name: 'a', support: 1 }], confusion: null },
      multi: { ...common, task: 'multi_label_classification', subset_accuracy: 0.5, micro_f1: 0.5, macro_f1: 0.5, mean_average_precision: 0.75, log_loss: 0.1, classes: [{ name: 'red', precision: 0.5, recall: 0.5, f1: 0.5, threshold: 0.31, average_precision: 0.7, support: 9 }] },
      numbers: { ...common, task: 'regression', mae: 1.5, mae_interval: [1.2, 1.8], rmse: 2, r2: 0.8, baseline: { mae: 3, rmse: 4 }, target: { count: 10, mean: 5, std: 2, min: 0, max: 10, quantiles: { p5: 1, p25: 3, p50: 5, p75: 7, p95: 9 } } },
    };
    await within(world.service.url, {}, async ({ page, go }) => {
      let report = reports.many;
      await page.route(`**/jobs/${id}/report`, (route) => route.fulfill({ json: report }));
      const see = async (name, tab) => {
        report = reports[name];
        await page.goto('about:blank');
        await go(`jobs/${id}/${tab}`);
        await quiet(page);
      };
      await see('many', 'classes');
      const canvas = page.getByRole('img', { name: 'Confusion matrix of 1000 classes' });
      await canvas.waitFor();
      assert.equal(await page.getByRole('table').last().locator('tbody tr').count(), 200);
      await page.getByPlaceholder('Search classes').fill('class-77');
      await page.getByRole('link', { name: 'class-776 as class-777' }).waitFor();
      const box = await canvas.boundingBox();
      await canvas.click({ position: { x: box.width / 2, y: box.height / 2 } });
      await page.waitForURL(/samples\?split=test&label=class-\d+&prediction=class-\d+/);
      await see('none', 'classes');
      await page.getByText('no confusion matrix is kept').waitFor();
      await see('multi', 'classes');
      await page.getByRole('columnheader', { name: 'Threshold' }).waitFor();
      assert.equal(await page.getByText('Confusion matrix').count(), 0);
      await see('multi', 'overview');
      await page.getByText('mean average precision').first().waitFor();
      await see('numbers', 'overview');
      await page.getByText('mean absolute error').first().waitFor();
      await see('numbers', 'classes');
      await page.getByRole('img', { name: /Predictions over true numbers/ }).waitFor();
    });
  });
}
