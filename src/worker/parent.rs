//! The weights that a job goes on from, from the object store to its folder: by their hash, so that a job meets exactly the
//! ones that it was made with.

use std::path::Path;

use super::{Worker, cache::Kind, checkpoints, relay::Fault};
use crate::{
    db::queue::Claimed,
    domain::{parent::ParentWeights, work::PlanWeights},
};

/// In a bundle and in a checkpoint.
const MODEL: &str = "model.safetensors";

/// Links what lies over the base model's weights into the job folder, lowest first.
///
/// # Errors
/// A full disk; objects that are gone or damaged.
pub(super) async fn fetch(
    worker: &Worker,
    claimed: &Claimed,
    folder: &Path,
) -> Result<Vec<PlanWeights>, Fault> {
    let mut over = Vec::new();
    let weights = claimed.parent.iter().flat_map(|parent| &parent.weights);
    for (place, weights) in weights.enumerate() {
        let (objects, sha256, whole) = match weights {
            ParentWeights::Model { objects, sha256 } => (objects, sha256.clone(), true),
            ParentWeights::Checkpoint {
                objects,
                manifest_sha256,
            } => {
                let manifest = folder.join(format!("parent-{place}.json"));
                let manifest =
                    checkpoints::fetch_manifest(worker, objects, manifest_sha256, &manifest)
                        .await?;
                let entry = manifest.files.get(MODEL).ok_or_else(|| {
                    Fault::damaged(format!("the manifest below `{objects}` has no `{MODEL}`"))
                })?;
                (objects, entry.sha256.clone(), false)
            }
        };
        let target = folder.join(format!("parent-{place}.safetensors"));
        let key = format!("{objects}{MODEL}");
        worker
            .cache
            .link(&worker.objects, Kind::Weights, &sha256, &key, &target)
            .await?;
        over.push(PlanWeights {
            weights: target,
            sha256,
            whole,
        });
    }
    Ok(over)
}
