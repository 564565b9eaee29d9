import { post, remove, type Schemas } from './api';

export type Verb = 'pause' | 'resume' | 'stop' | 'cancel' | 'delete';
type Status = Schemas['JobStatus'];

interface Control {
  label: string;
  title: string;
  text: string;
  verb: string;
  when: readonly Status[];
}

export const CONTROLS: Record<Verb, Control> = {
  pause: {
    label: 'Pause',
    title: 'Pause this job?',
    text: 'The trainer saves its state and frees its device. The job continues exactly there when it is resumed.',
    verb: 'Pause',
    when: ['validating_files', 'queued', 'running'],
  },
  resume: {
    label: 'Resume',
    title: 'Resume this job?',
    text: 'The job waits for a worker again and continues from its last checkpoint.',
    verb: 'Resume',
    when: ['paused', 'pausing'],
  },
  stop: {
    label: 'Stop early',
    title: 'Stop training and keep the best model?',
    text: 'Training ends after the current step. The best checkpoint becomes the model, with report and bundle.',
    verb: 'Stop early',
    when: ['running', 'pausing', 'paused'],
  },
  cancel: {
    label: 'Cancel',
    title: 'Cancel this job?',
    text: 'It trains no further and makes no model. Its checkpoints and events stay.',
    verb: 'Cancel the job',
    when: ['validating_files', 'queued', 'running', 'pausing', 'paused'],
  },
  delete: {
    label: 'Delete',
    title: 'Delete this job?',
    text: 'Its events, metrics, report and checkpoints are deleted with it. Its model stays.',
    verb: 'Delete',
    when: ['succeeded', 'failed', 'cancelled'],
  },
};

export const VERBS = Object.keys(CONTROLS) as Verb[];

export async function control(verb: Verb, id: string): Promise<void> {
  const of = { path: { id } };
  if (verb === 'delete') await remove('/v1/fine_tuning/jobs/{id}', of);
  else if (verb === 'pause') await post('/v1/fine_tuning/jobs/{id}/pause', of);
  else if (verb === 'resume') await post('/v1/fine_tuning/jobs/{id}/resume', of);
  else if (verb === 'stop') await post('/v1/fine_tuning/jobs/{id}/stop', of);
  else await post('/v1/fine_tuning/jobs/{id}/cancel', of);
}
