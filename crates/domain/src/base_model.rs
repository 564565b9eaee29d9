//! Base models: what a pre-trained network is, what it was trained for, and which layers it has.

use std::{borrow::Cow, cell::RefCell, ops::RangeInclusive};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    codes,
    fields::Fields,
    limits::{CHANNELS, CROP_FRACTION, INPUT_SIZE, MEAN, PHRASE_CHARACTERS, STD},
    options::{Optional, options, read_all, required},
    problem::Problem,
    rules::{Components, Integer, Invalid, List, Parsed, Rule, Text, Word, number},
};
use crate::words;

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

options! {
    /// The requested input of a base model. Values that are left out follow from the weights, or
    /// are the architecture's usual ones.
    #[derive(Default)]
    #[serde(deny_unknown_fields, default)]
    pub struct AskedPreprocessing {
        /// Side of the square input, in pixels. For a Vision Transformer a multiple of its patch;
        /// the positions are resampled to it.
        input_size: Option<u32> = Optional(Integer(wide(&INPUT_SIZE))),
        /// 1 (gray), 3 (red, green, blue) or 4 (and alpha). Weights for 3 are adapted to 1 and 4,
        /// as timm does.
        channels: Option<u32> = Optional(Channels),
        /// The image's short side is resized to `input_size / crop_fraction`, then its center is
        /// cropped (timm: `crop_pct`).
        crop_fraction: Option<f64> = Optional(number(CROP_FRACTION)),
        interpolation: Option<Interpolation> = Optional(Word),
        /// Per channel, on pixel values scaled to 0..1: `(x / 255 - mean) / std`. When left out,
        /// gray gets the mean of the usual three, and alpha mean 1 and deviation 1, so that an
        /// opaque image's is 0.
        mean: Option<Vec<f64>> = Optional(List(1..=MAX_CHANNELS, "numbers", number(MEAN))),
        std: Option<Vec<f64>> = Optional(List(1..=MAX_CHANNELS, "numbers", number(STD))),
    }
}

/// Channels that an input has at most.
const MAX_CHANNELS: usize = CHANNELS[CHANNELS.len() - 1] as usize;

fn wide(range: &RangeInclusive<u32>) -> RangeInclusive<u64> {
    u64::from(*range.start())..=u64::from(*range.end())
}

/// Reads a number of channels that an input may have.
struct Channels;

impl Rule<u32> for Channels {
    fn read(&self, value: &Value) -> Parsed<u32> {
        let channels = Integer(0..=u64::from(u32::MAX)).read(value)?;
        let unknown = || Invalid::new(codes::OUT_OF_RANGE, CHANNELS_RULE);
        CHANNELS
            .contains(&channels)
            .then_some(channels)
            .ok_or_else(unknown)
    }

    fn schema(&self, _: &mut Components) -> Value {
        json!({"type": "integer", "format": "int32", "enum": CHANNELS})
    }
}

const CHANNELS_RULE: &str = "must be 1 (gray), 3 (red, green, blue) or 4 (red, green, blue, alpha)";

impl AskedPreprocessing {
    /// All problems of the values; paths begin with `preprocessing.`.
    pub fn problems(&self) -> Vec<Problem> {
        let problems = RefCell::default();
        let values = serde_json::to_value(self).expect("options are JSON: this is a bug");
        let fields = Fields::new(&values, PREPROCESSING, &problems);
        fields.and_then(read_all::<Self>);
        let mut problems = problems.into_inner();
        problems.extend(self.contradictions());
        problems
    }

    /// Numbers per channel that are not as many as the channels, where those are known.
    pub fn contradictions(&self) -> Vec<Problem> {
        let channels = self.channels.unwrap_or(Preprocessing::rgb());
        let mut problems = Vec::new();
        for (field, values) in [("mean", &self.mean), ("std", &self.std)] {
            let given = values.as_ref().map_or(channels as usize, Vec::len);
            if CHANNELS.contains(&channels) && given != channels as usize {
                let message = format!(
                    "has {given} numbers, and the input {channels} channels: give one number for each channel, or set `channels`"
                );
                let path = format!("{PREPROCESSING}.{field}");
                problems.push(Problem::new(path, codes::INVALID_VALUE, message));
            }
        }
        problems
    }
}

/// The field of a request whose values these are.
const PREPROCESSING: &str = "preprocessing";

words! {
    /// The filter that resizes, antialiased as Pillow's.
    pub enum Interpolation {
        Bilinear = "bilinear",
        Bicubic = "bicubic",
    }
}

options! {
    /// The task that the weights were trained for.
    #[derive(Eq)]
    #[serde(deny_unknown_fields)]
    pub struct SourceTask {
        /// Such as `image classification`.
        name: String = required(Phrase),
        /// Number of classes of the original head; `null` when the weights came without a head.
        #[serde(default)]
        classes: Option<u32> = Optional(Integer(1..=u64::from(u32::MAX))),
        /// Such as `ImageNet-1k`.
        #[serde(default)]
        dataset: Option<String> = Optional(Phrase),
    }
}

/// Reads some words: a text that is not empty.
pub struct Phrase;

impl Rule<String> for Phrase {
    fn read(&self, value: &Value) -> Parsed<String> {
        let text = Text(PHRASE_CHARACTERS).read(value)?;
        if text.is_empty() {
            let message = format!("must be 1 to {PHRASE_CHARACTERS} characters");
            return Err(Invalid::new(codes::OUT_OF_RANGE, message));
        }
        Ok(text)
    }

    fn schema(&self, components: &mut Components) -> Value {
        let mut schema = Text(PHRASE_CHARACTERS).schema(components);
        schema["minLength"] = json!(1);
        schema
    }
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
