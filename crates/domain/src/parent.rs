//! The parent of a job: a fine-tuned model or a checkpoint that it starts from, instead of a base
//! model.

use serde::{Deserialize, Serialize};

use super::{
    base_model::Layers,
    recipe::{HeadLayer, Task},
};

/// Where training starts: at a base model, or a model or checkpoint that was trained from it.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The base model's layers.
    pub layers: &'a Layers,
    /// The model or checkpoint, if the job does not start from the base model itself.
    pub parent: Option<&'a Parent>,
}

/// A fine-tuned model or a checkpoint, and what a job takes over from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parent {
    /// The id in the request: `ft:…` or `ftckpt_…`.
    pub id: String,
    pub task: Task,
    pub cut: String,
    /// Layers of its head before the last linear one.
    pub head: Vec<HeadLayer>,
    /// Its classes, in label order.
    pub labels: Vec<String>,
    /// The files with its weights, in order: each replaces tensors of those before it, the first of
    /// the base model's.
    pub weights: Vec<ParentWeights>,
}

/// A file `model.safetensors` in the object store, under the prefix `objects`, which ends with `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ParentWeights {
    /// The weights of a bundle: the whole network.
    Model { objects: String, sha256: String },
    /// The weights of a checkpoint: those that its job trains.
    Checkpoint {
        objects: String,
        manifest_sha256: String,
    },
}

impl ParentWeights {
    /// True if they replace the whole network, not only what was trained.
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Model { .. })
    }
}
