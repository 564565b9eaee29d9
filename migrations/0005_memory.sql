-- What jobs cost, and what they did when memory ran out.
alter table jobs add column micro_batch int;
alter table jobs add column best_effort text;
alter table jobs add constraint jobs_micro_batch_range check (micro_batch > 0);
comment on column jobs.micro_batch is
    'Samples that run together in training, since memory ran out with the recipe''s batch_size; the next attempt begins so.';
comment on column jobs.best_effort is 'Why another run may not give the same bits; null where it does.';

alter table attempts add column peak_bytes bigint;
alter table attempts add column prepared_samples bigint;
alter table attempts add column preparing_seconds double precision;
alter table attempts add column trained_samples bigint;
alter table attempts add column training_seconds double precision;
comment on column attempts.peak_bytes is
    'Most memory of the trainer''s process on a CPU; null where it was not measured, or the attempt did not end in order.';
comment on column attempts.prepared_samples is 'Samples decoded, and run through a frozen backbone, in preparing_seconds.';
comment on column attempts.trained_samples is 'Samples of optimizer steps in training_seconds, evaluations included.';
