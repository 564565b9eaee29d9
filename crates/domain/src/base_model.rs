//! Base models: what a pre-trained network is, what it was trained for, and which layers it has.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How bytes of an image become the network's input. Part of a model: other numbers here are another model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Side of the square input, in pixels.
    pub input_size: u32,
    /// The image's short side is resized to `input_size / crop_fraction`, then its centre is cropped (timm: `crop_pct`).
    pub crop_fraction: f64,
    pub interpolation: Interpolation,
    /// Per channel (red, green, blue), on pixel values scaled to 0..1: `(x / 255 - mean) / std`.
    pub mean: [f64; 3],
    pub std: [f64; 3],
}

/// The filter that resizes, antialiased as Pillow's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    Bilinear,
    Bicubic,
}

/// What the weights were trained for before they came here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceTask {
    /// Such as `image classification`.
    pub name: String,
    /// Classes the original head told apart; `null` when the weights came without a head.
    #[serde(default)]
    pub classes: Option<u32>,
    /// Such as `ImageNet-1k`.
    #[serde(default)]
    pub dataset: Option<String>,
}

/// The layers of an architecture in forward order: what `GET /v1/models/{id}/layers` shows and `freeze` and `cut` name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Layers {
    /// Width of the pooled features that a head reads.
    pub feature_dim: u32,
    /// From the input side to the features. The original head is not among them: it is always removed.
    pub stages: Vec<Stage>,
    /// Every tensor of the trunk, in forward order.
    pub tensors: Vec<LayerTensor>,
    /// What one sample costs in each stage, at the model's own input size; empty where it was not measured.
    #[serde(default)]
    pub costs: Vec<StageCost>,
}

/// What one sample costs in a stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StageCost {
    /// Multiplications of its forward pass, each with an addition.
    pub macs: u64,
    /// Numbers that training keeps for the gradient.
    pub kept: u64,
    /// Numbers that go into and come out of the largest operation.
    pub largest: u64,
}

/// A named part of a trunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stage {
    pub name: String,
    /// Blocks inside, as prefixes of tensor names (`layer1.0`), in forward order.
    pub blocks: Vec<String>,
    /// Trainable numbers inside.
    pub parameters: u64,
    /// Width of the features that are left when the network is cut after it.
    pub channels: u32,
}

/// One named tensor of a trunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LayerTensor {
    /// The name in timm's state dict.
    pub name: String,
    pub shape: Vec<u32>,
    /// The stage it belongs to.
    pub stage: String,
    /// The block it belongs to; the stage's name where a stage has no blocks.
    pub block: String,
    /// `false` for buffers, such as BatchNorm's running statistics.
    pub trainable: bool,
}

impl LayerTensor {
    /// How many numbers it holds.
    pub fn count(&self) -> u64 {
        self.shape.iter().map(|&side| u64::from(side)).product()
    }
}

impl Layers {
    /// The parameters (not the buffers), in forward order.
    pub fn parameters(&self) -> impl Iterator<Item = &LayerTensor> + Clone {
        self.tensors.iter().filter(|tensor| tensor.trainable)
    }

    /// Whether it normalises by statistics of batches, whose running averages are its buffers.
    pub fn has_batch_norm(&self) -> bool {
        self.tensors.iter().any(|tensor| !tensor.trainable)
    }

    pub fn stage_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.stages.iter().map(|stage| stage.name.as_str())
    }
}
