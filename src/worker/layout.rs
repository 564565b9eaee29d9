//! Lays out a job folder: the plan, and links to what it names.

use std::path::Path;

use super::{
    Worker,
    cache::{CacheError, Kind},
    checkpoints, parent,
    relay::Fault,
};
use crate::{
    db::queue::{Claimed, Pack},
    domain::work::{PLAN, PlanModel, TrainPlan},
    objects::ObjectError,
};

/// Fetches packs, weights and the checkpoint to go on from, and writes the plan. Answers the step it goes on from.
///
/// # Errors
/// A full disk, a damaged object, a lost lease.
pub(super) async fn lay_out(
    worker: &Worker,
    claimed: &Claimed,
    folder: &Path,
) -> Result<Option<u64>, Fault> {
    let pack = folder.join("pack.safetensors");
    link_pack(worker, &claimed.training, &pack).await?;
    let validation_pack = match &claimed.validation {
        Some(validation) => {
            let target = folder.join("validation.safetensors");
            link_pack(worker, validation, &target).await?;
            Some(target)
        }
        None => None,
    };
    let weights = folder.join("weights.safetensors");
    let base = &claimed.base_model;
    let key = format!("models/{}/model.safetensors", base.weights_sha256);
    worker
        .cache
        .link(
            &worker.objects,
            Kind::Weights,
            &base.weights_sha256,
            &key,
            &weights,
        )
        .await?;
    let over = parent::fetch(worker, claimed, folder).await?;
    let resumed = checkpoints::fetch_latest(worker, claimed, &folder.join("resume")).await?;

    let plan = TrainPlan {
        job: claimed.job,
        recipe: claimed.recipe.clone(),
        base_model: PlanModel {
            id: base.id.clone(),
            architecture: base.architecture.clone(),
            source_task: base.source_task.clone(),
            preprocessing: base.preprocessing.clone(),
            weights,
            weights_sha256: base.weights_sha256.clone(),
            over,
        },
        fine_tuned_model: claimed.result_model.clone(),
        pack,
        pack_sha256: claimed.training.sha256.clone(),
        validation_pack,
        validation_pack_sha256: claimed.validation.as_ref().map(|pack| pack.sha256.clone()),
        resume: resumed.map(|_| folder.join("resume")),
        micro_batch: claimed.micro_batch,
        cache: worker.cache.features(),
        device: worker.args.device.clone(),
        threads: worker.threads,
    };
    write_plan(folder, &plan).await?;
    Ok(resumed)
}

async fn link_pack(worker: &Worker, pack: &Pack, target: &Path) -> Result<(), CacheError> {
    let key = format!("files/{}/pack.safetensors", pack.file.0.simple());
    worker
        .cache
        .link(&worker.objects, Kind::Packs, &pack.sha256, &key, target)
        .await
}

/// Writes a child's plan into its folder.
pub(super) async fn write_plan(
    folder: &Path,
    plan: &impl serde::Serialize,
) -> Result<(), ObjectError> {
    let path = folder.join(PLAN);
    let text = serde_json::to_vec_pretty(plan).expect("a plan is plain data: this is a bug");
    tokio::fs::write(&path, text)
        .await
        .map_err(|source| ObjectError::of_file(&path, source))
}
