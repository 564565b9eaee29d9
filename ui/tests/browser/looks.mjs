// D19: every page in both schemes and two widths: no finding of axe, a screenshot, nothing that
// scrolls sideways; every chart has a table equal to its data.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import test from 'node:test';
import { OUT, open, quiet, within } from './world.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const TAGS = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

async function findings(page) {
  if (!(await page.evaluate(() => 'axe' in globalThis))) {
    const client = await page.context().newCDPSession(page);
    await client.send('Runtime.evaluate', { expression: AXE });
    await client.detach();
  }
  const found = await page.evaluate((values) => globalThis.axe.run(document, { runOnly: { type: 'tag', values } }), TAGS);
  return found.violations.flatMap((rule) => rule.nodes.slice(0, 3).map((node) => `${rule.id}: ${node.target.join(' ')}`));
}

/** Pages by name, each with what is done there before it is looked at. */
export async function pagesOf(world) {
  const { jobs } = world;
  const [first, second] = jobs;
  const model = encodeURIComponent(first.fine_tuned_model);
  const press = (name) => (page) => page.getByRole('button', { name }).first().click();
  return {
    jobs: ['jobs'],
    'jobs-none': ['jobs?q=nothing-has-this-name'],
    new: ['new'],
    'new-plan': [`new?file=${first.training_file}&model=efficientnet_lite0`, async (page) => {
      await page.getByText('choices made for you').waitFor({ timeout: 30_000 });
      await page.getByText('More options').click();
    }],
    overview: [`jobs/${first.id}`],
    curves: [`jobs/${second.id}/curves`],
    'curves-table': [`jobs/${second.id}/curves`, press('Table')],
    classes: [`jobs/${first.id}/classes`],
    samples: [`jobs/${first.id}/samples`],
    image: [`jobs/${first.id}/samples?at=1`],
    events: [`jobs/${first.id}/events`],
    attempts: [`jobs/${first.id}/attempts`],
    settings: [`jobs/${first.id}/settings`],
    confirm: [`jobs/${first.id}`, press('Delete')],
    compare: [`compare?jobs=${jobs.map((job) => job.id).join(',')}`],
    models: ['models'],
    model: [`models/${model}`],
    base: ['base'],
    'base-add': ['base', press('Add base model')],
    'base-model': ['base/efficientnet_lite0'],
    files: ['files'],
    file: [`files/${first.training_file}`],
    workers: ['workers'],
    login: ['login'],
    help: ['jobs', (page) => page.getByRole('button', { name: 'Help and keys' }).click()],
    missing: ['jobs/ftjob-00000000000000000000000000000000'],
  };
}

export function register(world) {
  for (const width of [1280, 320]) {
    test(`every page is accessible, light and dark, ${width} px`, async () => {
      const view = await open(world.service.url, { width, height: width === 320 ? 640 : 860, expected: ['ftjob-00000000'] });
      const { page } = view;
      const problems = [];
      for (const [name, [route, act]] of Object.entries(await pagesOf(world))) {
        await page.emulateMedia({ colorScheme: 'light' });
        await page.goto('about:blank');
        await view.go(route);
        await quiet(page);
        if (act) {
          await act(page);
          await quiet(page);
        }
        for (const scheme of ['light', 'dark']) {
          await page.emulateMedia({ colorScheme: scheme });
          await page.waitForTimeout(150);
          await page.screenshot({ path: join(OUT, `${name}-${scheme}-${width}.png`), fullPage: width === 320 });
          for (const each of await findings(page)) problems.push(`${name}, ${scheme}: ${each}`);
        }
        const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        if (wide > room) problems.push(`${name}: is ${wide} px wide in a window of ${room}`);
      }
      await view.close();
      assert.deepEqual(problems, []);
      assert.deepEqual(view.wrong, []);
    });
  }

  // `UI_README=docs/dashboard.png` makes the image of the README.
  if (process.env.UI_README) {
    test('the image of the README', async () => {
      await within(world.service.url, { width: 1120, height: 660 }, async ({ page, go }) => {
        await go(`jobs/${world.jobs[0].id}/classes`);
        await quiet(page);
        await page.screenshot({ path: process.env.UI_README });
      });
    });
  }

  test('forced colors and a chart as a table', async () => {
    await within(world.service.url, { forcedColors: 'active' }, async ({ page, go }) => {
      const { id } = world.jobs[1];
      await go(`jobs/${id}/curves`);
      await quiet(page);
      await page.screenshot({ path: join(OUT, 'curves-forced-colors.png') });
      const metrics = await world.service.call(`fine_tuning/jobs/${id}/metrics`);
      const chart = page.getByRole('figure', { name: 'Validation metrics' });
      await chart.getByRole('button', { name: 'Table' }).click();
      const rows = await chart.locator('tbody tr').evaluateAll((all) => all.map((row) => [...row.cells].map((cell) => cell.innerText)));
      assert.equal(rows.length, metrics.evaluations.length);
      metrics.evaluations.forEach((evaluation, i) => {
        assert.equal(Number(rows[i][0].replaceAll(',', '')), evaluation.step);
        assert.equal(rows[i][1].replaceAll('\u00a0', ' '), `${(100 * evaluation.valid_accuracy).toFixed(1)} %`);
      });
      assert.match(await chart.locator('.plot').getAttribute('aria-label'), /Validation metrics over step. accuracy: from .* to .*; least .*, greatest/);
    });
  });
}
