//! Attempts: one try of a job by one worker. Its number is the token of its claim.

use sqlx::PgPool;
use time::OffsetDateTime;

use super::{convert, tenants::TenantId};
use crate::domain::id::{JobId, WorkerId};

/// One try of a job.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// From 1.
    pub number: i64,
    pub worker: WorkerId,
    /// There once the trainer is ready.
    pub device: Option<String>,
    pub threads: Option<u32>,
    /// Step of the checkpoint it went on from.
    pub resumed_step: Option<u64>,
    pub started_at: OffsetDateTime,
    pub ended_at: Option<OffsetDateTime>,
    /// `yielded`, `succeeded`, `failed`, `crashed`, `cancelled`, or `lost` when its lease ran out.
    pub outcome: Option<String>,
    pub message: Option<String>,
    /// The last lines of the trainer's standard error, where it failed.
    pub log_tail: Option<String>,
}

/// A job's attempts, oldest first.
pub async fn list(pool: &PgPool, tenant: TenantId, job: JobId) -> sqlx::Result<Vec<Attempt>> {
    let rows = sqlx::query!(
        "select a.token, a.worker_id, a.device, a.threads, a.resumed_step, a.started_at, a.ended_at, a.outcome,
            a.message, a.log_tail
        from attempts a join jobs j on j.id = a.job_id
        where a.job_id = $1 and j.tenant_id = $2 order by a.token",
        job.0,
        tenant.0
    )
    .fetch_all(pool)
    .await?;
    let attempts = rows.into_iter().map(|row| Attempt {
        number: row.token,
        worker: WorkerId(row.worker_id),
        device: row.device,
        threads: row.threads.map(convert::to_small),
        resumed_step: row.resumed_step.map(convert::to_count),
        started_at: row.started_at,
        ended_at: row.ended_at,
        outcome: row.outcome,
        message: row.message,
        log_tail: row.log_tail,
    });
    Ok(attempts.collect())
}
