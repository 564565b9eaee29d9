//! What training measured: a row for each optimizer step, and one for each evaluation. Written by `queue::record`.

use sqlx::PgPool;

use super::{convert, tenants::TenantId};
use crate::domain::{checkpoint::Metrics, id::JobId, progress::Step};

/// An evaluation, and whether it was the best when it was made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    pub metrics: Metrics,
    pub best: bool,
}

/// Steps behind `step` (0: all), in order, at most `limit`.
pub async fn steps_after(
    pool: &PgPool,
    tenant: TenantId,
    job: JobId,
    step: u64,
    limit: u32,
) -> sqlx::Result<Vec<Step>> {
    let rows = sqlx::query!(
        "select s.step, s.epoch, s.train_loss, s.learning_rate, s.samples_per_second
        from job_steps s join jobs j on j.id = s.job_id
        where s.job_id = $1 and j.tenant_id = $2 and s.step > $3 order by s.step limit $4",
        job.0,
        tenant.0,
        convert::from_count(step),
        i64::from(limit)
    )
    .fetch_all(pool)
    .await?;
    let steps = rows.into_iter().map(|row| Step {
        step: convert::to_count(row.step),
        epoch: convert::to_small(row.epoch),
        train_loss: row.train_loss,
        learning_rate: row.learning_rate,
        samples_per_second: row.samples_per_second,
    });
    Ok(steps.collect())
}

/// Every evaluation of a job behind `step`, in order; all with `None`, a probe's at step 0 included.
pub async fn evaluations_after(
    pool: &PgPool,
    tenant: TenantId,
    job: JobId,
    step: Option<u64>,
) -> sqlx::Result<Vec<Evaluation>> {
    let rows = sqlx::query!(
        "select e.step, e.epoch, e.train_loss, e.valid_loss, e.valid_accuracy, e.valid_balanced_accuracy,
            e.valid_macro_f1, e.valid_micro_f1, e.valid_mean_average_precision, e.valid_roc_auc, e.valid_r2, e.valid_mae,
            e.valid_rmse, e.best
        from job_evaluations e join jobs j on j.id = e.job_id
        where e.job_id = $1 and j.tenant_id = $2 and e.step > $3 order by e.step",
        job.0,
        tenant.0,
        step.map_or(-1, convert::from_count)
    )
    .fetch_all(pool)
    .await?;
    let evaluations = rows.into_iter().map(|row| Evaluation {
        metrics: Metrics {
            step: convert::to_count(row.step),
            epoch: convert::to_small(row.epoch),
            train_loss: row.train_loss,
            valid_loss: row.valid_loss,
            valid_accuracy: row.valid_accuracy,
            valid_balanced_accuracy: row.valid_balanced_accuracy,
            valid_macro_f1: row.valid_macro_f1,
            valid_micro_f1: row.valid_micro_f1,
            valid_mean_average_precision: row.valid_mean_average_precision,
            valid_roc_auc: row.valid_roc_auc,
            valid_r2: row.valid_r2,
            valid_mae: row.valid_mae,
            valid_rmse: row.valid_rmse,
        },
        best: row.best,
    });
    Ok(evaluations.collect())
}
