//! Base models: what a pre-trained network is, what it was trained for, and which layers it has.

use std::{borrow::Cow, fmt::Display, ops::RangeInclusive};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    codes,
    limits::{CHANNELS, CROP_FRACTION, INPUT_SIZE, MEAN, STD},
    problem::Problem,
};

/// How the bytes of an image become the network's input. Part of a model: other numbers here are
/// another model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Side of the square input, in pixels.
    pub input_size: u32,
    /// 1 (gray), 3 (red, green, blue) or 4 (and alpha).
    #[serde(default = "Preprocessing::rgb")]
    #[schema(minimum = 1, maximum = 4)]
    pub channels: u32,
    /// The image's short side is resized to `input_size / crop_fraction`, then its center is
    /// cropped (timm: `crop_pct`).
    pub crop_fraction: f64,
    pub interpolation: Interpolation,
    /// Per channel, on pixel values scaled to 0..1: `(x / 255 - mean) / std`.
    #[schema(value_type = Vec<f64>)]
    pub mean: Cow<'static, [f64]>,
    #[schema(value_type = Vec<f64>)]
    pub std: Cow<'static, [f64]>,
}

impl Preprocessing {
    const fn rgb() -> u32 {
        3
    }

    /// Bytes of a square of the input, one for each channel of a pixel.
    pub fn square_bytes(&self) -> usize {
        self.input_size as usize * self.input_size as usize * self.channels as usize
    }
}

/// The requested input of a base model. Values that are left out follow from the weights, or are
/// the architecture's usual ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AskedPreprocessing {
    /// Side of the square input, in pixels. For a Vision Transformer a multiple of its patch; the
    /// positions are resampled to it.
    #[schema(minimum = 32, maximum = 1024)]
    pub input_size: Option<u32>,
    /// 1 (gray), 3 (red, green, blue) or 4 (and alpha). Weights for 3 are adapted to 1 and 4, as
    /// timm does.
    #[schema(minimum = 1, maximum = 4)]
    pub channels: Option<u32>,
    /// The image's short side is resized to `input_size / crop_fraction`, then its center is
    /// cropped (timm: `crop_pct`).
    #[schema(minimum = 0.1, maximum = 1)]
    pub crop_fraction: Option<f64>,
    pub interpolation: Option<Interpolation>,
    /// Per channel, on pixel values scaled to 0..1: `(x / 255 - mean) / std`. When left out, gray
    /// gets the mean of the usual three, and alpha mean 1 and deviation 1, so that an opaque
    /// image's is 0.
    pub mean: Option<Vec<f64>>,
    pub std: Option<Vec<f64>>,
}

impl AskedPreprocessing {
    /// All problems of the values themselves; paths begin with `preprocessing.`.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut refuse = |field: &str, code, message: String| {
            let path = format!("preprocessing.{field}");
            problems.push(Problem::new(path, code, message));
        };
        if let Some(message) = outside(&INPUT_SIZE, self.input_size.as_slice()) {
            refuse("input_size", codes::OUT_OF_RANGE, message);
        }
        if let Some(message) = outside(&CROP_FRACTION, self.crop_fraction.as_slice()) {
            refuse("crop_fraction", codes::OUT_OF_RANGE, message);
        }
        let channels = self.channels.unwrap_or(Preprocessing::rgb());
        let known = CHANNELS.contains(&channels);
        if !known {
            let message = "must be 1 (gray), 3 (red, green, blue) or 4 (red, green, blue, alpha)";
            refuse("channels", codes::OUT_OF_RANGE, message.to_owned());
        }
        for (field, values, range) in [("mean", &self.mean, MEAN), ("std", &self.std, STD)] {
            let Some(values) = values else { continue };
            if let Some(message) = outside(&range, values) {
                let message = format!("{message}, on pixels scaled to 0..1");
                refuse(field, codes::OUT_OF_RANGE, message);
            }
            let given = values.len();
            if known && given != channels as usize {
                let message = format!(
                    "has {given} numbers, and the input {channels} channels: give one number for each channel, or set `channels`"
                );
                refuse(field, codes::INVALID_VALUE, message);
            }
        }
        problems
    }
}

/// The range, as a message, if a value is outside it.
fn outside<T: PartialOrd + Display>(range: &RangeInclusive<T>, values: &[T]) -> Option<String> {
    let message = || format!("must be from {} to {}", range.start(), range.end());
    let inside = values.iter().all(|value| range.contains(value));
    (!inside).then(message)
}

/// The filter that resizes, antialiased as Pillow's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    Bilinear,
    Bicubic,
}

/// The task that the weights were trained for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceTask {
    /// Such as `image classification`.
    pub name: String,
    /// Number of classes of the original head; `null` when the weights came without a head.
    #[serde(default)]
    pub classes: Option<u32>,
    /// Such as `ImageNet-1k`.
    #[serde(default)]
    pub dataset: Option<String>,
}

/// The layers of an architecture in forward order, as `GET /v1/models/{id}/layers` shows them and
/// `freeze` and `cut` name them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Layers {
    /// Width of the pooled features that a head reads.
    pub feature_dim: u32,
    /// From the input side to the features. The original head is not among them: it is always
    /// removed.
    pub stages: Vec<Stage>,
    /// Every tensor of the backbone, in forward order.
    pub tensors: Vec<LayerTensor>,
    /// Cost of one sample in each stage, at the model's own input size; empty where it was not
    /// measured.
    #[serde(default)]
    pub costs: Vec<StageCost>,
    /// Time of a multiplication on the CPU that imported the model, in picoseconds: the basis of
    /// plans until a job has been measured. `null` where it was not measured.
    #[serde(default)]
    pub picoseconds_per_mac: Option<u64>,
}

/// Cost of one sample in a stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StageCost {
    /// Multiplications of its forward pass, each with an addition.
    pub macs: u64,
    /// Numbers that training keeps for the gradient.
    pub kept: u64,
    /// Numbers that go into and come out of the largest operation.
    pub largest: u64,
}

/// A named part of a backbone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stage {
    pub name: String,
    /// Blocks inside, as prefixes of tensor names (`layer1.0`), in forward order.
    pub blocks: Vec<String>,
    /// Number of trainable values inside.
    pub parameters: u64,
    /// Width of the features that are left when the network is cut after it.
    pub channels: u32,
}

/// One named tensor of a backbone.
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
    /// Number of values.
    pub fn count(&self) -> u64 {
        self.shape.iter().map(|&side| u64::from(side)).product()
    }
}

impl Layers {
    /// The parameters (not the buffers), in forward order.
    pub fn parameters(&self) -> impl Iterator<Item = &LayerTensor> + Clone {
        self.tensors.iter().filter(|tensor| tensor.trainable)
    }

    /// True when the network has BatchNorm, whose running statistics are its buffers.
    pub fn has_batch_norm(&self) -> bool {
        self.tensors.iter().any(|tensor| !tensor.trainable)
    }

    /// Channels of its input images, by its first convolution.
    pub fn input_channels(&self) -> Option<u32> {
        self.parameters().find_map(|tensor| match tensor.shape[..] {
            [_, channels, _, _] => Some(channels),
            _ => None,
        })
    }

    pub fn stage_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.stages.iter().map(|stage| stage.name.as_str())
    }
}
