//! Fetches the weights that a job continues from: by their hash, so that a job gets exactly the
//! ones that it was created with.

use std::path::Path;

use super::{
    cache::{Cache, Kind},
    fault::Fault,
};
use crate::{db::queue::Claimed, domain::work::PlanWeights, objects::Objects};

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
    let Some(parent) = &claimed.parent else {
        return Ok(over);
    };
    for (index, weights) in parent.weights.iter().enumerate() {
        let owner = format!("the parent `{}`", parent.id);
        let object = objects.parent_weights(&owner, weights).await?;
        let target = folder.join(format!("parent-{index}.safetensors"));
        cache.link(Kind::Weights, &object, &target).await?;
        let sha256 = object.sha256;
        over.push(PlanWeights {
            weights: target,
            sha256,
            whole: weights.is_whole(),
        });
    }
    Ok(over)
}
