//! Fetches the weights that a job continues from: by their hash, so that a job gets exactly the
//! ones that it was created with.

use std::path::Path;

use super::{
    cache::{Cache, Kind},
    checkpoints,
    fault::Fault,
};
use crate::{
    db::queue::Claimed,
    domain::{parent::ParentWeights, work::PlanWeights},
    objects::Objects,
};

/// The weights in a bundle and in a checkpoint.
const MODEL: &str = "model.safetensors";

/// Links the parent's weights, which replace those of the base model, into the job folder in the
/// order in which they are applied.
///
/// # Errors
/// A full disk; objects that are missing or damaged.
pub(super) async fn fetch(
    objects: &Objects,
    cache: &Cache,
    claimed: &Claimed,
    folder: &Path,
) -> Result<Vec<PlanWeights>, Fault> {
    let mut over = Vec::new();
    let weights = claimed.parent.iter().flat_map(|parent| &parent.weights);
    for (index, weights) in weights.enumerate() {
        let (prefix, sha256, whole) = match weights {
            ParentWeights::Model { objects, sha256 } => (objects, sha256.clone(), true),
            ParentWeights::Checkpoint {
                objects: prefix,
                manifest_sha256,
            } => {
                let manifest = folder.join(format!("parent-{index}.json"));
                let manifest =
                    checkpoints::fetch_manifest(objects, prefix, manifest_sha256, &manifest)
                        .await?;
                let entry = manifest.files.get(MODEL).ok_or_else(|| {
                    Fault::damaged(format!("the manifest below `{prefix}` has no `{MODEL}`"))
                })?;
                (prefix, entry.sha256.clone(), false)
            }
        };
        let target = folder.join(format!("parent-{index}.safetensors"));
        let key = format!("{prefix}{MODEL}");
        cache.link(Kind::Weights, &sha256, &key, &target).await?;
        over.push(PlanWeights {
            weights: target,
            sha256,
            whole,
        });
    }
    Ok(over)
}
