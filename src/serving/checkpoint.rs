//! A checkpoint as a folder that the inference process can load: the weights that its job started
//! from, those that it trained, and a description. The process compares the hashes of all.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::{
    domain::{
        id::CheckpointId,
        object::{Descriptor, MODEL},
        parent::ParentWeights,
        work::{CHECKPOINT_MODEL, CheckpointModel, PlanWeights},
    },
    objects::Objects,
    serving::error::ServingError,
};

/// A checkpoint with the places of its weights in the store.
#[derive(Debug)]
pub struct StoredCheckpoint {
    pub id: CheckpointId,
    /// Without paths of weights.
    pub model: CheckpointModel,
    /// The weights over those of the base model, in order; the checkpoint's own come last.
    pub over: Vec<ParentWeights>,
}

impl StoredCheckpoint {
    /// Puts everything into an empty folder.
    pub(super) async fn fetch(&self, objects: &Objects, folder: &Path) -> Result<(), ServingError> {
        let mut model = self.model.clone();
        let base = &mut model.base_model;
        let owner = format!("the base model of `{}`", self.id);
        let prefix = format!("models/{}/", base.weights_sha256);
        let object = Descriptor::of_hash(owner, &prefix, MODEL, &base.weights_sha256);
        base.weights = PathBuf::from("base.safetensors");
        objects.copy(&object, &folder.join(&base.weights)).await?;
        let owner = format!("checkpoint `{}`", self.id);
        for (place, weights) in self.over.iter().enumerate() {
            let object = objects.parent_weights(&owner, weights).await?;
            let file = PathBuf::from(format!("over-{place}.safetensors"));
            objects.copy(&object, &folder.join(&file)).await?;
            base.over.push(PlanWeights {
                weights: file,
                sha256: object.sha256,
                whole: weights.is_whole(),
            });
        }
        let text = serde_json::to_vec(&model).context("cannot write a checkpoint's description")?;
        let path = folder.join(CHECKPOINT_MODEL);
        tokio::fs::write(&path, text)
            .await
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(())
    }
}
