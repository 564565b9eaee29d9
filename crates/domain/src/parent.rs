//! What a job goes on from, where that is not a base model: a finished model, or a checkpoint of another job.

use serde::{Deserialize, Serialize};

use super::recipe::{HeadLayer, Task};

/// A finished model or a checkpoint, and what a job that goes on from it takes over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parent {
    /// As the request names it: `ft:…` or `ftckpt_…`.
    pub id: String,
    pub task: Task,
    pub cut: String,
    /// Of its head, before the last linear layer.
    pub head: Vec<HeadLayer>,
    /// In label order.
    pub labels: Vec<String>,
    /// Where its weights lie, lowest first: each has tensors in the place of those before it, the first in that of the base
    /// model's.
    pub weights: Vec<ParentWeights>,
}

/// A file `model.safetensors` in the object store, below the prefix `objects`, which ends with `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ParentWeights {
    /// A bundle's: the whole network.
    Model { objects: String, sha256: String },
    /// A checkpoint's: what its job trains.
    Checkpoint {
        objects: String,
        manifest_sha256: String,
    },
}
