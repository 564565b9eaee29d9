import type { Schemas } from './api';
import { duration } from './format';

/** Every text that stands for a value of the API is here. A new value without a text fails the type check. */

type Status = Schemas['JobStatus'];
export type Tone = 'busy' | 'wait' | 'good' | 'bad' | 'off';

export const JOB_STATUS: Record<Status, { label: string; tone: Tone; sentence: string }> = {
  validating_files: { label: 'Validating', tone: 'wait', sentence: 'The data set is being checked; the job is queued once that is done.' },
  queued: { label: 'Queued', tone: 'wait', sentence: 'The job waits for a worker.' },
  running: { label: 'Running', tone: 'busy', sentence: 'A worker trains the model.' },
  pausing: { label: 'Pausing', tone: 'wait', sentence: 'The trainer saves its state, then frees its device.' },
  paused: { label: 'Paused', tone: 'off', sentence: 'The job keeps its last checkpoint until it is resumed.' },
  succeeded: { label: 'Succeeded', tone: 'good', sentence: 'The model is ready.' },
  failed: { label: 'Failed', tone: 'bad', sentence: 'The job ended with an error.' },
  cancelled: { label: 'Cancelled', tone: 'off', sentence: 'The job was cancelled; its checkpoints remain.' },
};

export const PHASE: Record<Schemas['Phase'], { label: string; sentence: string }> = {
  waiting: { label: 'Waiting', sentence: 'Waiting for a worker.' },
  choosing: { label: 'Choosing model', sentence: 'Base models are ranked on the training data.' },
  preparing: { label: 'Preparing', sentence: 'Weights and data are loaded.' },
  caching_features: { label: 'Caching features', sentence: 'The frozen backbone runs once over every image.' },
  probing: { label: 'Probing', sentence: 'The best linear head is fitted as a start.' },
  training: { label: 'Training', sentence: 'Weights change step by step.' },
  evaluating: { label: 'Evaluating', sentence: 'The model is measured on data that it did not train on.' },
  exporting: { label: 'Exporting', sentence: 'The model bundle is written.' },
};

export const WAIT_REASON: Record<Schemas['WaitReason'], string> = {
  tenant_paused: 'Your tenant is paused by an administrator.',
  backoff: 'The last attempt failed; it is tried again after a pause.',
  no_worker: 'No worker accepts jobs now.',
  too_large: 'It needs more memory than any worker has.',
  tenant_at_cap: 'Your tenant runs as many jobs as it may at once.',
  slots_busy: 'All workers are busy.',
  reserved: 'Memory is reserved for a larger job that has waited longer.',
  memory: 'No free worker has enough memory now.',
  starting: 'About to start.',
};

export const FILE_STATUS: Record<Schemas['FileStatus'], { label: string; tone: Tone }> = {
  downloading: { label: 'Downloading', tone: 'busy' },
  uploaded: { label: 'Validating', tone: 'busy' },
  processed: { label: 'Ready', tone: 'good' },
  error: { label: 'Refused', tone: 'bad' },
};

export const MODEL_STATUS: Record<Schemas['ModelStatus'], { label: string; tone: Tone }> = {
  importing: { label: 'Importing', tone: 'busy' },
  ready: { label: 'Ready', tone: 'good' },
  error: { label: 'Refused', tone: 'bad' },
};

export const PURPOSE: Record<Schemas['Purpose'], string> = {
  'fine-tune': 'Data set',
  weights: 'Weights',
  'fine-tune-results': 'Results',
};

export const TASK: Record<Schemas['Task'], string> = {
  single_label_classification: 'one class per image',
  multi_label_classification: 'several labels per image',
  regression: 'a number per image',
};

interface MetricWords {
  label: string;
  /** Shown as a percentage. */
  share: boolean;
  /** Greater is better. */
  up: boolean;
}

export const METRIC: Record<Schemas['Metric'], MetricWords> = {
  valid_accuracy: { label: 'accuracy', share: true, up: true },
  valid_balanced_accuracy: { label: 'balanced accuracy', share: true, up: true },
  valid_macro_f1: { label: 'macro F1', share: true, up: true },
  valid_micro_f1: { label: 'micro F1', share: true, up: true },
  valid_mean_average_precision: { label: 'mean average precision', share: true, up: true },
  valid_roc_auc: { label: 'ROC-AUC', share: true, up: true },
  valid_r2: { label: 'R²', share: false, up: true },
  valid_mae: { label: 'mean absolute error', share: false, up: false },
  valid_rmse: { label: 'RMSE', share: false, up: false },
  valid_loss: { label: 'loss', share: false, up: false },
};

export const SPLIT: Record<Schemas['Split'], string> = { train: 'train', validation: 'validation', test: 'test' };

const WORKER_STATE: Record<string, { label: string; tone: Tone; sentence: string }> = {
  active: { label: 'Active', tone: 'good', sentence: 'Claims jobs.' },
  unfit: { label: 'Unfit', tone: 'bad', sentence: 'No device passes its self-test.' },
  quarantined: { label: 'Quarantined', tone: 'bad', sentence: 'Several jobs in a row failed on its devices.' },
  draining: { label: 'Draining', tone: 'wait', sentence: 'Finishes its jobs and claims no more.' },
  stopped: { label: 'Stopped', tone: 'off', sentence: 'It ended in order.' },
  lost: { label: 'Lost', tone: 'bad', sentence: 'It has been silent for a minute.' },
};

export function workerState(state: string): { label: string; tone: Tone; sentence: string } {
  return WORKER_STATE[state] ?? { label: state, tone: 'off', sentence: '' };
}

/** Why a queued job waits, with its place and its estimated start. */
export function queueSentence(queue: Schemas['Queue'], now = Date.now() / 1000): string {
  const parts = [WAIT_REASON[queue.reason] ?? queue.reason];
  if (queue.reason === 'backoff' && queue.until) parts[0] = `The last attempt failed; next try in ${duration(queue.until - now)}.`;
  if (queue.ahead > 0) parts.push(`${queue.ahead} ahead.`);
  const start = queue.estimated_start?.p50;
  if (start && start > now) parts.push(`Starts in about ${duration(start - now)}.`);
  return parts.join(' ');
}

/** One line on the state of a job in a list. */
export function jobReason(job: Schemas['JobSummary']): string {
  if (job.cancel_requested_at && !['cancelled', 'failed', 'succeeded'].includes(job.status)) return 'Being cancelled.';
  if (job.queue) return queueSentence(job.queue);
  if (job.error_code) return job.error_code.replaceAll('_', ' ');
  if (job.stop_requested_at && job.status === 'running') return 'Stopping early.';
  return '';
}

export function metricText(name: Schemas['Metric'], value: number): string {
  const words = METRIC[name];
  if (!words) return value.toPrecision(4);
  return words.share ? `${(100 * value).toFixed(1)}\u00a0%` : value.toPrecision(4);
}
