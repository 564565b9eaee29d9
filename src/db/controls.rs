//! What a user asks of a job that exists: cancel, pause, resume, stop. Each is one statement that moves the job and writes
//! the event; asked again, it changes nothing. What a worker has to do about it, it learns with its next heartbeat.

use sqlx::PgPool;

use super::{
    jobs::{self, Job},
    retry,
    tenants::TenantId,
};
use crate::domain::{
    id::JobId,
    job::{Control, JobStatus},
};

/// What became of a wish.
#[derive(Debug, Clone)]
pub enum Answer {
    /// It holds, or is on its way. Also when that was asked before.
    Accepted,
    /// The state of the job forbids it.
    Refused(Box<Job>),
    NotFound,
}

/// Asks a job for something.
pub async fn ask(
    pool: &PgPool,
    tenant: TenantId,
    id: JobId,
    control: Control,
) -> sqlx::Result<Answer> {
    let changed = retry(|| async {
        match control {
            Control::Cancel => cancel(pool, tenant, id).await,
            Control::Pause => pause(pool, tenant, id).await,
            Control::Resume => resume(pool, tenant, id).await,
            Control::Stop => stop(pool, tenant, id).await,
        }
    });
    if changed.await? {
        return Ok(Answer::Accepted);
    }
    Ok(match jobs::get(pool, tenant, id).await? {
        None => Answer::NotFound,
        Some(job) if holds(control, &job) => Answer::Accepted,
        Some(job) => Answer::Refused(Box::new(job)),
    })
}

/// Whether a job is already as its user wants it.
fn holds(control: Control, job: &Job) -> bool {
    if control == Control::Cancel {
        return job.status == JobStatus::Cancelled
            || (!job.status.is_terminal() && job.cancel_requested_at.is_some());
    }
    if job.status.is_terminal() || job.cancel_requested_at.is_some() {
        return false;
    }
    match control {
        Control::Pause => matches!(job.status, JobStatus::Pausing | JobStatus::Paused),
        Control::Stop => job.stop_requested_at.is_some(),
        Control::Cancel | Control::Resume => true,
    }
}

/// Ends a job that waits; flags one that a worker has.
async fn cancel(pool: &PgPool, tenant: TenantId, id: JobId) -> sqlx::Result<bool> {
    let changed = sqlx::query!(
        "with job as (
            update jobs set cancel_requested_at = now(), events = events + 1,
                status = case when status in ('running', 'pausing') then status else 'cancelled' end,
                finished_at = case when status in ('running', 'pausing') then null else now() end
            where id = $1 and tenant_id = $2 and finished_at is null and cancel_requested_at is null
            returning id, events, status
        )
        insert into job_events (job_id, seq, kind, level, message)
        select id, events, case when status = 'cancelled' then 'cancelled' else 'cancel_requested' end, 'info',
            case when status = 'cancelled' then 'the job is cancelled' else 'the job is asked to end without a result' end
        from job",
        id.0,
        tenant.0
    );
    Ok(changed.execute(pool).await?.rows_affected() > 0)
}

/// Takes a waiting job out of the line; asks the worker of a running one to save its state and let go.
async fn pause(pool: &PgPool, tenant: TenantId, id: JobId) -> sqlx::Result<bool> {
    let changed = sqlx::query!(
        "with job as (
            update jobs set status = case when status = 'running' then 'pausing' else 'paused' end, events = events + 1
            where id = $1 and tenant_id = $2 and status in ('validating_files', 'queued', 'running')
                and cancel_requested_at is null
            returning id, events, status
        )
        insert into job_events (job_id, seq, kind, level, message)
        select id, events, case when status = 'paused' then 'paused' else 'pause_requested' end, 'info',
            case when status = 'paused' then 'the job is paused' else 'the job is asked to save its state and pause' end
        from job",
        id.0,
        tenant.0
    );
    Ok(changed.execute(pool).await?.rows_affected() > 0)
}

/// Puts a paused job back in line. One that is still pausing runs on: if its trainer has stopped already, the end of the
/// attempt finds it `running`, and puts it back in line.
async fn resume(pool: &PgPool, tenant: TenantId, id: JobId) -> sqlx::Result<bool> {
    let changed = sqlx::query!(
        "with job as (
            update jobs set events = events + 1, run_at = now(), status = case
                when status = 'pausing' then 'running' when recipe is null then 'validating_files' else 'queued' end
            where id = $1 and tenant_id = $2 and status in ('pausing', 'paused') and cancel_requested_at is null
            returning id, events, status
        )
        insert into job_events (job_id, seq, kind, level, message, data)
        select id, events, 'resumed', 'info', case status
            when 'running' then 'the job goes on'
            when 'queued' then 'the job waits for a worker again'
            else 'the job waits again until its files are validated' end, jsonb_build_object('status', status)
        from job",
        id.0,
        tenant.0
    );
    Ok(changed.execute(pool).await?.rows_affected() > 0)
}

/// Asks for the best model so far, where something is trained: a step of an attempt that runs, or a checkpoint. A
/// paused job gets a worker for it.
async fn stop(pool: &PgPool, tenant: TenantId, id: JobId) -> sqlx::Result<bool> {
    let changed = sqlx::query!(
        "with job as (
            update jobs j set stop_requested_at = coalesce(stop_requested_at, now()), events = events + 1,
                run_at = case when status = 'paused' then now() else run_at end,
                status = case status when 'pausing' then 'running' when 'paused' then 'queued' else status end
            where id = $1 and tenant_id = $2 and cancel_requested_at is null and recipe is not null
                and (stop_requested_at is null and status in ('queued', 'running') or status in ('pausing', 'paused'))
                and (status in ('running', 'pausing') and step > 0
                    or exists (select from checkpoints c where c.job_id = j.id and c.state = 'committed'))
            returning id, events, status
        )
        insert into job_events (job_id, seq, kind, level, message, data)
        select id, events, 'stop_requested', 'info', 'the job is asked to train no further and keep its best model',
            jsonb_build_object('status', status)
        from job",
        id.0,
        tenant.0
    );
    Ok(changed.execute(pool).await?.rows_affected() > 0)
}
