//! Lays out the inputs of a job: the plan, and links to the files that it names.

use std::path::Path;

use super::{
    cache::{Cache, FEATURES, Kind},
    checkpoints,
    context::Worker,
    fault::Fault,
    files::give,
    parent,
    slot::Slot,
};
use crate::{
    db::queue::{Claimed, Pack},
    domain::work::{PLAN, TrainPlan},
    objects::{At, ObjectError},
    sandbox::{Home, WORK},
};

/// Fetches packs, weights and the checkpoint to resume from, and writes the plan. Returns the step
/// of that checkpoint.
///
/// # Errors
/// A full disk, a damaged object, a lost lease.
pub(super) async fn lay_out(
    worker: &Worker,
    slot: &Slot,
    claimed: &Claimed,
    home: &Home,
) -> Result<Option<u64>, Fault> {
    let Worker {
        pool,
        objects,
        cache,
        ..
    } = worker;
    let folder = &home.inputs();
    let named = |path: &Path| home.seen(path);
    let pack = folder.join("pack.safetensors");
    link_pack(cache, &claimed.training, &pack).await?;
    let validation_pack = match &claimed.validation {
        Some(validation) => {
            let target = folder.join("validation.safetensors");
            link_pack(cache, validation, &target).await?;
            Some(target)
        }
        None => None,
    };
    let weights = folder.join("weights.safetensors");
    let base = &claimed.base_model;
    let object = base.weights();
    cache.link(Kind::Weights, &object, &weights).await?;
    let mut over = parent::fetch(objects, cache, claimed, folder).await?;
    for parent in &mut over {
        parent.weights = named(&parent.weights);
    }
    let resume = folder.join("resume");
    let resumed = checkpoints::fetch_latest(pool, objects, claimed, &resume).await?;

    let plan = TrainPlan {
        job: claimed.job,
        recipe: claimed.recipe.clone(),
        base_model: base.plan(named(&weights), over),
        fine_tuned_model: claimed.result_model.clone(),
        pack: named(&pack),
        pack_sha256: claimed.training.sha256.clone(),
        validation_pack: validation_pack.as_deref().map(named),
        validation_pack_sha256: claimed.validation.as_ref().map(|pack| pack.sha256.clone()),
        resume: resumed.map(|_| named(&resume)),
        micro_batch: claimed.micro_batch,
        cache: Path::new(WORK).join(FEATURES),
        device: slot.device.clone(),
        threads: worker.threads,
    };
    write_plan(folder, &plan).await?;
    give(&worker.sandbox, folder).await?;
    Ok(resumed)
}

/// Moves what was laid out into the home of the trainer that was started for it, and opens its
/// features there.
///
/// # Errors
/// A full disk.
pub(super) fn move_in(
    worker: &Worker,
    claimed: &Claimed,
    inputs: &Home,
    home: &Home,
) -> Result<(), ObjectError> {
    std::fs::rename(inputs.inputs(), home.inputs()).at(home.path())?;
    let plan = home.inputs().join(PLAN);
    std::fs::rename(&plan, home.work().join(PLAN)).at(&plan)?;
    worker.cache.open_features(claimed.into(), home)
}

async fn link_pack(cache: &Cache, pack: &Pack, target: &Path) -> Result<(), ObjectError> {
    cache.link(Kind::Packs, &pack.object(), target).await
}

/// Writes a child's plan into its folder.
pub(super) async fn write_plan(
    folder: &Path,
    plan: &impl serde::Serialize,
) -> Result<(), ObjectError> {
    let path = folder.join(PLAN);
    let text = serde_json::to_vec_pretty(plan).expect("a plan is plain data: this is a bug");
    tokio::fs::write(&path, text).await.at(&path)
}
