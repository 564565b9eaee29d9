-- Pausing, and stopping with what there is. The legal moves stand in job_may_move, as in domain::job::JobStatus::next.

alter table jobs
    add column stop_requested_at timestamptz,
    drop constraint jobs_status_known,
    add constraint jobs_status_known check (status in (
        'validating_files', 'queued', 'running', 'pausing', 'paused', 'succeeded', 'failed', 'cancelled'
    )),
    drop constraint jobs_settled_before_queued,
    add constraint jobs_settled_before_queued
        check (status not in ('queued', 'running', 'pausing', 'succeeded') or recipe is not null),
    drop constraint jobs_started_before_running,
    add constraint jobs_started_before_running
        check (status not in ('running', 'pausing', 'succeeded') or started_at is not null);
comment on table jobs is 'Fine-tuning jobs. A running or pausing job has exactly one row in job_leases.';
comment on column jobs.stop_requested_at is
    'When its user asked to train no further and keep the best so far. Holds for every later attempt.';
comment on column jobs.timeout_seconds is 'For all its attempts together; waiting and pauses do not count.';
comment on column jobs.preemptions is 'Attempts handed back with their state saved, pauses apart. Without a limit.';
comment on column tenants.max_queued is 'Jobs that may wait at once, for a worker or for their user; one more is refused.';

alter table job_events
    drop constraint job_events_kind_known,
    add constraint job_events_kind_known check (kind in (
        'created', 'validated', 'queued', 'started', 'phase', 'evaluated', 'checkpoint', 'message', 'pause_requested',
        'paused', 'resumed', 'stop_requested', 'cancel_requested', 'requeued', 'succeeded', 'failed', 'cancelled'
    ));
create index job_events_moves on job_events (job_id, seq)
    where kind in ('created', 'started', 'phase', 'paused', 'resumed', 'stop_requested', 'requeued', 'succeeded', 'failed',
        'cancelled');

create or replace function job_may_move(was text, becomes text) returns boolean language sql immutable as $$
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

-- rehead_control (a job's id) takes the place of rehead_cancel: its user asked a job that a worker has for something.
create or replace function notify_job() returns trigger language plpgsql as $$
begin
    if new.status = 'queued' and (tg_op = 'INSERT' or old.status <> 'queued') then
        perform pg_notify('rehead_work', 'job');
    end if;
    if tg_op = 'UPDATE' then
        -- Its files may have been validated meanwhile.
        if new.status = 'validating_files' and old.status = 'paused' then
            perform pg_notify('rehead_work', 'file');
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
drop trigger notify_job_update on jobs;
create trigger notify_job_update after update of status, cancel_requested_at, stop_requested_at on jobs
    for each row execute function notify_job();
