import type { Schemas } from './api';

/** What a user asks for, as far as it differs from the defaults. */
export type Wanted = Record<string, unknown>;

function isDefault(name: string, value: unknown): boolean {
  if (value === null || value === undefined || value === 'auto') return true;
  return (name === 'min_delta' && value === 0) || (name === 'checkpoint_every_seconds' && value === 300);
}

/** Leaves out what is a default, also inside. */
export function pruned(value: unknown): unknown {
  if (!value || typeof value !== 'object' || Array.isArray(value)) return value;
  const kept: Wanted = {};
  for (const [name, inner] of Object.entries(value)) {
    if (isDefault(name, inner)) continue;
    const next = ['hyperparameters', 'head', 'early_stopping'].includes(name) ? pruned(inner) : inner;
    if (next && typeof next === 'object' && !Array.isArray(next) && !Object.keys(next).length) continue;
    kept[name] = next;
  }
  return kept;
}

/** The request that would create a job again. */
export function requestOf(job: Schemas['JobObject']): Wanted {
  const transfer = pruned(job.method.transfer) as Wanted;
  const request: Wanted = { model: job.requested_model, training_file: job.training_file };
  if (job.validation_file) request.validation_file = job.validation_file;
  if (job.suffix) request.suffix = job.suffix;
  request.seed = job.seed;
  if (job.priority !== 2) request.priority = job.priority;
  if (job.timeout_seconds !== 86400) request.timeout_seconds = job.timeout_seconds;
  if (Object.keys(job.metadata).length) request.metadata = job.metadata;
  if (Object.keys(transfer).length) request.method = { type: 'transfer', transfer };
  return request;
}

/** Options of `rehead submit`, by their path in the request. */
const FLAGS: Record<string, string> = {
  freeze: '--freeze',
  adapter: '--adapter',
  labels: '--labels',
  'hyperparameters.n_epochs': '--epochs',
  'hyperparameters.batch_size': '--batch-size',
  'hyperparameters.learning_rate': '--learning-rate',
  'hyperparameters.backbone_learning_rate': '--backbone-learning-rate',
  'hyperparameters.optimizer': '--optimizer',
  'hyperparameters.weight_decay': '--weight-decay',
  'hyperparameters.schedule': '--schedule',
};

function plain(value: unknown): string {
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

/** The words of `rehead submit` for a request; what it has no option for is left out. */
export function cliArgs(request: Wanted): string[] {
  const words = ['submit', '--file', String(request.training_file ?? 'FILE'), '--model', String(request.model ?? 'MODEL')];
  if (request.suffix) words.push('--suffix', String(request.suffix));
  if (request.seed !== undefined && request.seed !== null) words.push('--seed', String(request.seed));
  const transfer = ((request.method as Wanted | undefined)?.transfer ?? {}) as Wanted;
  for (const [path, flag] of Object.entries(FLAGS)) {
    const value = path.split('.').reduce<unknown>((at, name) => (at as Wanted | undefined)?.[name], transfer);
    if (value !== undefined && value !== null) words.push(flag, plain(value));
  }
  return [...words, '--watch'];
}
