-- The first schema of Rehead, one section per noun: tenants, workers, files, models, jobs, leases
-- and attempts, checkpoints, events, measurements; then what the database itself enforces
-- (triggers) and announces (notifications). Statements that use these tables are in src/db.

-- Tenants and their API keys ----------------------------------------------------------------------

create table tenants (
    id bigint generated always as identity primary key,
    name text not null,
    max_running int not null default 4,
    max_queued int not null default 1000,
    running int not null default 0,
    weight real not null default 1,
    vtime double precision not null default 0,
    paused boolean not null default false,
    created_at timestamptz not null default now(),
    constraint tenants_name_unique unique (name),
    constraint tenants_name_length check (char_length(name) between 1 and 64),
    constraint tenants_max_running_range check (max_running >= 0),
    constraint tenants_max_queued_range check (max_queued >= 0),
    constraint tenants_running_range check (running >= 0),
    constraint tenants_weight_range check (weight > 0)
) with (fillfactor = 50);
comment on table tenants is 'Owners of rows. Every row of the API belongs to one tenant.';
comment on column tenants.max_running is 'Maximum number of jobs that run at the same time.';
comment on column tenants.max_queued is 'Maximum number of waiting or paused jobs; further jobs are refused.';
comment on column tenants.running is 'Number of leased jobs of this tenant; updated by the statements that create and end leases.';
comment on column tenants.weight is 'Share of the workers, relative to other tenants.';
comment on column tenants.vtime is
    'Virtual time: jobs started so far, divided by weight. See tenant_turns.';
comment on column tenants.paused is 'True when claims skip this tenant.';
insert into tenants (name) values ('default');

create table api_keys (
    prefix text primary key,
    tenant_id bigint not null,
    name text not null,
    sha256 bytea not null,
    created_at timestamptz not null default now(),
    constraint api_keys_tenant_fk foreign key (tenant_id) references tenants (id),
    constraint api_keys_sha256_length check (octet_length(sha256) = 32)
);
comment on table api_keys is 'API keys. The secret itself is never stored.';
comment on column api_keys.prefix is 'Public part of the key, used to look it up.';
comment on column api_keys.sha256 is 'SHA-256 of the whole key, which is 256 random bits.';

-- Workers -----------------------------------------------------------------------------------------

create table workers (
    id uuid primary key,
    host text not null,
    pid bigint not null,
    version text not null,
    device text not null,
    slots int not null default 1,
    spec_version int not null default 1,
    free_mb int,
    capacity_mb int,
    reserve interval,
    state text not null default 'active',
    reason text,
    started_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    constraint workers_slots_range check (slots >= 0),
    constraint workers_state_known check (state in ('active', 'unfit', 'quarantined', 'draining', 'stopped'))
);
comment on table workers is 'Worker processes, for display and for wait reasons. No lease depends on these rows.';
comment on column workers.id is 'New for each process start, so that a restarted worker never inherits the leases of its predecessor.';
comment on column workers.slots is 'Number of jobs that it runs at the same time.';
comment on column workers.spec_version is 'Newest jobs.spec_version that it understands.';
comment on column workers.free_mb is 'Device memory available to a further job, as last measured.';
comment on column workers.capacity_mb is 'Device memory available to one job if this worker had no other.';
comment on column workers.reserve is
    'Queue age after which this worker keeps memory free for a large job that could run here. Null when not known.';
comment on column workers.state is
    'unfit: its device fails the self-test. quarantined: several jobs in a row failed on it. Neither claims jobs.';
comment on column workers.reason is 'Why it is unfit or quarantined.';

-- Files -------------------------------------------------------------------------------------------

create table files (
    id uuid primary key,
    tenant_id bigint not null,
    filename text not null,
    purpose text not null,
    bytes bigint not null,
    sha256 text not null,
    status text not null,
    status_details text,
    dataset jsonb,
    report jsonb,
    pack_sha256 text,
    pack_bytes bigint,
    created_at timestamptz not null default now(),
    constraint files_tenant_fk foreign key (tenant_id) references tenants (id),
    constraint files_purpose_known check (purpose in ('fine-tune', 'weights')),
    constraint files_status_known check (status in ('uploaded', 'processed', 'error')),
    constraint files_bytes_range check (bytes >= 0),
    constraint files_processed_dataset_has_pack
        check (not (purpose = 'fine-tune' and status = 'processed') or (dataset is not null and pack_sha256 is not null))
);
create index files_list on files (tenant_id, id desc);
comment on table files is 'Uploads. The bytes are at files/<id in hex>/content in the object store.';
comment on column files.sha256 is 'SHA-256 of the upload, lower-case hex.';
comment on column files.dataset is 'domain::file::Dataset, once validated.';
comment on column files.report is 'domain::file::FileReport, once validated.';
comment on column files.pack_sha256 is 'SHA-256 of files/<id in hex>/pack.safetensors, lower-case hex.';

-- Models ------------------------------------------------------------------------------------------

create table models (
    tenant_id bigint not null,
    id text not null,
    kind text not null,
    status text not null,
    architecture text not null,
    modality text not null,
    source_task jsonb not null,
    license text,
    requested_preprocessing jsonb,
    input jsonb,
    layers jsonb,
    parameters bigint,
    weights_sha256 text,
    objects text,
    weights_file uuid,
    import_id uuid,
    parent text,
    base_model text,
    base_weights_sha256 text,
    job_id uuid,
    recipe jsonb,
    labels jsonb,
    metrics jsonb,
    report jsonb,
    problems jsonb,
    export_failure jsonb,
    created_at timestamptz not null default now(),
    constraint models_pk primary key (tenant_id, id),
    constraint models_tenant_fk foreign key (tenant_id) references tenants (id),
    constraint models_kind_known check (kind in ('base', 'fine_tuned')),
    constraint models_status_known check (status in ('importing', 'ready', 'error')),
    constraint models_ready_is_complete check (
        status <> 'ready'
        or (input is not null and layers is not null and parameters is not null and objects is not null)
    ),
    constraint models_base_has_weights check (kind <> 'base' or status <> 'ready' or weights_sha256 is not null),
    constraint models_fine_tuned_has_origin check (
        kind <> 'fine_tuned'
        or (parent is not null and base_model is not null and base_weights_sha256 is not null and weights_sha256 is not null
            and job_id is not null and recipe is not null and labels is not null and metrics is not null
            and report is not null)
    ),
    constraint models_importing_iff_import check ((status = 'importing') = (import_id is not null)),
    constraint models_import_id_unique unique (import_id),
    constraint models_error_has_problems check ((status = 'error') = (problems is not null))
);
create index models_list on models (tenant_id, created_at, id);
create unique index models_job on models (job_id) where job_id is not null;
comment on table models is 'Base models (registered by a user) and fine-tuned models (produced by a job).';
comment on column models.source_task is 'domain::base_model::SourceTask.';
comment on column models.requested_preprocessing is 'Preprocessing asked for at registration; null for the default of the architecture.';
comment on column models.input is 'domain::input::Input: how a sample becomes an input of the network.';
comment on column models.layers is 'domain::base_model::Layers.';
comment on column models.parameters is 'Number of trainable parameters.';
comment on column models.weights_sha256 is 'SHA-256 of model.safetensors, lower-case hex.';
comment on column models.objects is 'Prefix in the object store: models/<sha256>/ or bundles/<job in hex>/<token>/.';
comment on column models.weights_file is 'The upload that a base model is imported from.';
comment on column models.import_id is 'Its import, as work.subject, while that is unfinished. New at each registration of the same id.';
comment on column models.parent is 'What a fine-tuned model started from: a base model, a fine-tuned model or a checkpoint.';
comment on column models.base_model is 'The base model at the root of a fine-tuned one; it may be deleted by now.';
comment on column models.base_weights_sha256 is 'Weights of that base model, at models/<sha256>/; kept while this model exists.';
comment on column models.recipe is 'domain::recipe::Recipe that a fine-tuned model was trained with.';
comment on column models.labels is 'Class names in label order.';
comment on column models.metrics is 'domain::checkpoint::Metrics of the checkpoint that the model was made from.';
comment on column models.report is 'domain::report::Report.';
comment on column models.problems is 'Why an import was refused: a list of domain::problem::Problem.';
comment on column models.export_failure is 'domain::progress::Failure of the last TorchScript export; null when it succeeded or never ran.';

-- Jobs --------------------------------------------------------------------------------------------

create table jobs (
    id uuid primary key,
    seq bigint generated always as identity,
    tenant_id bigint not null,
    status text not null,
    phase text not null default 'waiting',
    -- The request, and the recipe it resolves to.
    idempotency_key text,
    body_sha256 bytea,
    model text not null,
    parent jsonb,
    parent_checkpoints uuid[] not null default '{}',
    training_file uuid not null,
    validation_file uuid,
    result_model text not null,
    fine_tuned_model text,
    seed bigint not null,
    timeout_seconds bigint not null,
    metadata jsonb not null,
    request jsonb not null,
    spec_version int not null default 1,
    recipe jsonb,
    resolved jsonb not null default '[]',
    -- Read by claims.
    priority smallint not null default 2,
    resource_class text not null default 'default',
    device_mb int not null default 0,
    run_at timestamptz not null default now(),
    token bigint not null default 0,
    failures int not null default 0,
    max_failures int not null default 3,
    crashes int not null default 0,
    max_crashes int not null default 3,
    preemptions int not null default 0,
    -- Progress, as last reported by the trainer.
    step bigint not null default 0,
    n_steps bigint,
    epoch int not null default 0,
    n_epochs int,
    fraction double precision not null default 0,
    samples_per_second double precision,
    metrics jsonb,
    best_checkpoint uuid,
    device text,
    threads int,
    micro_batch int,
    nondeterminism_reason text,
    events bigint not null default 0,
    version bigint not null default 0,
    -- How it ended.
    error_code text,
    error_message text,
    error_param text,
    error_permanent boolean,
    cancel_requested_at timestamptz,
    stop_requested_at timestamptz,
    created_at timestamptz not null default now(),
    started_at timestamptz,
    finished_at timestamptz,
    constraint jobs_tenant_fk foreign key (tenant_id) references tenants (id),
    constraint jobs_idempotency_key_unique unique (tenant_id, idempotency_key),
    constraint jobs_result_model_unique unique (tenant_id, result_model),
    constraint jobs_idempotency_key_length check (char_length(idempotency_key) between 1 and 255),
    constraint jobs_idempotency_key_with_body check ((idempotency_key is null) = (body_sha256 is null)),
    constraint jobs_status_known check (status in (
        'validating_files', 'queued', 'running', 'pausing', 'paused', 'succeeded', 'failed', 'cancelled'
    )),
    constraint jobs_phase_known
        check (phase in ('waiting', 'preparing', 'caching_features', 'training', 'evaluating', 'exporting')),
    constraint jobs_priority_range check (priority between 0 and 4),
    constraint jobs_device_mb_range check (device_mb >= 0),
    constraint jobs_timeout_range check (timeout_seconds > 0),
    constraint jobs_micro_batch_range check (micro_batch > 0),
    constraint jobs_fraction_range check (fraction between 0 and 1),
    constraint jobs_final_iff_finished
        check ((status in ('succeeded', 'failed', 'cancelled')) = (finished_at is not null)),
    constraint jobs_failed_iff_error check ((status = 'failed') = (error_code is not null)),
    constraint jobs_failed_iff_permanence check ((status = 'failed') = (error_permanent is not null)),
    constraint jobs_succeeded_iff_model check ((status = 'succeeded') = (fine_tuned_model is not null)),
    constraint jobs_resolved_before_queued
        check (status not in ('queued', 'running', 'pausing', 'succeeded') or recipe is not null),
    constraint jobs_started_before_running
        check (status not in ('running', 'pausing', 'succeeded') or started_at is not null)
) with (fillfactor = 85);
create index jobs_claim on jobs (tenant_id, resource_class, priority, seq) where status = 'queued';
create index jobs_large on jobs (resource_class, device_mb, run_at) where status = 'queued';
create index jobs_validating on jobs (training_file) where status = 'validating_files';
create index jobs_live on jobs (tenant_id, status) where finished_at is null;
create index jobs_list on jobs (tenant_id, id desc);
create index jobs_finished on jobs (finished_at desc) where status = 'succeeded';
create index jobs_parent_checkpoints on jobs using gin (parent_checkpoints)
    where finished_at is null and parent_checkpoints <> '{}';
comment on table jobs is 'Fine-tuning jobs. A running or pausing job has exactly one row in work.';
comment on column jobs.seq is 'Order of arrival.';
comment on column jobs.body_sha256 is 'SHA-256 of the request body that the idempotency key came with.';
comment on column jobs.model is
    'Row of models that holds its network: the base model, or the fine-tuned model that it, or its parent, continues from.';
comment on column jobs.parent is
    'domain::parent::Parent, the model or checkpoint that it continues from; null when it starts from a base model.';
comment on column jobs.parent_checkpoints is
    'Checkpoints whose weights are loaded on top of each other at its start, oldest first. They are kept until this job ends.';
comment on column jobs.result_model is 'Name that its model will have.';
comment on column jobs.fine_tuned_model is 'The same name, once that model exists.';
comment on column jobs.seed is 'The 64 bits of an unsigned number.';
comment on column jobs.timeout_seconds is 'Limit for all attempts together; waiting and pauses do not count.';
comment on column jobs.request is 'domain::request::JobRequest.';
comment on column jobs.spec_version is 'domain::recipe::SPEC_VERSION of the build that resolved the recipe; older workers do not claim it.';
comment on column jobs.recipe is 'domain::recipe::Recipe; null until the files are validated.';
comment on column jobs.resolved is 'List of domain::recipe::Resolved.';
comment on column jobs.resource_class is 'Class of workers that may claim it.';
comment on column jobs.device_mb is
    'Device memory that it needs, in MiB: estimated when the recipe is resolved, raised to what an attempt was measured to use.';
comment on column jobs.run_at is 'Not claimed before this time; moved into the future by the backoff after a failure.';
comment on column jobs.token is 'Fencing token: incremented by each claim, never decreased. It is also the number of the attempt.';
comment on column jobs.failures is 'Attempts that ended with an error of the trainer that may be temporary.';
comment on column jobs.crashes is 'Attempts whose trainer or worker vanished.';
comment on column jobs.preemptions is 'Attempts released with their state saved, not counting pauses. Without a limit.';
comment on column jobs.fraction is 'Fraction of the current phase that is done.';
comment on column jobs.metrics is 'domain::checkpoint::Metrics of the best evaluation so far.';
comment on column jobs.micro_batch is
    'Samples per forward pass after memory ran out with the batch_size of the recipe; the next attempt starts with it.';
comment on column jobs.nondeterminism_reason is 'Why another run may not produce the same bits; null when it does.';
comment on column jobs.events is 'Number of events so far: their seq runs from 1 without gaps, in the order of commits.';
comment on column jobs.version is 'Incremented by every update of the row; used as an entity tag.';
comment on column jobs.error_permanent is 'True when another attempt would fail the same way: the request or the data must change.';
comment on column jobs.stop_requested_at is
    'When the user asked to stop training early and keep the best model. Applies to every later attempt.';

-- Leases and attempts -----------------------------------------------------------------------------

create table attempts (
    job_id uuid not null,
    token bigint not null,
    worker_id uuid not null,
    host text,
    device text,
    threads int,
    resumed_step bigint,
    reached_step bigint,
    started_at timestamptz not null default now(),
    ended_at timestamptz,
    outcome text,
    message text,
    exit_code int,
    exit_signal text,
    log_tail text,
    peak_bytes bigint,
    prepared_samples bigint,
    preparing_seconds double precision,
    trained_samples bigint,
    training_seconds double precision,
    constraint attempts_pk primary key (job_id, token),
    constraint attempts_job_fk foreign key (job_id) references jobs (id) on delete cascade,
    constraint attempts_outcome_known
        check (outcome in ('yielded', 'succeeded', 'failed', 'crashed', 'cancelled', 'lost')),
    constraint attempts_ended_iff_outcome check ((ended_at is null) = (outcome is null)),
    constraint attempts_one_exit check (exit_code is null or exit_signal is null)
);
comment on table attempts is 'One execution of a job by one worker. Its number is the token.';
comment on column attempts.host is 'Host of the worker, whose own row may be deleted by now.';
comment on column attempts.resumed_step is 'Step of the checkpoint that it resumed from.';
comment on column attempts.reached_step is 'Last step that the trainer reported; null when it never became ready.';
comment on column attempts.outcome is 'lost: its lease expired.';
comment on column attempts.exit_code is 'Exit code of the trainer, where it exited by itself.';
comment on column attempts.exit_signal is 'Signal that ended the trainer, such as SIGKILL.';
comment on column attempts.log_tail is 'Last lines of the trainer''s standard error.';
comment on column attempts.peak_bytes is
    'Peak memory of the trainer process on a CPU; null when it was not measured or the attempt did not end in order.';
comment on column attempts.prepared_samples is 'Samples decoded, and passed through a frozen backbone, in preparing_seconds.';
comment on column attempts.trained_samples is 'Samples of optimizer steps in training_seconds, evaluations included.';

-- Work: one leased queue of everything that workers do.
create table work (
    kind text not null,
    subject uuid not null,
    tenant_id bigint not null,
    token bigint not null default 0,
    crashes int not null default 0,
    run_at timestamptz not null default now(),
    worker_id uuid,
    lease_expires_at timestamptz,
    job_id uuid generated always as (case when kind = 'train' then subject end) stored,
    constraint work_pk primary key (kind, subject),
    constraint work_kind_known check (kind in ('train', 'validate', 'import', 'export')),
    constraint work_lease_has_worker check ((worker_id is null) = (lease_expires_at is null)),
    constraint work_training_is_leased check (kind <> 'train' or worker_id is not null),
    constraint work_tenant_fk foreign key (tenant_id) references tenants (id),
    constraint work_attempt_fk foreign key (job_id, token) references attempts (job_id, token) on delete cascade
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 200);
create index work_waiting on work (run_at) where worker_id is null;
create index work_leased on work (worker_id) where worker_id is not null;
create unique index work_job on work (job_id) where job_id is not null;
create sequence work_tokens;
comment on table work is
    'Work that waits for a worker or is leased to one. The row is the only mark of ownership: whoever deletes it ends the work, once. It is narrow, so that heartbeats rewrite little.';
comment on column work.kind is
    'train: a job. A job waits in jobs, in the order of tenant_turns and claimable_jobs, and has a row here only while it is leased. validate: a file. import: a base model. export: a fine-tuned model as TorchScript.';
comment on column work.subject is 'Id of the job or file, models.import_id, or, for an export, models.job_id.';
comment on column work.token is
    'Fencing token of the current lease; writes with any other token are refused. For a job the number of the attempt, otherwise from work_tokens at each claim and release.';
comment on column work.crashes is 'Leases that ended without a result. At the limit the work is given up.';
comment on column work.run_at is 'Not claimed before this time.';
comment on column work.lease_expires_at is 'End of the lease unless a heartbeat extends it; null while it waits.';
comment on column work.job_id is 'The job, for kind train.';

-- Checkpoints -------------------------------------------------------------------------------------

create table checkpoints (
    id uuid primary key,
    job_id uuid not null,
    token bigint not null,
    step bigint not null,
    epoch int not null,
    objects text not null,
    bytes bigint not null,
    manifest_sha256 text not null,
    metrics jsonb,
    best boolean not null,
    state text not null default 'committed',
    created_at timestamptz not null default now(),
    constraint checkpoints_job_fk foreign key (job_id) references jobs (id) on delete cascade,
    constraint checkpoints_attempt_fk
        foreign key (job_id, token) references attempts (job_id, token) on delete cascade,
    constraint checkpoints_objects_unique unique (objects),
    constraint checkpoints_step_unique unique (job_id, step, token),
    constraint checkpoints_step_range check (step >= 0),
    constraint checkpoints_state_known check (state in ('committed', 'bad', 'deleting'))
);
comment on table checkpoints is 'Committed under the lease, after their objects are complete.';
comment on column checkpoints.objects is 'Prefix in the object store: checkpoints/<job in hex>/<step>-<token>/.';
comment on column checkpoints.manifest_sha256 is 'SHA-256 of manifest.json, lower-case hex.';
comment on column checkpoints.best is 'True when it was the best checkpoint at the time it was saved.';
comment on column checkpoints.state is
    'bad: its objects no longer match the manifest. deleting: its objects are being removed.';

create function kept_checkpoints(job uuid) returns setof uuid language sql stable as $$
    (select id from checkpoints where job_id = job and state = 'committed' order by step desc, token desc limit 2)
    union select best_checkpoint from jobs where id = job and best_checkpoint is not null
$$;
comment on function kept_checkpoints is 'Checkpoints that a job cannot do without: the last two and the best. Others may be deleted.';

-- Events ------------------------------------------------------------------------------------------

create table job_events (
    job_id uuid not null,
    seq bigint not null,
    id uuid not null default gen_random_uuid(),
    created_at timestamptz not null default clock_timestamp(),
    token bigint,
    kind text not null,
    level text not null,
    message text not null,
    data jsonb not null default '{}',
    constraint job_events_pk primary key (job_id, seq),
    constraint job_events_id_unique unique (id),
    constraint job_events_job_fk foreign key (job_id) references jobs (id) on delete cascade,
    constraint job_events_level_known check (level in ('info', 'warn', 'error')),
    constraint job_events_kind_known check (kind in (
        'created', 'validated', 'queued', 'started', 'phase', 'evaluated', 'checkpoint', 'message', 'pause_requested',
        'paused', 'resumed', 'stop_requested', 'cancel_requested', 'requeued', 'succeeded', 'failed', 'cancelled'
    ))
);
create unique index job_events_one_end on job_events (job_id) where kind in ('succeeded', 'failed', 'cancelled');
create index job_events_moves on job_events (job_id, seq)
    where kind in ('created', 'started', 'phase', 'paused', 'resumed', 'stop_requested', 'requeued', 'succeeded', 'failed',
        'cancelled');
comment on table job_events is 'History of a job. Append only.';
comment on column job_events.seq is 'From 1, without gaps, in the order of commits: a stream resumes by it.';
comment on column job_events.token is 'The attempt that it belongs to; null when it belongs to none.';

-- Measurements: evaluations, samples, steps -------------------------------------------------------

create table job_evaluations (
    job_id uuid not null,
    step bigint not null,
    metrics jsonb not null,
    best boolean not null,
    constraint job_evaluations_pk primary key (job_id, step),
    constraint job_evaluations_job_fk foreign key (job_id) references jobs (id) on delete cascade
);
comment on table job_evaluations is 'One row per evaluation on the validation split.';
comment on column job_evaluations.metrics is 'domain::checkpoint::Metrics; without the metrics that the task does not have.';
comment on column job_evaluations.best is 'True when it was the best evaluation so far.';

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
comment on table job_samples is 'One row per domain::sample_report::SampleRecord. Written by the attempt that ends the job.';
comment on column job_samples.sample is 'Index through the training file, then the validation file, each sorted by path.';
comment on column job_samples.label is 'A class, a list of classes or a number, depending on the task; so is prediction.';
comment on column job_samples.probability is 'Calibrated probability of the predicted class; null when the task has no single one.';
comment on column job_samples.loss is 'In nats, or the regression loss on standardized targets.';
comment on column job_samples.margin is
    'Probability of the label minus the highest other one: -1 (certainly wrong) to 1 (certainly right).';

-- Steps are partitioned by the week in which their job was created, so that old ones are dropped
-- with their table instead of row by row (docs/adr/0008). A job id starts with its time of
-- creation: a range of ids is a period of time.
create table job_steps (
    job_id uuid not null,
    step bigint not null,
    epoch int not null,
    train_loss double precision,
    learning_rate double precision not null,
    samples_per_second double precision not null,
    constraint job_steps_pk primary key (job_id, step),
    constraint job_steps_job_fk foreign key (job_id) references jobs (id) on delete cascade
) partition by range (job_id);
comment on table job_steps is
    'One row per optimizer step; for a long job every k-th. A resumed attempt writes the same steps again.';

create table job_step_weeks (
    name text primary key,
    ends_at timestamptz not null,
    constraint job_step_weeks_ends_at_unique unique (ends_at)
);
comment on table job_step_weeks is 'Partitions of job_steps except the default one, each up to a Monday.';

create function first_job_id(since timestamptz) returns uuid language sql stable as $$
    select (lpad(to_hex(floor(extract(epoch from since) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;
comment on function first_job_id is
    'Lower bound of the ids of jobs created since then: an id (UUIDv7) starts with 48 bits of milliseconds since 1970.';

create function week_behind(moment timestamptz) returns timestamptz language sql stable as $$
    select date_trunc('week', moment, 'UTC') + interval '7 days'
$$;
comment on function week_behind is 'The Monday after a moment.';

create table job_steps_first partition of job_steps
    for values from (minvalue) to (first_job_id(week_behind(now())));
insert into job_step_weeks values ('job_steps_first', week_behind(now()));
-- Holds steps of jobs created by servers whose clock is ahead, until the partition of their week
-- exists.
create table job_steps_rest partition of job_steps default;

create function add_job_step_weeks(until timestamptz) returns void language plpgsql set lock_timeout = '2s' as $$
declare
    begins timestamptz;
    ends timestamptz;
    week text;
begin
    perform pg_advisory_xact_lock(hashtext('job_step_weeks'));
    loop
        select max(ends_at) into begins from job_step_weeks;
        exit when begins >= week_behind(until) + interval '7 days';
        ends := greatest(begins + interval '7 days', week_behind(now()));
        week := 'job_steps_' || to_char(begins at time zone 'UTC', 'IYYY_IW');
        execute format('create table %I (like job_steps including all)', week);
        execute format(
            'with early as (delete from job_steps_rest where job_id >= %1$L and job_id < %2$L returning *)
            insert into %3$I select * from early', first_job_id(begins), first_job_id(ends), week);
        execute format('alter table job_steps attach partition %I for values from (%L) to (%L)',
            week, first_job_id(begins), first_job_id(ends));
        insert into job_step_weeks values (week, ends);
    end loop;
end $$;
comment on function add_job_step_weeks is
    'Creates the partitions up to the week after `until`. Weeks in which it was never called share a partition with the next one.';

create function drop_job_step_weeks(age interval) returns bigint language plpgsql set lock_timeout = '2s' as $$
declare
    old record;
    dropped bigint := 0;
begin
    perform pg_advisory_xact_lock(hashtext('job_step_weeks'));
    for old in
        select name, ends_at from job_step_weeks
        -- The last partition stays: the next one begins where it ends.
        where ends_at < now() - age and ends_at < (select max(ends_at) from job_step_weeks) order by ends_at
    loop
        exit when exists (select from jobs where finished_at is null and id < first_job_id(old.ends_at));
        execute format('drop table %I', old.name);
        delete from job_step_weeks where name = old.name;
        dropped := dropped + 1;
    end loop;
    return dropped;
end $$;
comment on function drop_job_step_weeks is
    'Drops partitions older than `age`, unless a job of that time has not ended yet; returns how many.';

-- What the database enforces ----------------------------------------------------------------------

create function job_may_move(was text, becomes text) returns boolean language sql immutable as $$
    select (was, becomes) in (
        ('validating_files', 'queued'), ('validating_files', 'paused'), ('validating_files', 'failed'),
        ('validating_files', 'cancelled'),
        ('queued', 'running'), ('queued', 'paused'), ('queued', 'cancelled'),
        ('running', 'queued'), ('running', 'pausing'), ('running', 'succeeded'), ('running', 'failed'),
        ('running', 'cancelled'),
        ('pausing', 'running'), ('pausing', 'paused'), ('pausing', 'succeeded'), ('pausing', 'failed'),
        ('pausing', 'cancelled'),
        ('paused', 'validating_files'), ('paused', 'queued'), ('paused', 'cancelled')
    )
$$;
comment on function job_may_move is
    'Legal status changes: the same table as domain::job::JobStatus::next, which a test compares with it.';

create function guard_new_job() returns trigger language plpgsql as $$
begin
    if new.status not in ('validating_files', 'queued') then
        raise exception 'a job cannot begin as %', new.status
            using errcode = 'check_violation', constraint = 'jobs_begin_at_the_beginning';
    end if;
    return new;
end $$;
create trigger guard_new_job before insert on jobs for each row execute function guard_new_job();

create function guard_job() returns trigger language plpgsql as $$
begin
    if old.finished_at is not null then
        raise exception 'job % has ended as %: its row never changes again', old.id, old.status
            using errcode = 'check_violation', constraint = 'jobs_terminal_rows_never_change';
    end if;
    if new.status <> old.status and not job_may_move(old.status, new.status) then
        raise exception 'job % cannot go from % to %', old.id, old.status, new.status
            using errcode = 'check_violation', constraint = 'jobs_legal_moves';
    end if;
    if new.token < old.token then
        raise exception 'the token of job % would shrink', old.id
            using errcode = 'check_violation', constraint = 'jobs_token_never_shrinks';
    end if;
    new.version := old.version + 1;
    return new;
end $$;
create trigger guard_job before update on jobs for each row execute function guard_job();

create function guard_job_deletion() returns trigger language plpgsql as $$
begin
    if old.finished_at is null then
        raise exception 'job % has not ended: it is %', old.id, old.status
            using errcode = 'check_violation', constraint = 'jobs_only_ended_ones_go';
    end if;
    return old;
end $$;
create trigger guard_job_deletion before delete on jobs for each row execute function guard_job_deletion();

create function guard_event() returns trigger language plpgsql as $$
begin
    raise exception 'event % of job % is history: it never changes', old.seq, old.job_id
        using errcode = 'check_violation', constraint = 'job_events_never_change';
end $$;
create trigger guard_event before update on job_events for each row execute function guard_event();

-- Claim order -------------------------------------------------------------------------------------
--
-- The next job is the one with the lowest (turn, tenant_id) of tenant_turns and, of that tenant,
-- the lowest (priority, seq) of claimable_jobs. Claims and queue positions both read these views,
-- and a test compares them.

create view tenant_turns as
    select t.id as tenant_id, t.weight, not t.paused and t.running < t.max_running as open,
        greatest(t.vtime, (select max(busy.vtime - 1 / busy.weight) from tenants busy where busy.running > 0)) as turn
    from tenants t;
comment on view tenant_turns is
    'Start-time fair queueing. `turn` is the virtual time at which the next job of a tenant starts: its own, but not before the latest start among tenants with running jobs, so that a tenant that was idle does not catch up. Each start adds 1 / weight. Only `open` tenants may start a job now.';

create view claimable_jobs as
    select id, tenant_id, resource_class, device_mb, spec_version, priority, seq, run_at
    from jobs where status = 'queued' and run_at <= now();
comment on view claimable_jobs is 'Jobs that may be claimed now, as far as only they are concerned: queued, and not in a backoff.';

-- Retry policy ------------------------------------------------------------------------------------
--
-- The same rules as the tables "Retries" in docs/state-machine.md.

create function may_retry(job jobs, outcome text, retryable boolean, code text) returns boolean
    language sql immutable as $$
    select case outcome
        when 'yielded' then true
        -- One sample did not fit into memory: one retry, where more may be free, then the job is at
        -- fault.
        when 'failed' then retryable and job.failures
            < case when code = 'out_of_memory' then least(job.max_failures, 1) else job.max_failures end
        when 'crashed' then job.crashes < job.max_crashes
        when 'lost' then job.crashes < job.max_crashes
        else false
    end
$$;
comment on function may_retry is 'True when the job gets another attempt after one that ended like this.';

create function retry_delay(kind text, outcome text, earlier int) returns interval language sql as $$
    select case
        when kind = 'train' and outcome = 'failed' then (0.5 + random())
            * least(interval '1 hour', interval '10 seconds' * power(2, least(earlier, 20)))
        when kind = 'train' and outcome in ('crashed', 'lost') then (0.5 + random())
            * least(interval '1 hour', interval '5 seconds' * (power(2, least(earlier, 20)) - 1))
        when outcome = 'crashed' then interval '1 second'
        else interval '0'
    end
$$;
comment on function retry_delay is
    'Backoff before work is claimed again. `earlier` counts its earlier failures, or crashes, of the same kind.';

-- What the database announces ---------------------------------------------------------------------
--
-- rehead_work      a kind of work: there is something to claim
-- rehead_control   a job id: its user sent a control request while a worker holds it
-- rehead_file      a file id: its status changed
-- rehead_model     a model id: its status changed, or an export of it ended
--
-- Events do not notify: a commit that notifies waits for every other one that does (docs/adr/0009).

create function notify_job() returns trigger language plpgsql as $$
begin
    if new.status = 'queued' and (tg_op = 'INSERT' or old.status <> 'queued') then
        perform pg_notify('rehead_work', 'train');
    end if;
    if tg_op = 'UPDATE' then
        -- Its files may have been validated while it was paused.
        if new.status = 'validating_files' and old.status = 'paused' then
            perform pg_notify('rehead_work', 'validate');
        end if;
        if (new.cancel_requested_at is not null and old.cancel_requested_at is null)
            or (new.stop_requested_at is not null and old.stop_requested_at is null)
            or (new.status = 'pausing' and old.status <> 'pausing')
        then
            perform pg_notify('rehead_control', 'ftjob-' || replace(new.id::text, '-', ''));
        end if;
    end if;
    return null;
end $$;
create trigger notify_job_insert after insert on jobs for each row execute function notify_job();
create trigger notify_job_update after update of status, cancel_requested_at, stop_requested_at on jobs
    for each row execute function notify_job();

create function notify_work() returns trigger language plpgsql as $$
begin
    perform pg_notify('rehead_work', new.kind);
    return null;
end $$;
-- Heartbeats do not touch worker_id, and so never notify.
create trigger notify_work after insert or update of worker_id on work
    for each row when (new.worker_id is null) execute function notify_work();

create function notify_file() returns trigger language plpgsql as $$
begin
    perform pg_notify('rehead_file', 'file-' || replace(new.id::text, '-', ''));
    return null;
end $$;
create trigger notify_file after update of status on files
    for each row when (new.status <> 'uploaded') execute function notify_file();

create function notify_model() returns trigger language plpgsql as $$
begin
    perform pg_notify('rehead_model', new.id);
    return null;
end $$;
create trigger notify_model after update of status, export_failure on models
    for each row when (new.status <> 'importing') execute function notify_model();
