//! Resolves jobs that waited in `validating_files`, once the validation of their data sets has
//! ended: each is queued, or fails with the problems that admission would have answered.

use sqlx::PgPool;

use super::data_sets::DataSets;
use crate::{
    db::{
        self,
        jobs::{WaitingJob, waiting_for_files},
    },
    domain::{
        problem::Problem,
        resolve::{Resolution, Start},
    },
};

/// Jobs resolved by one call.
const AT_ONCE: u32 = 100;

/// Queues or fails the jobs whose data sets are validated. To be called after each validation and
/// now and then, so that a worker that dies in between leaves no job behind.
///
/// # Errors
/// The database's.
pub async fn resolve_waiting(pool: &PgPool) -> sqlx::Result<()> {
    for job in waiting_for_files(pool, AT_ONCE).await? {
        let Some(outcome) = resolve(pool, &job).await?.transpose() else {
            continue;
        };
        let status = db::jobs::resolve(pool, job.id, &outcome).await?;
        let status = status.map_or("deleted", |status| status.as_str());
        tracing::info!(job.id = %job.id, "data sets validated: the job is now {status}");
    }
    Ok(())
}

async fn resolve(
    pool: &PgPool,
    job: &WaitingJob,
) -> sqlx::Result<Result<Option<Resolution>, Vec<Problem>>> {
    let mut problems = Vec::new();
    let layers = db::models::layers(pool, job.tenant, &job.model).await?;
    if layers.is_none() {
        let message = format!("there is no model `{}` any more", job.model);
        problems.push(Problem::new("model", "unknown_model", message));
    }
    let data_sets = DataSets::find(pool, job.tenant, &job.request, &mut problems).await?;
    Ok(match (layers, data_sets) {
        (Some(layers), Some(data_sets)) => {
            let (layers, parent) = (&layers, job.parent.as_ref());
            data_sets.resolve(&job.request, Start { layers, parent }, job.seed)
        }
        _ => Err(problems),
    })
}
