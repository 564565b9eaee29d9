// D17: every refusal is beside its field, a late plan never replaces a newer one, a job is made once.
import assert from 'node:assert/strict';
import test from 'node:test';
import { until, within } from './world.mjs';

export function register(world) {
  test('what the service refuses is shown at its field', async () => {
    await within(world.service.url, { expected: ['/jobs/plan'] }, async ({ page, go }) => {
      await go(`new?file=${world.file}&model=efficientnet_lite0`);
      await page.getByText('choices made for you').waitFor({ timeout: 30_000 });
      await page.getByText('More options').click();
      const wrong = { Epochs: '-1', 'Batch size': 'many', 'Weight decay': '1e9', 'Label smoothing': '2', Seed: '-5', 'LoRA rank (none: no adapter)': '-3' };
      for (const [label, value] of Object.entries(wrong)) await page.getByLabel(label, { exact: true }).fill(value);
      await page.getByLabel('Your part of the model’s name').fill('no spaces allowed');
      for (const label of [...Object.keys(wrong), 'Your part of the model’s name']) {
        const field = page.locator('.field', { has: page.getByLabel(label, { exact: true }) });
        await until(`${label} has its error`, async () => (await field.locator('.error-text').count()) === 1, 10);
      }
      assert.ok(await page.getByRole('button', { name: 'Start training' }).isDisabled());
      for (const label of Object.keys(wrong)) await page.getByLabel(label, { exact: true }).fill('');
      await page.getByLabel('Your part of the model’s name').fill('twice');
      await until('nothing is wrong any more', async () => (await page.locator('.error-text').count()) === 0, 10);
    });
  });

  test('a plan that is answered late does not replace a newer one', async () => {
    await within(world.service.url, {}, async ({ page, go }) => {
      await go(`new?file=${world.file}&model=efficientnet_lite0`);
      await page.getByText('choices made for you').waitFor({ timeout: 30_000 });
      let first = true;
      await page.route('**/jobs/plan', async (route) => {
        const late = first;
        first = false;
        if (late) await new Promise((done) => setTimeout(done, 2500));
        await route.continue().catch(() => {});
      });
      await page.getByText('More options').click();
      await page.getByLabel('Epochs', { exact: true }).fill('3');
      await page.waitForTimeout(700);
      await page.getByLabel('Epochs', { exact: true }).fill('4');
      await page.getByText('4 at most').waitFor({ timeout: 15_000 });
      await page.waitForTimeout(3000);
      assert.ok(await page.getByText('4 at most').isVisible());
      await page.unrouteAll({ behavior: 'ignoreErrors' });
    });
  });

  test('a double click on Start makes one job', async () => {
    const { service } = world;
    await within(service.url, {}, async ({ page, go }) => {
      const before = (await service.call('fine_tuning/job_summaries?limit=100')).data.length;
      await go(`new?file=${world.file}&model=efficientnet_lite0&what=head`);
      await page.getByText('choices made for you').waitFor({ timeout: 30_000 });
      await page.getByLabel('Your part of the model’s name').fill('once');
      await page.waitForTimeout(800);
      const button = page.getByRole('button', { name: 'Start training' });
      await button.dblclick({ delay: 5 });
      await page.waitForURL(/#\/jobs\/ftjob-/);
      await page.waitForTimeout(500);
      const after = (await service.call('fine_tuning/job_summaries?limit=100')).data;
      assert.equal(after.length, before + 1);
      await service.ended(after[0].id);
    });
  });

  test('“again with changes” brings a job’s options back', async () => {
    const { service } = world;
    await within(service.url, {}, async ({ page, go }) => {
      const job = await service.job('efficientnet_lite0', world.file, 'again', { freeze: { all_but_last_stages: 1 }, hyperparameters: { n_epochs: 2, label_smoothing: 0.1 }, adapter: null, head: { layers: [{ dropout: 0.25 }] } }, { metadata: { team: 'a=b' } });
      await service.post(`fine_tuning/jobs/${job.id}/cancel`, {});
      await go(`jobs/${job.id}`);
      await page.getByRole('link', { name: 'Again with changes' }).click();
      await until('the form is filled', async () => (await page.getByLabel('Epochs', { exact: true }).inputValue()) === '2', 15);
      assert.equal(await page.getByLabel('Label smoothing', { exact: true }).inputValue(), '0.1');
      assert.match(await page.getByLabel('Everything else').inputValue(), /"dropout": 0.25/);
      assert.ok(await page.getByRole('radio', { name: /As before/ }).isChecked());
      assert.equal(await page.getByLabel('Metadata').inputValue(), 'team=a=b');
      await page.getByText('choices made for you').waitFor({ timeout: 30_000 });
    });
  });
}
