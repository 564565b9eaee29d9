-- What a finished model says of every sample it was trained, validated and tested on.
create table job_samples (
    job_id uuid not null,
    sample int not null,
    split text not null,
    path text not null,
    label jsonb not null,
    prediction jsonb not null,
    probability double precision,
    loss double precision not null,
    margin double precision,
    likely_wrong_label boolean not null,
    near_duplicate_of text,
    constraint job_samples_pk primary key (job_id, sample),
    constraint job_samples_job_fk foreign key (job_id) references jobs (id) on delete cascade,
    constraint job_samples_split_known check (split in ('train', 'validation', 'test')),
    constraint job_samples_sample_range check (sample >= 0)
);
create index job_samples_by_loss on job_samples (job_id, loss desc, sample);
comment on table job_samples is 'domain::sample_report::SampleRecord, a row each. Written by the attempt that ends the job.';
comment on column job_samples.sample is 'Its number through the training file, then the validation file, each sorted by path.';
comment on column job_samples.label is 'A class, a list of classes, or a number, as the task has it; prediction likewise.';
comment on column job_samples.probability is 'Of the predicted class, calibrated; null where the task has no single one.';
comment on column job_samples.loss is 'In nats, or of the regression''s loss on standardised numbers.';
comment on column job_samples.margin is 'Probability of the label less the largest other: -1 (surely wrong) to 1 (surely right).';
