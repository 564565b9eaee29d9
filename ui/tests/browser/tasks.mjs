// D18, D24: real jobs with several labels, with numbers, and on other data; ten jobs side by side.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { imageFolder, OUT, quiet, scratch, within } from './world.mjs';

/** A tar of some images of two folders with a manifest, whose lines `describe` writes. */
function data(name, describe) {
  const folder = join(scratch, name);
  mkdirSync(folder, { recursive: true });
  const lines = ['food', 'people'].flatMap((kind, k) =>
    readdirSync(join(imageFolder(), kind)).slice(0, 60).map((image, i) => {
      const path = `${kind}-${i}.png`;
      copyFileSync(join(imageFolder(), kind, image), join(folder, path));
      return JSON.stringify({ path, split: ['train', 'train', 'train', 'validation', 'test'][i % 5], ...describe(kind, k, i) });
    }),
  );
  writeFileSync(join(folder, 'manifest.jsonl'), `${lines.join('\n')}\n`);
  execFileSync('tar', ['--create', '--file', `${folder}.tar`, '--directory', folder, '.']);
  return `${folder}.tar`;
}

const TABS = ['overview', 'curves', 'classes', 'samples', 'settings'];

export function register(world) {
  const trained = async (name, describe) => {
    const { service } = world;
    const file = await service.upload(data(name, describe), 'fine-tune');
    assert.equal(file.status, 'processed', JSON.stringify(file));
    const job = await service.job('efficientnet_lite0', file.id, name, { freeze: 'all', hyperparameters: { n_epochs: 3 } });
    const ended = await service.ended(job.id);
    assert.equal(ended.status, 'succeeded', JSON.stringify(ended.error));
    return { job: ended, report: await service.call(`fine_tuning/jobs/${job.id}/report`) };
  };
  const visit = async ({ page, go }, id, tabs = TABS) => {
    for (const tab of tabs) {
      await page.goto('about:blank');
      await go(`jobs/${id}/${tab}`);
      await quiet(page);
    }
  };

  test('a job with several labels shows thresholds, and no single confusion', async () => {
    const { job, report } = await trained('labels', (kind, _, i) => ({ labels: i % 2 ? [kind, 'odd'] : [kind] }));
    await within(world.service.url, {}, async (view) => {
      await visit(view, job.id);
      const { page, go } = view;
      await go(`jobs/${job.id}/classes`);
      await page.getByRole('columnheader', { name: 'Threshold' }).waitFor();
      assert.equal(await page.getByText('Confusion matrix').count(), 0);
      for (const { name } of report.classes) await page.getByRole('rowheader', { name }).or(page.getByRole('cell', { name, exact: true })).first().waitFor();
      await go(`jobs/${job.id}/samples?at=0`);
      await page.getByRole('dialog').waitFor();
    });
    world.other = job;
  });

  test('a job with numbers shows predictions over true values', async () => {
    const { job, report } = await trained('numbers', (_, k, i) => ({ value: 10 * k + i / 60 }));
    await within(world.service.url, {}, async (view) => {
      await visit(view, job.id);
      const { page, go } = view;
      await go(`jobs/${job.id}/classes`);
      await page.getByRole('img', { name: /Predictions over true numbers/ }).waitFor();
      await go(`jobs/${job.id}`);
      await page.getByText(`${report.samples} `).first().waitFor();
      await page.getByText('mean absolute error').first().waitFor();
      await go(`jobs/${job.id}/samples?at=0`);
      await page.getByRole('dialog').waitFor();
    });
  });

  test('ten jobs are compared, and other data is stated', async () => {
    const { service } = world;
    const made = [];
    for (let seed = 1; seed <= 7; seed++) made.push(await service.job('efficientnet_lite0', world.file, `seed-${seed}`, { freeze: 'all', hyperparameters: { n_epochs: 1 } }, { seed }));
    const jobs = [...world.jobs, ...(await Promise.all(made.map(({ id }) => service.ended(id))))];
    await within(service.url, {}, async ({ page, go }) => {
      await go(`compare?jobs=${jobs.map(({ id }) => id).join(',')}`);
      await page.getByText('All on the same data').waitFor();
      await page.goto('about:blank');
      await go(`compare?jobs=${[...jobs, world.other].map(({ id }) => id).join(',')}`);
      await page.getByText('not trained on the same data').waitFor();
      await page.getByText('10 jobs').waitFor();
      const options = page.getByRole('region', { name: 'Option' }).locator('tbody tr');
      const differ = await options.evaluateAll((rows) => rows.map((row) => new Set([...row.querySelectorAll('td')].map((cell) => cell.innerText)).size > 1));
      assert.ok(differ.length > 2 && differ.every(Boolean), 'only what differs is shown');
      assert.equal(await options.first().locator('td').count(), 10);
      await page.getByLabel('Also those that are equal').check();
      const all = await options.evaluateAll((rows) => rows.map((row) => new Set([...row.querySelectorAll('td')].map((cell) => cell.innerText)).size > 1));
      assert.equal(all.indexOf(false), differ.length, 'what differs comes first');
      assert.equal(all.lastIndexOf(true), differ.length - 1);
      const lines = await page.getByRole('figure', { name: 'Training loss' }).getByRole('button', { name: 'Table' });
      await lines.click();
      assert.equal(await page.getByRole('figure', { name: 'Training loss' }).locator('thead th').count(), 11);
      await page.screenshot({ path: join(OUT, 'compare-ten.png'), fullPage: true });
    });
  });
}
