//! Control requests: cancel, pause, resume, stop. Each is one statement that changes the job and
//! writes the event; repeated, it changes nothing. The worker that holds the job sees the request
//! with its next heartbeat.

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

/// The result of a control request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The job is in the requested state, or on its way there. A repeated request is accepted too.
    Accepted,
    /// The state of the job does not allow it.
    Refused(Box<Job>),
    NotFound,
}

/// Makes a control request.
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
        Some(job) if is_fulfilled(control, &job) => Answer::Accepted,
        Some(job) => Answer::Refused(Box::new(job)),
    })
}

/// True when the request has already been carried out or recorded.
fn is_fulfilled(control: Control, job: &Job) -> bool {
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

/// Ends a waiting job; flags a running one.
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

/// Takes a waiting job out of the queue; asks the worker of a running one to save its state and
/// release it.
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

/// Puts a paused job back into the queue. One that is still pausing continues: if its trainer has
/// stopped already, the end of the attempt finds it `running` and requeues it.
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
            when 'running' then 'the job continues'
            when 'queued' then 'the job waits for a worker again'
            else 'the job waits again until its files are validated' end, jsonb_build_object('status', status)
        from job",
        id.0,
        tenant.0
    );
    Ok(changed.execute(pool).await?.rows_affected() > 0)
}

/// Stops training early, if there is anything to keep: a step of the running attempt or a
/// checkpoint. A paused job is queued again, since a worker must export the model.
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
