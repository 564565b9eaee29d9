//! A checkpoint as a folder that the inference process can load: the weights that its job started
//! from, those that it trained, and a description. The process compares the hashes of all.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};

use crate::{
    domain::{
        checkpoint::Manifest,
        id::CheckpointId,
        parent::ParentWeights,
        work::{CHECKPOINT_MODEL, CheckpointModel, PlanWeights},
    },
    objects::Objects,
    serving::error::ServingError,
};

const MODEL: &str = "model.safetensors";
const MANIFEST: &str = "manifest.json";
/// Largest manifest in bytes; a real one has a few hundred.
const MANIFEST_BYTES: u64 = 1 << 20;

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
        let key = format!("models/{}/{MODEL}", base.weights_sha256);
        base.weights = PathBuf::from("base.safetensors");
        objects.fetch(&key, &folder.join(&base.weights)).await?;
        for (place, weights) in self.over.iter().enumerate() {
            let (prefix, sha256, whole) = match weights {
                ParentWeights::Model { objects, sha256 } => (objects, sha256.clone(), true),
                ParentWeights::Checkpoint {
                    objects: prefix,
                    manifest_sha256,
                } => (
                    prefix,
                    weights_hash(objects, prefix, manifest_sha256).await?,
                    false,
                ),
            };
            let file = PathBuf::from(format!("over-{place}.safetensors"));
            let key = format!("{prefix}{MODEL}");
            objects.fetch(&key, &folder.join(&file)).await?;
            base.over.push(PlanWeights {
                weights: file,
                sha256,
                whole,
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

/// The hash of a checkpoint's weights, from its manifest, which must be the one with this hash.
async fn weights_hash(
    objects: &Objects,
    prefix: &str,
    manifest_sha256: &str,
) -> Result<String, ServingError> {
    let key = format!("{prefix}{MANIFEST}");
    let chunks = objects.read(&key, Some(0..MANIFEST_BYTES)).await?;
    let text = chunks.try_collect::<Vec<_>>().await?.concat();
    let read = || -> anyhow::Result<String> {
        if hex::encode(Sha256::digest(&text)) != manifest_sha256 {
            bail!("its SHA-256 is not {manifest_sha256}");
        }
        let manifest: Manifest = serde_json::from_slice(&text)?;
        let entry = manifest.files.get(MODEL);
        let entry = entry.with_context(|| format!("it does not name `{MODEL}`"))?;
        Ok(entry.sha256.clone())
    };
    Ok(read().with_context(|| format!("object `{key}` is damaged"))?)
}
