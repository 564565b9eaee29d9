// D3: the same by keyboard alone; the focus is never lost, and always visible.
import assert from 'node:assert/strict';
import test from 'node:test';
import { until, within } from './world.mjs';

/** Presses Tab until the element has the focus. */
async function tabTo(page, selector, most = 120) {
  for (let i = 0; i < most; i++) {
    await page.keyboard.press('Tab');
    const [there, seen, what] = await page.evaluate((wanted) => {
      const active = document.activeElement;
      const style = getComputedStyle(active);
      const isSeen = active !== document.body && active.matches(':focus-visible') && style.outlineStyle !== 'none' && style.outlineWidth !== '0px';
      return [active.matches(wanted), isSeen, active.outerHTML.slice(0, 120)];
    }, selector);
    // Past the last element the focus is in the browser's own bar.
    if (what.startsWith('<body') || what.startsWith('<html')) continue;
    assert.ok(seen, `the focus is not visible on ${what}`);
    if (there) return;
  }
  assert.fail(`Tab does not reach ${selector}`);
}

export function register(world) {
  test('by keyboard alone from data to the images of a cell', async () => {
    await within(world.service.url, {}, async ({ page, go }) => {
      await go('jobs');
      await page.keyboard.press('n');
      await page.getByRole('heading', { name: 'New job' }).waitFor();
      await page.locator('#existing').waitFor();
      await tabTo(page, '#existing');
      await page.keyboard.press('ArrowDown');
      await page.getByText('choices made for you').waitFor({ timeout: 30_000 });
      await tabTo(page, 'input[name=what]');
      await page.keyboard.press('ArrowDown');
      await until('the quick head is chosen', () => page.url().includes('what=head'), 5);
      await page.waitForTimeout(800);
      await tabTo(page, '#suffix');
      await page.keyboard.type('by-keyboard');
      await page.waitForTimeout(800);
      await tabTo(page, 'button.primary:not([disabled])');
      await page.keyboard.press('Enter');
      await page.waitForURL(/#\/jobs\/ftjob-/);
      await page.locator('.status').getByText('Succeeded').first().waitFor({ timeout: 120_000 });
      await tabTo(page, '.tabs a[href$="classes"]');
      await page.keyboard.press('Enter');
      await page.locator('td a').first().waitFor();
      await tabTo(page, 'td a[href*="prediction="]');
      await page.keyboard.press('Enter');
      await page.locator('.gallery .tile').first().waitFor();
      await tabTo(page, '.tile');
      await page.keyboard.press('Enter');
      await page.getByRole('dialog').waitFor();
      await page.keyboard.press('ArrowRight');
      await until('the next image is open', () => page.url().includes('at=1'), 5);
      await page.keyboard.press('Escape');
      await until('the focus is back in the gallery', () => page.evaluate(() => document.activeElement?.classList.contains('tile')), 5);
      await page.keyboard.press('g');
      await page.keyboard.press('j');
      await page.getByRole('heading', { name: 'Jobs', level: 1 }).waitFor();
      await page.getByRole('link', { name: 'by-keyboard' }).waitFor();
      await page.keyboard.press('/');
      await page.keyboard.type('by-key');
      await until('the search holds', async () => (await page.locator('tbody a').count()) === 1, 10);
      await tabTo(page, 'tbody a');
      await page.keyboard.press('?');
      await page.getByRole('dialog', { name: 'Keys' }).waitFor();
    });
  });
}
