// D13: hostile names are text wherever they are shown, and safe in CSV.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { imageFolder, scratch, quiet, within } from './world.mjs';

const CLASSES = ['<img src=x onerror=alert(1)>', '"><script>alert(2)<', 'ﷺ'.repeat(80), '=HYPERLINK("http:x")', 'plain'];

/** A tar of a few images below hostile folder names. */
function hostileData() {
  const folder = join(scratch, 'hostile');
  mkdirSync(folder, { recursive: true });
  const images = readdirSync(join(imageFolder(), 'food')).slice(0, 6 * CLASSES.length);
  CLASSES.forEach((name, i) => {
    const target = join(folder, name);
    mkdirSync(target, { recursive: true });
    images.slice(6 * i, 6 * i + 6).forEach((image, n) => cpSync(join(imageFolder(), 'food', image), join(target, n === 0 ? '<b>bold<.png' : image)));
  });
  execFileSync('tar', ['--create', '--format=pax', '--file', join(scratch, 'hostile.tar'), '--directory', folder, '.']);
  return join(scratch, 'hostile.tar');
}

export function register(world) {
  test('hostile names are text on every page', async () => {
    const { service } = world;
    const file = await service.upload(hostileData(), 'fine-tune', '"><img src=x onerror=alert(3)>.tar');
    assert.equal(file.status, 'processed', JSON.stringify(file));
    const job = await service.job('efficientnet_lite0', file.id, 'hostile', { freeze: 'all', hyperparameters: { n_epochs: 2 } }, { metadata: { '<u>': '</script><script>alert(4)</script>', b: '\u202eevil' } });
    const ended = await service.ended(job.id);
    assert.equal(ended.status, 'succeeded', JSON.stringify(ended.error));
    await within(service.url, {}, async ({ page, go }) => {
      const model = encodeURIComponent(ended.fine_tuned_model);
      const routes = ['jobs?columns=name,metadata', `jobs/${job.id}`, `jobs/${job.id}/curves`, `jobs/${job.id}/classes`, `jobs/${job.id}/samples`, `jobs/${job.id}/samples?at=0`,
        `jobs/${job.id}/samples?label=${encodeURIComponent(CLASSES[0])}`, `jobs/${job.id}/events`, `jobs/${job.id}/settings`, 'files', `files/${file.id}`, `new?file=${file.id}&model=efficientnet_lite0`, `models/${model}`, `compare?jobs=${job.id},${world.jobs[0].id}`];
      for (const route of routes) {
        await page.goto('about:blank');
        await go(route);
        await quiet(page);
        const made = await page.evaluate(() => document.querySelectorAll('main script, main u > *, img[onerror], main b > b, [onerror]').length);
        assert.equal(made, 0, route);
      }
      await page.goto('about:blank');
      await go(`jobs/${job.id}/classes`);
      await page.getByRole('link', { name: CLASSES[0], exact: true }).first().waitFor();
      const [saved] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'CSV' }).click()]);
      const text = readFileSync(await saved.path(), 'utf8');
      assert.ok(text.includes('"\'=HYPERLINK'), text);
      assert.ok(!/^[=+\-@]/m.test(text), text);
    });
  });
}
