// D6, D9, D10: what is shown stays current, and what a user has set stays set.
import assert from 'node:assert/strict';
import test from 'node:test';
import { proxy } from '../serve.mjs';
import { open, quiet, until, within } from './world.mjs';

/** A training of a few tens of seconds with many evaluations. */
async function longJob(world, suffix, epochs = 400) {
  return world.service.job('efficientnet_lite0', world.file, suffix, {
    freeze: 'all',
    hyperparameters: { n_epochs: epochs },
    early_stopping: { patience: 1000 },
    evaluate_every: { steps: 34 },
  });
}

export function register(world) {
  test('zoom stays while the curves grow, and x may be epochs and minutes', async () => {
    const { service } = world;
    const job = await longJob(world, 'live');
    await within(service.url, {}, async ({ page, go }) => {
      await go(`jobs/${job.id}/curves`);
      const chart = page.getByRole('figure', { name: 'Loss' });
      const label = () => chart.getByRole('group').last().getAttribute('aria-label');
      await until('there are steps to zoom into', async () => {
        const now = await service.call(`fine_tuning/jobs/${job.id}`);
        return now.progress.step > 200;
      }, 90);
      await page.waitForTimeout(2500);
      const over = chart.locator('.u-over');
      const box = await over.boundingBox();
      await page.mouse.move(box.x + box.width * 0.3, box.y + 40);
      await page.mouse.down();
      await page.mouse.move(box.x + box.width * 0.6, box.y + 60, { steps: 5 });
      await page.mouse.up();
      await chart.getByRole('button', { name: 'Reset zoom' }).waitFor();
      const ticks = () => page.evaluate(() => globalThis.scrollY);
      const before = { evaluations: (await service.call(`fine_tuning/jobs/${job.id}/metrics`)).evaluations.length, label: await label(), scroll: await ticks() };
      await until('twenty more evaluations', async () => (await service.call(`fine_tuning/jobs/${job.id}/metrics`)).evaluations.length >= before.evaluations + 20, 90);
      await until('the chart has grown', async () => (await label()) !== before.label, 10);
      assert.ok(await chart.getByRole('button', { name: 'Reset zoom' }).isVisible(), 'the zoom is kept');
      assert.equal(await ticks(), before.scroll);
      await chart.getByRole('button', { name: 'Reset zoom' }).click();
      for (const axis of ['epoch', 'minutes']) {
        await page.getByRole('button', { name: axis, exact: true }).click();
        await until(`the axis is in ${axis}`, async () => (await label()).includes(`over ${axis}`), 5);
        assert.ok(page.url().includes(`x=${axis}`));
      }
      await page.getByRole('button', { name: 'Stop early' }).click();
      await page.getByRole('dialog').getByRole('button', { name: 'Stop early' }).click();
      await page.locator('.status').getByText('Succeeded').first().waitFor({ timeout: 60_000 });
    });
  });

  test('a stream that is cut goes on, with every event once', async () => {
    const { service } = world;
    const dist = process.env.UI_DIST;
    const front = await proxy(service.direct, { dist: dist ? (await import('node:path')).resolve(dist) : '' });
    const job = await longJob(world, 'cut', 150);
    await within(front.url, { expected: ['ERR_', '502'] }, async ({ page, go }) => {
      await go(`jobs/${job.id}/events`);
      for (let i = 0; i < 4; i++) {
        await page.waitForTimeout(1500);
        front.cut();
      }
      await service.ended(job.id);
      await page.getByText('the job has succeeded').waitFor({ timeout: 30_000 });
      const all = [];
      for (let after = ''; ; ) {
        const list = await service.call(`fine_tuning/jobs/${job.id}/events?order=asc&limit=100${after && `&after=${after}`}`);
        all.push(...list.data.map((event) => event.message));
        if (!list.has_more) break;
        after = list.last_id;
      }
      const shown = await page.locator('[role=log] td.message').allInnerTexts();
      assert.deepEqual(shown, all.slice(-shown.length));
      assert.ok(shown.length === all.length || shown.length === 400, `${shown.length} of ${all.length}`);
    });
    await front.close();
  });

  test('seven tabs on a running job all show its end', async () => {
    const { service } = world;
    const job = await longJob(world, 'tabs', 120);
    const view = await open(service.url);
    const tabs = [view.page];
    for (let i = 1; i < 7; i++) tabs.push(await view.context.newPage());
    for (const tab of tabs) await tab.goto(`${service.url}ui/#/jobs/${job.id}`);
    await service.ended(job.id);
    for (const tab of tabs) {
      await tab.bringToFront();
      await tab.locator('.status').getByText('Succeeded').first().waitFor({ timeout: 30_000 });
    }
    assert.deepEqual(view.wrong, []);
    await view.close();
  });

  test('the list of jobs follows new jobs and their states by itself', async () => {
    const { service } = world;
    await within(service.url, {}, async ({ page, go }) => {
      await go('jobs');
      await page.locator('tbody tr').first().waitFor();
      const job = await service.job('efficientnet_lite0', world.file, 'appears-by-itself', { freeze: 'all', hyperparameters: { n_epochs: 5 } });
      const row = page.locator('tr', { hasText: 'appears-by-itself' });
      await row.waitFor({ timeout: 15_000 });
      await row.getByText('Succeeded').waitFor({ timeout: 90_000 });
      await service.ended(job.id);
      await quiet(page);
    });
  });
}
