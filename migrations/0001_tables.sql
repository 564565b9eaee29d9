-- Every table of Rehead. Rows are written by plain statements in src/db; what stands here holds for all of them:
-- legal moves of a job, one owner for each running job, notifications that nobody can forget to send.

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
comment on table tenants is 'Who owns rows. Every row of the API belongs to one tenant.';
comment on column tenants.max_running is 'Jobs that may run at once.';
comment on column tenants.max_queued is 'Jobs that may wait at once; one more is refused.';
comment on column tenants.running is 'Leases of this tenant; changes in the statements that make and delete leases.';
comment on column tenants.weight is 'Share of the workers, against other tenants.';
comment on column tenants.vtime is 'Jobs started so far, divided by weight: the tenant with the least goes first.';
comment on column tenants.paused is 'Whether claims pass this tenant by.';
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
comment on column api_keys.prefix is 'The public part of the key, by which it is found.';
comment on column api_keys.sha256 is 'SHA-256 of the whole key, a random one of 256 bits.';

create table workers (
    id uuid primary key,
    host text not null,
    pid bigint not null,
    version text not null,
    device text not null,
    state text not null default 'active',
    started_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    constraint workers_state_known check (state in ('active', 'draining', 'stopped'))
);
comment on table workers is 'For people to look at. No lease depends on these rows.';
comment on column workers.id is 'One for each process start, so that a restarted worker is never taken for the dead one.';

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
    token bigint not null default 0,
    attempts int not null default 0,
    worker_id uuid,
    lease_expires_at timestamptz,
    created_at timestamptz not null default now(),
    constraint files_tenant_fk foreign key (tenant_id) references tenants (id),
    constraint files_purpose_known check (purpose in ('fine-tune', 'weights')),
    constraint files_status_known check (status in ('uploaded', 'processed', 'error')),
    constraint files_bytes_range check (bytes >= 0),
    constraint files_leased_only_while_uploaded check (lease_expires_at is null or status = 'uploaded'),
    constraint files_processed_dataset_has_pack
        check (not (purpose = 'fine-tune' and status = 'processed') or (dataset is not null and pack_sha256 is not null))
);
create index files_list on files (tenant_id, id desc);
create index files_claim on files (created_at) where status = 'uploaded';
comment on table files is 'Uploads. The bytes are at files/<id in hex>/content in the object store.';
comment on column files.sha256 is 'Of the upload, lower-case hex.';
comment on column files.dataset is 'domain::file::Dataset, once validated.';
comment on column files.report is 'domain::file::FileReport, once validated.';
comment on column files.pack_sha256 is 'Of files/<id in hex>/pack.safetensors, lower-case hex.';
comment on column files.token is 'Grows by one at each claim for validation; a writer with an older one is refused.';
comment on column files.attempts is 'Claims that ended without a word. At the limit the file is in error.';
comment on column files.lease_expires_at is 'Until when the present claim holds.';

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
    preprocessing jsonb,
    layers jsonb,
    parameters bigint,
    weights_sha256 text,
    objects text,
    weights_file uuid,
    parent text,
    job_id uuid,
    labels jsonb,
    metrics jsonb,
    report jsonb,
    problems jsonb,
    token bigint not null default 0,
    attempts int not null default 0,
    worker_id uuid,
    lease_expires_at timestamptz,
    created_at timestamptz not null default now(),
    constraint models_pk primary key (tenant_id, id),
    constraint models_tenant_fk foreign key (tenant_id) references tenants (id),
    constraint models_kind_known check (kind in ('base', 'fine_tuned')),
    constraint models_status_known check (status in ('importing', 'ready', 'error')),
    constraint models_ready_is_complete check (
        status <> 'ready'
        or (preprocessing is not null and layers is not null and parameters is not null and objects is not null)
    ),
    constraint models_base_has_weights check (kind <> 'base' or status <> 'ready' or weights_sha256 is not null),
    constraint models_fine_tuned_has_origin check (
        kind <> 'fine_tuned'
        or (parent is not null and job_id is not null and labels is not null and metrics is not null and report is not null)
    ),
    constraint models_leased_only_while_importing check (lease_expires_at is null or status = 'importing'),
    constraint models_error_has_problems check ((status = 'error') = (problems is not null))
);
create sequence import_tokens;
create index models_list on models (tenant_id, created_at, id);
create index models_claim on models (created_at) where status = 'importing';
create unique index models_job on models (job_id) where job_id is not null;
comment on table models is 'Base models (registered) and fine-tuned ones (made by a job).';
comment on column models.source_task is 'domain::base_model::SourceTask.';
comment on column models.requested_preprocessing is 'What the registration asked for; the architecture''s own when null.';
comment on column models.preprocessing is 'domain::base_model::Preprocessing.';
comment on column models.layers is 'domain::base_model::Layers.';
comment on column models.parameters is 'Trainable numbers.';
comment on column models.weights_sha256 is 'Of model.safetensors, lower-case hex.';
comment on column models.objects is 'Prefix in the object store: models/<sha256>/ or bundles/<job in hex>/<token>/.';
comment on column models.weights_file is 'The upload a base model is imported from.';
comment on column models.parent is 'The base model that a fine-tuned one started from.';
comment on column models.labels is 'Class names in label order.';
comment on column models.metrics is 'domain::checkpoint::Metrics of the checkpoint it was made from.';
comment on column models.report is 'domain::report::Report.';
comment on column models.problems is 'Why an import was refused: a list of domain::problem::Problem.';
comment on column models.token is 'From import_tokens at each claim: new even for an id that is registered again. A writer with an older one is refused.';

create table jobs (
    id uuid primary key,
    seq bigint generated always as identity,
    tenant_id bigint not null,
    status text not null,
    phase text not null default 'waiting',
    priority smallint not null default 2,
    resource_class text not null default 'default',
    device_mb int not null default 0,
    run_at timestamptz not null default now(),
    idempotency_key text,
    body_sha256 bytea,
    model text not null,
    training_file uuid not null,
    validation_file uuid,
    result_model text not null,
    fine_tuned_model text,
    seed bigint not null,
    timeout_seconds bigint not null,
    metadata jsonb not null,
    request jsonb not null,
    recipe jsonb,
    resolved jsonb not null default '[]',
    token bigint not null default 0,
    failures int not null default 0,
    max_failures int not null default 3,
    crashes int not null default 0,
    max_crashes int not null default 3,
    preemptions int not null default 0,
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
    events bigint not null default 0,
    version bigint not null default 0,
    error_code text,
    error_message text,
    error_param text,
    cancel_requested_at timestamptz,
    created_at timestamptz not null default now(),
    started_at timestamptz,
    finished_at timestamptz,
    constraint jobs_tenant_fk foreign key (tenant_id) references tenants (id),
    constraint jobs_idempotency_key_unique unique (tenant_id, idempotency_key),
    constraint jobs_result_model_unique unique (tenant_id, result_model),
    constraint jobs_idempotency_key_length check (char_length(idempotency_key) between 1 and 255),
    constraint jobs_idempotency_key_with_body check ((idempotency_key is null) = (body_sha256 is null)),
    constraint jobs_status_known
        check (status in ('validating_files', 'queued', 'running', 'succeeded', 'failed', 'cancelled')),
    constraint jobs_phase_known
        check (phase in ('waiting', 'preparing', 'caching_features', 'training', 'evaluating', 'exporting')),
    constraint jobs_priority_range check (priority between 0 and 4),
    constraint jobs_device_mb_range check (device_mb >= 0),
    constraint jobs_timeout_range check (timeout_seconds > 0),
    constraint jobs_final_iff_finished
        check ((status in ('succeeded', 'failed', 'cancelled')) = (finished_at is not null)),
    constraint jobs_failed_iff_error check ((status = 'failed') = (error_code is not null)),
    constraint jobs_succeeded_iff_model check ((status = 'succeeded') = (fine_tuned_model is not null)),
    constraint jobs_settled_before_queued check (status not in ('queued', 'running', 'succeeded') or recipe is not null),
    constraint jobs_started_before_running check (status not in ('running', 'succeeded') or started_at is not null),
    constraint jobs_fraction_range check (fraction between 0 and 1)
) with (fillfactor = 85);
create index jobs_claim on jobs (tenant_id, resource_class, priority, seq) where status = 'queued';
create index jobs_validating on jobs (training_file) where status = 'validating_files';
create index jobs_live on jobs (tenant_id, status) where finished_at is null;
create index jobs_list on jobs (tenant_id, id desc);
create index jobs_finished on jobs (finished_at desc) where status = 'succeeded';
comment on table jobs is 'Fine-tuning jobs. A running job has exactly one row in job_leases.';
comment on column jobs.seq is 'Order of arrival.';
comment on column jobs.resource_class is 'Which workers may take it.';
comment on column jobs.device_mb is 'Device memory it needs, in MiB.';
comment on column jobs.run_at is 'Not claimed before; later after each failure.';
comment on column jobs.body_sha256 is 'Of the request body that the idempotency key came with.';
comment on column jobs.result_model is 'The name its model will have.';
comment on column jobs.fine_tuned_model is 'The same name, once that model exists.';
comment on column jobs.seed is 'The 64 bits of an unsigned number.';
comment on column jobs.request is 'domain::request::JobRequest.';
comment on column jobs.recipe is 'domain::recipe::Recipe; null until the files are validated.';
comment on column jobs.resolved is 'List of domain::recipe::Resolved.';
comment on column jobs.token is 'Grows by one at each claim, never shrinks: the fencing token, and the number of the attempt.';
comment on column jobs.failures is 'Attempts that the trainer ended with an error that may pass.';
comment on column jobs.crashes is 'Attempts whose trainer or worker vanished.';
comment on column jobs.preemptions is 'Attempts handed back with their state saved. Without a limit.';
comment on column jobs.fraction is 'Share of the present phase that is done.';
comment on column jobs.metrics is 'domain::checkpoint::Metrics of the best evaluation so far.';
comment on column jobs.events is 'Events written so far: their seq runs from 1 without gaps, in the order of commits.';
comment on column jobs.version is 'Grows at every change of the row: an entity tag.';

create table job_leases (
    job_id uuid primary key,
    token bigint not null,
    tenant_id bigint not null,
    worker_id uuid not null,
    expires_at timestamptz not null,
    constraint job_leases_job_fk foreign key (job_id) references jobs (id),
    constraint job_leases_tenant_fk foreign key (tenant_id) references tenants (id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 200);
comment on table job_leases is
    'The one owner mark: whoever deletes the row ends the attempt, once. Narrow, so that heartbeats rewrite little.';

create table attempts (
    job_id uuid not null,
    token bigint not null,
    worker_id uuid not null,
    device text,
    threads int,
    resumed_step bigint,
    started_at timestamptz not null default now(),
    ended_at timestamptz,
    outcome text,
    message text,
    log_tail text,
    constraint attempts_pk primary key (job_id, token),
    constraint attempts_job_fk foreign key (job_id) references jobs (id),
    constraint attempts_outcome_known
        check (outcome in ('yielded', 'succeeded', 'failed', 'crashed', 'cancelled', 'lost')),
    constraint attempts_ended_iff_outcome check ((ended_at is null) = (outcome is null))
);
comment on table attempts is 'One try of a job by one worker. Its number is the token.';
comment on column attempts.resumed_step is 'Step of the checkpoint it went on from.';
comment on column attempts.outcome is 'lost: its lease ran out.';
comment on column attempts.log_tail is 'The last lines of the trainer''s standard error, where it failed.';

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
    constraint checkpoints_job_fk foreign key (job_id) references jobs (id),
    constraint checkpoints_objects_unique unique (objects),
    constraint checkpoints_step_unique unique (job_id, step, token),
    constraint checkpoints_step_range check (step >= 0),
    constraint checkpoints_state_known check (state in ('committed', 'bad', 'deleting'))
);
comment on table checkpoints is 'Committed under the lease, after their objects are complete.';
comment on column checkpoints.objects is 'Prefix in the object store: checkpoints/<job in hex>/<step>-<token>/.';
comment on column checkpoints.manifest_sha256 is 'Of manifest.json, lower-case hex.';
comment on column checkpoints.best is 'Whether it was the best when it was saved.';
comment on column checkpoints.state is 'bad: its objects no longer match the manifest. deleting: its objects are going.';

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
    constraint job_events_job_fk foreign key (job_id) references jobs (id),
    constraint job_events_level_known check (level in ('info', 'warn', 'error')),
    constraint job_events_kind_known check (kind in (
        'created', 'validated', 'queued', 'started', 'phase', 'evaluated', 'checkpoint', 'message',
        'cancel_requested', 'requeued', 'succeeded', 'failed', 'cancelled'
    ))
);
create unique index job_events_one_end on job_events (job_id) where kind in ('succeeded', 'failed', 'cancelled');
comment on table job_events is 'A job''s history. Append only.';
comment on column job_events.seq is 'From 1, without gaps, in the order of commits: a stream resumes by it.';
comment on column job_events.token is 'The attempt that it is about; null where it is about none.';

create table job_steps (
    job_id uuid not null,
    step bigint not null,
    epoch int not null,
    train_loss double precision,
    learning_rate double precision not null,
    samples_per_second double precision not null,
    constraint job_steps_pk primary key (job_id, step),
    constraint job_steps_job_fk foreign key (job_id) references jobs (id)
);
comment on table job_steps is 'One row for each optimizer step. A resumed attempt writes the same steps again.';

create table job_evaluations (
    job_id uuid not null,
    step bigint not null,
    epoch int not null,
    train_loss double precision,
    valid_loss double precision not null,
    valid_accuracy double precision not null,
    valid_balanced_accuracy double precision not null,
    best boolean not null,
    constraint job_evaluations_pk primary key (job_id, step),
    constraint job_evaluations_job_fk foreign key (job_id) references jobs (id)
);
comment on table job_evaluations is 'One row for each evaluation on the validation split: domain::checkpoint::Metrics.';

-- The same table as domain::job::JobStatus::next; tests/it/queue.rs compares them.
create function job_may_move(was text, becomes text) returns boolean language sql immutable as $$
    select (was, becomes) in (
        ('validating_files', 'queued'), ('validating_files', 'failed'), ('validating_files', 'cancelled'),
        ('queued', 'running'), ('queued', 'cancelled'),
        ('running', 'queued'), ('running', 'succeeded'), ('running', 'failed'), ('running', 'cancelled')
    )
$$;

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

-- Notifications: rehead_work (job, file, import: something to claim), rehead_job (a job's id: it has new events),
-- rehead_cancel (a job's id), rehead_file and rehead_model (an id: its status changed).
create function notify_job() returns trigger language plpgsql as $$
begin
    if new.status = 'queued' and (tg_op = 'INSERT' or old.status <> 'queued') then
        perform pg_notify('rehead_work', 'job');
    end if;
    if tg_op = 'UPDATE' and new.cancel_requested_at is not null and old.cancel_requested_at is null then
        perform pg_notify('rehead_cancel', 'ftjob-' || replace(new.id::text, '-', ''));
    end if;
    return null;
end $$;
create trigger notify_job_insert after insert on jobs for each row execute function notify_job();
create trigger notify_job_update after update of status, cancel_requested_at on jobs
    for each row execute function notify_job();

create function notify_job_event() returns trigger language plpgsql as $$
begin
    perform pg_notify('rehead_job', 'ftjob-' || replace(new.job_id::text, '-', ''));
    return null;
end $$;
create trigger notify_job_event after insert on job_events for each row execute function notify_job_event();

create function notify_file() returns trigger language plpgsql as $$
begin
    if new.status = 'uploaded' then
        if tg_op = 'INSERT' or (old.lease_expires_at is not null and new.lease_expires_at is null) then
            perform pg_notify('rehead_work', 'file');
        end if;
    elsif tg_op = 'UPDATE' then
        perform pg_notify('rehead_file', 'file-' || replace(new.id::text, '-', ''));
    end if;
    return null;
end $$;
create trigger notify_file after insert or update of status, lease_expires_at on files
    for each row execute function notify_file();

create function notify_model() returns trigger language plpgsql as $$
begin
    if new.status = 'importing' then
        if tg_op = 'INSERT' or old.status <> 'importing'
            or (old.lease_expires_at is not null and new.lease_expires_at is null)
        then
            perform pg_notify('rehead_work', 'import');
        end if;
    elsif tg_op = 'UPDATE' then
        perform pg_notify('rehead_model', new.id);
    end if;
    return null;
end $$;
create trigger notify_model after insert or update of status, lease_expires_at on models
    for each row execute function notify_model();
