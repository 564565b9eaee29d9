//! Resolves jobs that waited in `validating_files`, once the validation of their data sets has
//! ended: each is queued, or fails with the problems that admission would have answered.

use sqlx::PgPool;

use super::{
    choose::{Choice, choose},
    data_sets::DataSets,
};
use crate::{
    db::{
        self,
        jobs::{WaitingJob, waiting_for_files},
    },
    domain::{
        problem::Problem,
        recipe::Resolved,
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
    for mut job in waiting_for_files(pool, AT_ONCE).await? {
        let Some(outcome) = resolve(pool, &mut job).await?.transpose() else {
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
    job: &mut WaitingJob,
) -> sqlx::Result<Result<Option<Resolution>, Vec<Problem>>> {
    let mut problems = Vec::new();
    let data_sets = DataSets::find(pool, job.tenant, &job.request, &mut problems).await?;
    if job.model.is_none() {
        let Some(data_sets) = &data_sets else {
            return Ok(Err(problems));
        };
        let Some(dataset) = &data_sets.training.dataset else {
            return Ok(Ok(None));
        };
        match choose(pool, job, (data_sets, dataset)).await? {
            Ok(Some(choice)) => take(job, choice),
            Ok(None) => return Ok(Ok(None)),
            Err(problems) => return Ok(Err(problems)),
        }
    }
    let model = &job.request.model;
    let layers = match &job.model {
        Some(model) => db::models::layers(pool, job.tenant, model).await?,
        None => None,
    };
    if layers.is_none() {
        let message = format!("there is no model `{model}` any more");
        problems.insert(0, Problem::new("model", "unknown_model", message));
    }
    Ok(match (layers, data_sets) {
        (Some(layers), Some(data_sets)) => {
            let (layers, parent) = (&layers, job.parent.as_ref());
            let resolution = data_sets.resolve(&job.request, Start { layers, parent }, job.seed);
            let reason = job.model_reason.as_deref();
            resolution.map(|resolution| Some(with_model(resolution?, model, reason)))
        }
        _ => Err(problems),
    })
}

/// Gives a job the model that was chosen for it.
fn take(job: &mut WaitingJob, choice: Choice) {
    let Choice { model, reason } = choice;
    job.request.model.clone_from(&model);
    job.model = Some(model);
    job.model_reason = Some(reason);
}

/// Adds the choice of the model to what was resolved, where it was chosen.
pub(crate) fn with_model(
    mut resolution: Resolution,
    model: &str,
    reason: Option<&str>,
) -> Resolution {
    if let Some(reason) = reason {
        resolution.resolved.push(Resolved {
            option: "model".to_owned(),
            value: model.into(),
            reason: reason.to_owned(),
        });
    }
    resolution
}
