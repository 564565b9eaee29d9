// All tests of the dashboard in a browser, in order, on one service. `ONLY=live,forms` runs some.
import { mkdirSync } from 'node:fs';
import test, { after, before } from 'node:test';
import * as forms from './forms.mjs';
import * as hostile from './hostile.mjs';
import * as keyboard from './keyboard.mjs';
import * as large from './large.mjs';
import * as live from './live.mjs';
import * as looks from './looks.mjs';
import * as review from './review.mjs';
import * as sessions from './sessions.mjs';
import * as tasks from './tasks.mjs';
import * as uploads from './uploads.mjs';
import * as wholePath from './whole_path.mjs';
import { DEMO, OUT, quit, Service } from './world.mjs';

const world = {};
const only = process.env.ONLY?.split(',');
const chosen = (name) => !only || only.includes(name);

before(async () => {
  mkdirSync(OUT, { recursive: true });
  world.service = await Service.start();
});
after(async () => {
  await world.service?.close();
  await quit();
});

if (chosen('whole_path')) wholePath.register(world);

test('two jobs for the other tests', async () => {
  const { service } = world;
  if (!chosen('whole_path')) await service.baseModel();
  const file = await service.upload(`${DEMO}/clipart.zip`, 'fine-tune');
  world.file = file.id;
  const head = await service.job('efficientnet_lite0', file.id, 'clipart', { freeze: 'all' }, { metadata: { team: 'design' } });
  const stage = await service.job('efficientnet_lite0', file.id, 'last-stage', { freeze: { all_but_last_stages: 1 }, hyperparameters: { n_epochs: 2 } });
  world.jobs = [await service.ended(head.id), await service.ended(stage.id)];
});

for (const [name, part] of Object.entries({ looks, forms, keyboard, live, review, tasks, uploads, hostile, large, sessions })) if (chosen(name)) part.register(world);
