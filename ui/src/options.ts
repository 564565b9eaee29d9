import { METRIC } from './words';

/** An option of a job in the form. What is left empty is `"auto"`. */
export interface Option {
  /** Its path in the request below `method.transfer`, or in the request itself for `top`. */
  path: string;
  label: string;
  kind: 'number' | 'choice' | 'text';
  choices?: readonly [string, string][];
  top?: boolean;
}

export const GROUPS: readonly { name: string; options: readonly Option[] }[] = [
  {
    name: 'Length',
    options: [
      { path: 'hyperparameters.n_epochs', label: 'Epochs', kind: 'number' },
      { path: 'early_stopping.patience', label: 'Patience, evaluations', kind: 'number' },
      { path: 'early_stopping.metric', label: 'Best by', kind: 'choice', choices: Object.entries(METRIC).map(([value, words]) => [value, words.label]) },
      { path: 'timeout_seconds', label: 'Time limit, seconds', kind: 'number', top: true },
    ],
  },
  {
    name: 'Optimization',
    options: [
      { path: 'hyperparameters.batch_size', label: 'Batch size', kind: 'number' },
      { path: 'hyperparameters.learning_rate', label: 'Learning rate, head', kind: 'number' },
      { path: 'hyperparameters.backbone_learning_rate', label: 'Learning rate, backbone', kind: 'number' },
      { path: 'hyperparameters.optimizer', label: 'Optimizer', kind: 'choice', choices: [['adamw', 'AdamW'], ['sgd', 'SGD'], ['nesterov', 'SGD, Nesterov']] },
      { path: 'hyperparameters.schedule', label: 'Schedule', kind: 'choice', choices: [['constant', 'constant'], ['cosine', 'cosine'], ['linear', 'linear'], ['step', 'step'], ['one_cycle', 'one cycle']] },
      { path: 'hyperparameters.weight_decay', label: 'Weight decay', kind: 'number' },
      { path: 'hyperparameters.warmup_fraction', label: 'Warm-up, share', kind: 'number' },
      { path: 'hyperparameters.layer_decay', label: 'Layer decay', kind: 'number' },
      { path: 'hyperparameters.ema_decay', label: 'Average of weights', kind: 'number' },
    ],
  },
  {
    name: 'Regularization',
    options: [
      { path: 'augmentation', label: 'Augmentation', kind: 'choice', choices: [['none', 'none']] },
      { path: 'hyperparameters.label_smoothing', label: 'Label smoothing', kind: 'number' },
      { path: 'hyperparameters.mixup', label: 'Mixup', kind: 'number' },
      { path: 'hyperparameters.cutmix', label: 'CutMix', kind: 'number' },
      { path: 'hyperparameters.class_weights', label: 'Class weights', kind: 'choice', choices: [['none', 'none'], ['balanced', 'balanced']] },
    ],
  },
  {
    name: 'Machine',
    options: [
      { path: 'hyperparameters.precision', label: 'Precision', kind: 'choice', choices: [['float32', 'float32'], ['bfloat16', 'bfloat16']] },
      { path: 'seed', label: 'Seed', kind: 'number', top: true },
      { path: 'priority', label: 'Priority, 0 first to 4', kind: 'number', top: true },
    ],
  },
];

export const OPTIONS: readonly Option[] = GROUPS.flatMap((group) => group.options);

/** Where the API says that an option is wrong. */
export function problemPath(option: Option): string {
  return option.top ? option.path : `method.transfer.${option.path}`;
}

export type Tree = Record<string, unknown>;

export function getAt(tree: Tree, path: string): unknown {
  return path.split('.').reduce<unknown>((at, name) => (at && typeof at === 'object' ? (at as Tree)[name] : undefined), tree);
}

export function setAt(tree: Tree, path: string, value: unknown): void {
  const names = path.split('.');
  const last = names.pop() as string;
  let at = tree;
  for (const name of names) {
    if (!at[name] || typeof at[name] !== 'object') at[name] = {};
    at = at[name] as Tree;
  }
  at[last] = value;
}

export function removeAt(tree: Tree, path: string): void {
  const names = path.split('.');
  const last = names.pop() as string;
  const at = names.length ? getAt(tree, names.join('.')) : tree;
  if (!at || typeof at !== 'object') return;
  delete (at as Tree)[last];
  if (names.length && !Object.keys(at).length) removeAt(tree, names.join('.'));
}

/** What a field means: a number where it is one, else the text, which the service then refuses by name. */
export function valueOf(option: Option, text: string): unknown {
  const trimmed = text.trim();
  if (option.kind === 'number' && trimmed !== '' && Number.isFinite(Number(trimmed))) return Number(trimmed);
  return trimmed;
}

export type What = 'head' | 'all' | 'staged' | 'custom';

/** The freeze schedule of training in stages: the head first, then the end of the backbone, then all of it. */
export const STAGED = { schedule: [{ at_epoch: 0, freeze: 'all' }, { at_epoch: 3, freeze: { all_but_last_stages: 1 } }, { at_epoch: 6, freeze: 'none' }] };

export function freezeOf(what: What): unknown {
  return what === 'head' ? 'all' : what === 'staged' ? STAGED : undefined;
}

export function whatOf(freeze: unknown): What {
  if (freeze === undefined || freeze === null || freeze === 'auto') return 'all';
  if (freeze === 'all') return 'head';
  return JSON.stringify(freeze) === JSON.stringify(STAGED) ? 'staged' : 'custom';
}
