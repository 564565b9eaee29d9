// D16: a large folder with names of all kinds and files that are no images; a file of 5 GB.
import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { crc32, deflateSync } from 'node:zlib';
import { drop, scratch, until, within } from './world.mjs';

const CLASSES = ['Käse & Brot', '日本 語', 'x'.repeat(120)];
const SIDE = 16;

/** A PNG of one color, which tells it from all others. */
function image(number) {
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const ends = Buffer.alloc(8);
    ends.writeUInt32BE(data.length, 0);
    ends.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([ends.subarray(0, 4), body, ends.subarray(4)]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(SIDE, 0);
  header.writeUInt32BE(SIDE, 4);
  header.set([8, 2], 8);
  const row = Buffer.concat([Buffer.from([0]), ...Array(SIDE).fill(Buffer.from([number & 255, number >> 8, 128]))]);
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), chunk('IHDR', header), chunk('IDAT', deflateSync(Buffer.concat(Array(SIDE).fill(row)))), chunk('IEND', Buffer.alloc(0))]);
}

/** 3,000 files: 2,990 images below train and val, and ten that are none or hidden. */
function folder() {
  const top = join(scratch, 'many files');
  const put = (path, data) => {
    mkdirSync(dirname(join(top, path)), { recursive: true });
    writeFileSync(join(top, path), data);
  };
  for (let i = 0; i < 2990; i++) put(`${i % 5 ? 'train' : 'val'}/${CLASSES[i % 3]}/größe ${i % 7 ? '' : 'ﷺ'.repeat(20)}${i}.png`, image(i));
  for (let i = 0; i < 4; i++) put(`train/${CLASSES[0]}/.hidden-${i}.png`, 'x');
  for (let i = 0; i < 2; i++) put(`__MACOSX/train/${CLASSES[0]}/._${i}.png`, 'x');
  put('train/.DS_Store', 'x');
  put(`train/${CLASSES[0]}/empty.png`, '');
  put(`train/${CLASSES[1]}/empty too.png`, '');
  put('README.txt', 'about these images');
  return top;
}

export function register(world) {
  test('a folder of 3,000 files with names of all kinds becomes a data set', async () => {
    const { service } = world;
    await within(service.url, {}, async ({ page, go }) => {
      await go('files');
      let sent = 0;
      page.on('request', (request) => (sent += Number(request.method() === 'POST' && new URL(request.url()).pathname.endsWith('/v1/files'))));
      await drop(page, '.drop', folder());
      await page.waitForURL(/#\/files\/file-/, { timeout: 60_000 });
      assert.equal(sent, 1);
      const file = await service.call(`files/${page.url().split('/').pop()}?wait=60&until=processed`);
      assert.equal(file.status, 'processed', JSON.stringify(file));
      assert.equal(file.dataset.samples, 2990);
      assert.deepEqual(file.dataset.classes.map(({ name }) => name).sort(), [...CLASSES].sort());
      const [validation, train] = [0, 1].map((place) => file.dataset.classes.reduce((sum, each) => sum + [each.validation, each.train][place], 0));
      assert.deepEqual([validation, train], [598, 2392]);
      // What is no image is named in the report.
      await page.getByText('2,990 images').first().waitFor({ timeout: 20_000 });
      for (const name of CLASSES) await page.getByText(name, { exact: true }).first().waitFor();
    });
  });

  test('an upload of 5 GB is sent once, and ends cleanly', async () => {
    const { service } = world;
    const path = join(scratch, 'large.tar');
    const sparse = openSync(path, 'w');
    ftruncateSync(sparse, 5 * 2 ** 30);
    closeSync(sparse);
    await within(service.url, { expected: ['ERR_'] }, async ({ page, go }) => {
      await go('new');
      const before = (await service.call('files?limit=100')).data.length;
      let sent = 0;
      page.on('request', (request) => (sent += Number(request.method() === 'POST' && new URL(request.url()).pathname.endsWith('/v1/files'))));
      const input = page.getByLabel('Drop a folder of images, or a zip or tar of one, file');
      await input.setInputFiles(path);
      await page.getByText('of 5.4 GB').waitFor({ timeout: 30_000 });
      await until('some of it is sent', async () => !/^0 B/.test(await page.getByText('of 5.4 GB').innerText()), 30);
      await input.setInputFiles(path);
      await page.waitForTimeout(500);
      assert.equal(sent, 1);
      await page.getByRole('button', { name: 'Cancel' }).click();
      await until('it has ended', async () => (await page.getByText('of 5.4 GB').count()) === 0, 10);
      assert.equal(await page.getByRole('alert').count(), 0);
      assert.equal((await service.call('files?limit=100')).data.length, before);
      // The page goes on.
      await input.setInputFiles({ name: 'small.tar', mimeType: 'application/x-tar', buffer: Buffer.from('no archive') });
      await page.getByText('this is not an archive').first().waitFor({ timeout: 30_000 });
      await page.getByText(/× /).first().waitFor();
      assert.equal(await page.getByText('this is not an archive').count(), 1, 'the reason is there once');
    });
  });
}
