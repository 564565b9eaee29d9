-- Tasks other than telling one class a sample: what an evaluation measures depends on the task.
alter table job_evaluations
    alter column valid_accuracy drop not null,
    alter column valid_balanced_accuracy drop not null,
    add column valid_macro_f1 double precision,
    add column valid_micro_f1 double precision,
    add column valid_mean_average_precision double precision,
    add column valid_r2 double precision,
    add column valid_mae double precision,
    add column valid_rmse double precision;
comment on table job_evaluations is
    'One row for each evaluation on the validation split: domain::checkpoint::Metrics; null is what its task does not measure.';

-- A report names its task.
update models set report = report || '{"task": "single_label_classification"}' where report is not null and not report ? 'task';
