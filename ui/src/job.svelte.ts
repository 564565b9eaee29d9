import { address, asFailure, get, HEADERS, type Failure, type Schemas } from './api';
import { Column } from './decimate';
import { follow, type Frame } from './events';
import { repeat } from './repeat';

export type Job = Schemas['JobObject'];
export type JobEvent = Schemas['EventObject'];
export type Evaluation = Schemas['EvaluationObject'];

/** Events in memory; older ones are read by paging. */
const EVENTS = 500;

/** Everything that the pages of a job show, kept current while it runs. */
export class JobView {
  job = $state.raw<Job | null>(null);
  failure = $state.raw<Failure | null>(null);
  events = $state.raw<JobEvent[]>([]);
  /** The stream of events is open. */
  live = $state(false);
  evaluations = $state.raw<Evaluation[]>([]);
  /** Counted up when the columns have grown. */
  version = $state(0);
  report = $state.raw<Schemas['Report'] | null>(null);
  readonly step = new Column();
  readonly epoch = new Column();
  readonly loss = new Column();
  readonly rate = new Column();
  readonly throughput = new Column();
  /** Minutes of training until each step, by the throughput. */
  readonly minutes = new Column();
  #stops: (() => void)[] = [];
  #wake: (() => void) | null = null;
  #metrics: Promise<void> | null = null;
  #queue: JobEvent[] = [];
  #flush = 0;

  constructor(readonly id: string) {
    this.#stops.push(
      repeat(
        async (signal) => {
          await this.#read(signal);
          return this.job?.is_terminal ? null : 2000;
        },
        (failure) => (this.failure = failure),
      ),
    );
  }

  async #read(signal?: AbortSignal): Promise<void> {
    this.job = await get('/v1/fine_tuning/jobs/{id}', { path: { id: this.id }, headers: { 'cache-control': 'no-cache' }, signal });
    if (this.#wake) this.#wake();
    if (this.job.status === 'succeeded' && !this.report) await this.readReport();
  }

  async refresh(): Promise<void> {
    try {
      await this.#read();
    } catch (error) {
      this.failure = asFailure(error);
    }
  }

  async readReport(): Promise<void> {
    try {
      this.report = await get('/v1/fine_tuning/jobs/{id}/report', { path: { id: this.id } });
    } catch {
      this.report = null;
    }
  }

  /** Follows the events, until the page is left. */
  followEvents(): void {
    this.#stops.push(
      follow({
        url: address(['v1', 'fine_tuning', 'jobs', this.id, 'events']),
        headers: HEADERS,
        onFrame: (frame) => this.#event(frame),
        onOpen: (open) => (this.live = open),
        isLast: (frame) => /"kind":"(succeeded|failed|cancelled)"/.test(frame.data),
      }),
    );
  }

  #event(frame: Frame): void {
    let event: JobEvent;
    try {
      event = JSON.parse(frame.data) as JobEvent;
    } catch {
      return;
    }
    this.#queue.push(event);
    if (!this.#flush) this.#flush = requestAnimationFrame(() => this.#takeEvents());
  }

  #takeEvents(): void {
    this.#flush = 0;
    const last = this.events[this.events.length - 1]?.seq ?? 0;
    const fresh = this.#queue.filter((event, i, all) => event.seq > last && (i === 0 || event.seq > (all[i - 1] as JobEvent).seq));
    this.#queue = [];
    if (!fresh.length) return;
    this.events = [...this.events, ...fresh].slice(-EVENTS);
    if (fresh.some((event) => ['succeeded', 'failed', 'cancelled'].includes(event.kind))) {
      this.live = false;
      void this.refresh();
    }
  }

  /** Reads the metrics that are new, now and whenever the job has moved on. */
  followMetrics(): void {
    const run = () => {
      this.#metrics ??= this.#readMetrics().finally(() => (this.#metrics = null));
    };
    this.#wake = run;
    run();
  }

  async #readMetrics(): Promise<void> {
    try {
      for (;;) {
        // The last step again: its evaluation may have come after it.
        const last = this.job?.is_terminal ? Math.min(this.step.last, this.evaluations.at(-1)?.step ?? 0) : this.step.last;
        const query = last > 1 ? { after_step: last - 1 } : {};
        const found = await get('/v1/fine_tuning/jobs/{id}/metrics', { path: { id: this.id }, query });
        this.#append(found.columns);
        const known = new Map([...this.evaluations, ...found.evaluations].map((each) => [each.step, each]));
        this.evaluations = [...known.values()].sort((a, b) => a.step - b.step);
        this.version++;
        if (!found.has_more || !found.columns.step.length) return;
      }
    } catch {
      // The next turn reads them.
    }
  }

  #append(columns: Schemas['Columns']): void {
    const batch = this.job?.recipe ? this.job.recipe.batch_size * this.job.recipe.accumulate : 32;
    columns.step.forEach((step, i) => {
      const before = this.step.length ? this.step.last : 0;
      if (step <= before && this.step.length) return;
      const speed = columns.samples_per_second[i] ?? 0;
      const minutes = speed > 0 ? ((step - before) * batch) / speed / 60 : 0;
      this.minutes.push((this.minutes.length ? this.minutes.last : 0) + minutes);
      this.step.push(step);
      this.epoch.push(columns.epoch[i]);
      this.loss.push(columns.train_loss[i]);
      this.rate.push(columns.learning_rate[i]);
      this.throughput.push(columns.samples_per_second[i]);
    });
  }

  close(): void {
    for (const stop of this.#stops) stop();
    cancelAnimationFrame(this.#flush);
  }
}
