// D23: suspicious images are reviewed by keys, and the corrections become a new data set that has
// exactly those changes.
import assert from 'node:assert/strict';
import test from 'node:test';
import { until, within } from './world.mjs';

export function register(world) {
  test('labels are corrected by keys, and the new data set has exactly those changes', async () => {
    const { service } = world;
    const [{ id, training_file: file }] = world.jobs;
    const before = (await service.call(`files/${file}`)).dataset;
    await within(service.url, {}, async ({ page, go }) => {
      // As a page has it whose address is neither https nor this machine.
      await page.addInitScript(() => delete Object.getPrototypeOf(crypto).randomUUID);
      await go(`jobs/${id}/samples?flag=likely_wrong_label`);
      assert.equal(await page.evaluate(() => typeof crypto.randomUUID), 'undefined');
      await page.locator('.gallery .tile').first().click();
      const dialog = page.getByRole('dialog');
      const names = await dialog.locator('.classes button bdi').allInnerTexts();
      const label = async () => (await dialog.locator('.bars li').nth(1).locator('bdi').innerText()).trim();
      const changes = {};
      const change = (name, by) => (changes[name] = (changes[name] ?? 0) + by);
      for (let i = 0; i < 12; i++) {
        await until(`image ${i + 1} is open`, async () => (await dialog.getByText(`${i + 1} / `).count()) === 1, 10);
        const from = await label();
        if (i % 3 === 2) {
          await page.keyboard.press('x');
          change(from, -1);
        } else {
          const to = (names.indexOf(from) + 1) % names.length;
          await page.keyboard.press(String(to + 1));
          change(from, -1);
          change(names[to], 1);
        }
        await page.keyboard.press('ArrowRight');
      }
      await page.keyboard.press('x');
      await page.getByText('Excluded from the corrected data set').waitFor();
      await page.keyboard.press('u');
      await page.keyboard.press('Escape');
      await page.getByText('12 corrections').waitFor();
      // Leaving and coming back keeps them.
      await page.goto('about:blank');
      await go(`jobs/${id}/samples?flag=likely_wrong_label`);
      await page.getByText('12 corrections').waitFor();
      await page.getByRole('button', { name: 'Make a corrected data set' }).click();
      const link = page.getByRole('link', { name: /-corrected\.tar/ });
      await link.waitFor({ timeout: 20_000 });
      const made = (await link.getAttribute('href')).split('/').pop();
      const after = await service.call(`files/${made}?wait=60&until=processed`);
      assert.equal(after.status, 'processed', JSON.stringify(after));
      const count = (dataset, name) => {
        const found = dataset.classes.find((each) => each.name === name);
        return found.train + found.validation + found.test;
      };
      for (const name of names) assert.equal(count(after.dataset, name), count(before, name) + (changes[name] ?? 0), name);
      assert.equal(after.dataset.samples, before.samples - 4);
      await page.getByRole('link', { name: 'Train again on it' }).click();
      await page.waitForURL(new RegExp(`new\\?.*file=${made}`));
      await page.getByText('choices made for you').waitFor({ timeout: 30_000 });
    });
  });

  test('a problem of a data set shows its images', async () => {
    await within(world.service.url, {}, async ({ page, go }) => {
      await go(`files/${world.file}`);
      await page.getByText('conflicting duplicates').click();
      const images = page.locator('.problem[open] .thumb img');
      await until('thumbnails are there', async () => (await images.count()) > 1 && images.evaluateAll((all) => all.some((image) => image.naturalWidth > 0)), 20);
    });
  });

  test('compare states what differs, and survives a deleted job', async () => {
    const ids = world.jobs.map((job) => job.id);
    await within(world.service.url, { expected: ['ftjob-0000'] }, async ({ page, go }) => {
      await go('jobs');
      for (const name of ['clipart', 'last-stage']) await page.getByLabel(`Select ${name}`, { exact: true }).first().check();
      await page.getByRole('link', { name: 'Compare' }).click();
      await page.getByText('All on the same data').waitFor();
      const first = page.getByRole('region', { name: 'Option' }).locator('tbody tr').first();
      const cells = await first.locator('td').allInnerTexts();
      assert.notEqual(cells[0], cells[1]);
      await go(`compare?jobs=${ids.join(',')},ftjob-00000000000000000000000000000000`);
      await page.getByText('it may have been deleted').waitFor();
      await page.getByRole('button', { name: 'Leave it out' }).click();
      await until('it is out of the address', () => !page.url().includes('ftjob-0000'), 5);
    });
  });
}
