//! Checkpoints: what a trainer saves, so that another process goes on exactly there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The files of a checkpoint folder. `manifest.json` is written last and holds this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of this layout; a reader refuses a later one.
    pub version: u32,
    pub step: u64,
    pub files: BTreeMap<String, ManifestEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestEntry {
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// What an evaluation on the validation split measured; losses in nats, shares from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Metrics {
    pub step: u64,
    pub epoch: u32,
    /// Mean over the samples of the epoch, with hard labels' smoothing as trained. `null` before the first step.
    pub train_loss: Option<f64>,
    pub valid_loss: f64,
    pub valid_accuracy: f64,
    /// Mean recall over the classes that the validation split holds.
    pub valid_balanced_accuracy: f64,
}
