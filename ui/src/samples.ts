import { ask, type Schemas } from './api';

export type Sample = Schemas['SampleObject'];
export type SamplePage = Schemas['SampleList'];

export function samplesOf(job: string, query: Record<string, string>, signal?: AbortSignal): Promise<SamplePage> {
  return ask('GET', ['v1', 'fine_tuning', 'jobs', job, 'samples'], { query: { limit: '100', ...query }, signal });
}

export function answer(value: Schemas['Answer']): string {
  if (Array.isArray(value)) return value.join(', ') || 'none';
  return typeof value === 'number' ? value.toPrecision(4) : value;
}

export function isRight(sample: Sample): boolean {
  return JSON.stringify(sample.label) === JSON.stringify(sample.prediction);
}

/** Probability of the label, as far as margin and probability of the prediction give it. */
export function labelProbability(sample: Sample): number | null {
  if (sample.probability === null || sample.probability === undefined) return null;
  if (isRight(sample)) return sample.probability;
  return sample.margin === null || sample.margin === undefined ? null : Math.max(0, sample.margin + sample.probability);
}
