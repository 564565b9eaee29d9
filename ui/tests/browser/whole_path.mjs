// D2, D4, D5: from an empty service to a predicted image, by mouse alone, below a path prefix, with
// nothing but the service to reach.
import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import test from 'node:test';
import { proxy } from '../serve.mjs';
import { DEMO, drop, imageFolder, until, within } from './world.mjs';

export function register(world) {
  test('by mouse alone from a folder to a predicted image, below a path prefix', async () => {
    const { service } = world;
    const dist = process.env.UI_DIST ? resolve(process.env.UI_DIST) : '';
    const front = await proxy(service.direct, { prefix: '/x/rehead', dist });
    await service.baseModel();
    try {
      await within(front.url, {}, ({ page }) => walk(page, front.url, dist ? 'ui/' : ''));
    } finally {
      await front.close();
    }
  });

  test('the pages of the API work below two levels of a path prefix', async () => {
    const front = await proxy(world.service.direct, { prefix: '/a/b' });
    // Those pages are Swagger's own, and print what they please.
    await within(front.url, { expected: [''] }, async ({ page }) => {
      await page.goto(`${front.url}docs/`);
      await page.getByText('Create a fine-tuning job').waitFor({ timeout: 30_000 });
    });
    await front.close();
  });
}

async function walk(page, base, start) {
  let clicks = 0;
  const click = async (locator) => {
    clicks++;
    await locator.click();
  };
  const started = Date.now();
  await page.goto(base + start);
  await page.getByRole('heading', { name: 'No jobs yet' }).waitFor();
  assert.ok(page.url().startsWith(`${base}ui/`), page.url());
  await click(page.getByRole('banner').getByRole('link', { name: 'New job' }));

  await page.getByText('Drop a folder of images').waitFor();
  await drop(page, '.drop', imageFolder());
  await page.getByText('1,365 images').first().waitFor({ timeout: 60_000 });
  assert.ok(await page.getByRole('radio', { name: /efficientnet_lite0/ }).isChecked(), 'the only base model is chosen');
  await page.getByText('choices made for you').waitFor({ timeout: 30_000 });
  await click(page.getByRole('radio', { name: /Quick head/ }));
  await until('the plan trains the head alone', async () => /7\.69\sk of 3\.38\sM/.test(await page.locator('section[aria-labelledby=plan]').innerText()));
  await click(page.getByRole('button', { name: 'Start training' }));

  await page.waitForURL(/#\/jobs\/ftjob-/);
  await page.locator('.status').getByText('Succeeded').first().waitFor({ timeout: 180_000 });
  await page.getByText('95 % interval').waitFor();
  await click(page.getByRole('link', { name: 'Classes', exact: true }));
  const cell = page.getByRole('link', { name: /^\d+ of people predicted as animals$/ });
  const wanted = Number(/^\d+/.exec(await cell.getAttribute('aria-label'))[0]);
  await click(cell);
  await page.locator('.gallery li').first().waitFor();
  await until('the gallery shows the images of the cell', async () => (await page.locator('.gallery li').count()) === wanted, 20);
  await until('every thumbnail is an image', () =>
    page.locator('.gallery img').evaluateAll((all, n) => all.length === n && all.every((image) => image.complete && image.naturalWidth > 0), wanted), 20);

  await click(page.getByRole('link', { name: 'Try the model' }));
  await page.locator('input[type=file]').setInputFiles(join(DEMO, 'unseen/food.png'));
  await page.locator('.answer').waitFor({ timeout: 60_000 });
  const classes = ['animals', 'buildings', 'food', 'people', 'plants', 'transportation'];
  assert.ok(classes.includes(await page.locator('.answer').innerText()));
  assert.equal(await page.getByRole('list', { name: 'Predictions' }).locator('ol li').count(), 5);
  const [saved] = await Promise.all([page.waitForEvent('download'), click(page.getByRole('button', { name: 'Download Model bundle' }))]);
  assert.ok(statSync(await saved.path()).size > 10_000_000);
  console.log(`# whole path: ${clicks} clicks besides the drop and the file, ${Math.round((Date.now() - started) / 1000)} s`);
}
