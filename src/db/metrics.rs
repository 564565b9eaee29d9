//! Measurements of training: one row per optimizer step and one per evaluation. Written by
//! `queue::record`.

use serde::Serialize;
use sqlx::{PgPool, types::Json};

use super::{convert, tenants::TenantId};
use crate::domain::{checkpoint::Metrics, id::JobId, progress::Step};

/// An evaluation on the validation split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Evaluation {
    pub metrics: Metrics,
    /// True when it was the best evaluation so far.
    pub best: bool,
}

/// Steps after `step` (0: all), in order, at most `limit`.
pub async fn steps_after(
    pool: &PgPool,
    tenant: TenantId,
    job: JobId,
    step: u64,
    limit: u32,
) -> sqlx::Result<Vec<Step>> {
    let steps = sqlx::query!(
        "select s.step, s.epoch, s.train_loss, s.learning_rate, s.samples_per_second
        from job_steps s join jobs j on j.id = s.job_id
        where s.job_id = $1 and j.tenant_id = $2 and s.step > $3 order by s.step limit $4",
        job.0,
        tenant.0,
        convert::from_count(step),
        i64::from(limit)
    )
    .map(|row| Step {
        step: convert::to_count(row.step),
        epoch: convert::to_small(row.epoch),
        train_loss: row.train_loss,
        learning_rate: row.learning_rate,
        samples_per_second: row.samples_per_second,
    });
    steps.fetch_all(pool).await
}

/// Evaluations of a job after `step`, in order; with `None` all, including the one of a probe at
/// step 0.
pub async fn evaluations_after(
    pool: &PgPool,
    tenant: TenantId,
    job: JobId,
    step: Option<u64>,
) -> sqlx::Result<Vec<Evaluation>> {
    let evaluations = sqlx::query!(
        r#"select e.metrics as "metrics: Json<Metrics>", e.best from job_evaluations e join jobs j on j.id = e.job_id
        where e.job_id = $1 and j.tenant_id = $2 and e.step > $3 order by e.step"#,
        job.0,
        tenant.0,
        step.map_or(-1, convert::from_count)
    )
    .map(|row| Evaluation {
        metrics: row.metrics.0,
        best: row.best,
    });
    evaluations.fetch_all(pool).await
}
