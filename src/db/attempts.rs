//! Attempts: one try of a job by one worker. Its number is the token of its claim.

use sqlx::{PgExecutor, PgPool, types::Json};
use time::OffsetDateTime;

use super::{convert, tenants::TenantId};
use crate::domain::{
    base_model::Layers,
    estimate::Measured,
    id::{JobId, WorkerId},
    progress::Usage,
    recipe::Recipe,
};

/// Attempts that a plan looks back on.
const MEASURED: i64 = 8;

/// One try of a job.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// From 1.
    pub number: i64,
    pub worker: WorkerId,
    pub host: Option<String>,
    /// There once the trainer is ready.
    pub device: Option<String>,
    pub threads: Option<u32>,
    /// Step of the checkpoint it went on from.
    pub resumed_step: Option<u64>,
    /// The last step that its trainer told of.
    pub reached_step: Option<u64>,
    /// Most memory of the trainer's process, where it was measured.
    pub peak_bytes: Option<u64>,
    pub started_at: OffsetDateTime,
    pub ended_at: Option<OffsetDateTime>,
    /// `yielded`, `succeeded`, `failed`, `crashed`, `cancelled`, or `lost` when its lease ran out.
    pub outcome: Option<String>,
    pub message: Option<String>,
    /// Of the trainer, where it ended by itself.
    pub exit_code: Option<i32>,
    /// What ended the trainer, such as `SIGKILL`.
    pub exit_signal: Option<String>,
    /// The last lines of the trainer's standard error.
    pub log_tail: Option<String>,
}

/// A job's attempts, oldest first.
pub async fn list(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    job: JobId,
) -> sqlx::Result<Vec<Attempt>> {
    let rows = sqlx::query!(
        "select a.token, a.worker_id, a.host, a.device, a.threads, a.resumed_step, a.reached_step, a.peak_bytes, a.started_at,
            a.ended_at, a.outcome, a.message, a.exit_code, a.exit_signal, a.log_tail
        from attempts a join jobs j on j.id = a.job_id
        where a.job_id = $1 and j.tenant_id = $2 order by a.token",
        job.0,
        tenant.0
    )
    .fetch_all(executor)
    .await?;
    let attempts = rows.into_iter().map(|row| Attempt {
        number: row.token,
        worker: WorkerId(row.worker_id),
        host: row.host,
        device: row.device,
        threads: row.threads.map(convert::to_small),
        resumed_step: row.resumed_step.map(convert::to_count),
        reached_step: row.reached_step.map(convert::to_count),
        peak_bytes: row.peak_bytes.map(convert::to_count),
        started_at: row.started_at,
        ended_at: row.ended_at,
        outcome: row.outcome,
        message: row.message,
        exit_code: row.exit_code,
        exit_signal: row.exit_signal,
        log_tail: row.log_tail,
    });
    Ok(attempts.collect())
}

/// What the last attempts that succeeded took, with what they did.
pub async fn measured(pool: &PgPool, tenant: TenantId) -> sqlx::Result<Vec<Measured>> {
    let rows = sqlx::query!(
        r#"select j.recipe as "recipe!: Json<Recipe>", m.layers as "layers!: Json<Layers>", a.peak_bytes,
            a.prepared_samples as "prepared_samples!", a.preparing_seconds as "preparing_seconds!",
            a.trained_samples as "trained_samples!", a.training_seconds as "training_seconds!"
        from jobs j
        join attempts a on a.job_id = j.id and a.token = j.token and a.training_seconds is not null
        join models m on m.tenant_id = j.tenant_id and m.id = j.model and m.layers is not null
        where j.tenant_id = $1 and j.status = 'succeeded' order by j.finished_at desc limit $2"#,
        tenant.0,
        MEASURED
    )
    .fetch_all(pool)
    .await?;
    let measured = rows.into_iter().map(|row| Measured {
        recipe: row.recipe.0,
        layers: row.layers.0,
        usage: Usage {
            peak_bytes: row.peak_bytes.map(convert::to_count),
            prepared_samples: convert::to_count(row.prepared_samples),
            preparing_seconds: row.preparing_seconds,
            trained_samples: convert::to_count(row.trained_samples),
            training_seconds: row.training_seconds,
        },
    });
    Ok(measured.collect())
}
