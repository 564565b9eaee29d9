import { get, type Schemas } from './api';
import { METRIC, metricText } from './words';

export type Model = Schemas['ModelObject'];

export async function listModels(owner: Schemas['Owner'], signal?: AbortSignal): Promise<Model[]> {
  const page = await get('/v1/models', { query: { owned_by: owner }, signal });
  return page.data;
}

/** Metrics that stand for a model, the most telling first. */
const TELLING = ['valid_accuracy', 'valid_mean_average_precision', 'valid_rmse'] as const;

export function bestOf(model: Model): { label: string; text: string } | null {
  for (const name of TELLING) {
    const value = model.metrics?.[name];
    if (value !== null && value !== undefined) return { label: METRIC[name].label, text: metricText(name, value) };
  }
  return null;
}

export function inputText(model: Model): string {
  const input = model.input;
  if (!input) return '–';
  if ('input_size' in input) return `${input.input_size} × ${input.input_size}${input.channels && input.channels !== 3 ? `, ${input.channels === 1 ? 'gray' : 'with alpha'}` : ''}`;
  return `${input.max_tokens} tokens`;
}

export function sourceText(model: Model): string {
  const { name, classes, dataset } = model.source_task;
  return [dataset ?? name, classes ? `${classes} classes` : ''].filter(Boolean).join(', ');
}
