//! A network that can be built: its code, and the input that its published weights expect.

use std::{borrow::Cow, fmt};

use tch::nn;

use super::backbone::Backbone;
use crate::domain::{
    base_model::{Interpolation, Preprocessing},
    input::{Input, Modality, Tokenization},
};

/// Mean and standard deviation of ImageNet's training images by channel, on pixels scaled to 0..1:
/// the usual input of networks from PyTorch.
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// A network that can be built.
#[derive(Debug)]
pub struct Architecture {
    /// timm's name, or torchvision's where timm has no such network.
    pub name: &'static str,
    /// The Python library that has a network of this name.
    pub library: &'static str,
    /// Width of the pooled features that a head reads.
    pub feature_dim: u32,
    /// The name of the original head, such as `fc`: its tensors are `fc.weight` and `fc.bias`.
    pub classifier: &'static str,
    /// The name of the weight that reads the input.
    pub stem: &'static str,
    /// The input that the usual weights were trained with.
    pub input: Input,
    pub(super) builder: Builder,
}

/// The family that builds a network, by what it reads.
#[derive(Debug, Clone, Copy)]
pub(super) enum Builder {
    Image(&'static dyn Family<Preprocessing>),
    Text(&'static dyn Family<Tokenization>),
}

/// A family of networks that read `I`. Each member is a value of the implementing type, its
/// configuration.
pub trait Family<I>: fmt::Debug + Sync {
    /// Builds the backbone for this input under `root`.
    fn build(&self, root: &nn::Path, input: &I) -> Backbone;

    /// Side of a transformer's patches, of which its input's side must be a multiple.
    fn patch(&self) -> Option<u32> {
        None
    }

    /// The smallest side of an input that leaves something to pool.
    fn smallest_side(&self) -> u32 {
        32
    }

    /// timm's name for a tensor of published weights that has another; `None` where names agree.
    fn timm_name(&self, _published: &str) -> Option<String> {
        None
    }
}

impl Architecture {
    /// Builds the backbone for this input under `root`, with fresh weights (drawn from torch's
    /// generator), every parameter trainable. The stem has as many inputs as an image has channels;
    /// a Vision Transformer has a position for each patch, a text encoder one for each token.
    ///
    /// # Panics
    /// When the input is of another modality than the network.
    pub fn build(&self, root: &nn::Path, input: &Input) -> Backbone {
        match (self.builder, input) {
            (Builder::Image(family), Input::Image(input)) => family.build(root, input),
            (Builder::Text(family), Input::Text(input)) => family.build(root, input),
            (Builder::Image(_) | Builder::Text(_), input) => panic!(
                "`{}` does not read a model's {} input: this is a bug",
                self.name,
                input.modality()
            ),
        }
    }

    /// The names of the original head's weight and bias.
    pub fn classifier_tensors(&self) -> [String; 2] {
        [".weight", ".bias"].map(|part| format!("{}{part}", self.classifier))
    }

    /// The modality of the network's input.
    pub fn modality(&self) -> Modality {
        self.input.modality()
    }

    /// Side of a transformer's patches, of which its input's side must be a multiple; `None` for
    /// other networks.
    pub fn patch(&self) -> Option<u32> {
        match self.builder {
            Builder::Image(family) => family.patch(),
            Builder::Text(_) => None,
        }
    }

    /// The smallest side of its input, in pixels; 0 of networks that read no images.
    pub fn smallest_side(&self) -> u32 {
        match self.builder {
            Builder::Image(family) => family.smallest_side(),
            Builder::Text(_) => 0,
        }
    }

    /// Arguments of `timm.create_model`, by name, for weights of this input to fit.
    pub fn model_args(&self, input: &Input) -> Vec<(&'static str, u32)> {
        let input = match input {
            Input::Image(input) => input,
            Input::Text(_) => return Vec::new(),
        };
        let channels = (input.channels != 3).then_some(("in_chans", input.channels));
        let side = self.patch().map(|_| ("img_size", input.input_size));
        channels.into_iter().chain(side).collect()
    }

    /// timm's name for a tensor of published weights; names that need no mapping stay.
    pub fn timm_name(&self, published: &str) -> String {
        let mapped = match self.builder {
            Builder::Image(family) => family.timm_name(published),
            Builder::Text(family) => family.timm_name(published),
        };
        mapped.unwrap_or_else(|| published.to_owned())
    }
}

/// The input of an ordinary image network: ImageNet's mean and standard deviation.
pub(super) const fn imagenet(
    input_size: u32,
    crop_fraction: f64,
    interpolation: Interpolation,
) -> Input {
    let scale = (&IMAGENET_MEAN, &IMAGENET_STD);
    rgb(input_size, crop_fraction, interpolation, scale)
}

/// The input of CLIP's networks: their own mean and standard deviation.
pub(super) const fn clip_rgb(crop_fraction: f64) -> Input {
    let mean = &[0.48145466, 0.4578275, 0.40821073];
    let std = &[0.26862954, 0.26130258, 0.27577711];
    rgb(224, crop_fraction, Interpolation::Bicubic, (mean, std))
}

/// An input of red, green and blue, with these means and standard deviations.
pub(super) const fn rgb(
    input_size: u32,
    crop_fraction: f64,
    interpolation: Interpolation,
    (mean, std): (&'static [f64; 3], &'static [f64; 3]),
) -> Input {
    Input::Image(Preprocessing {
        input_size,
        channels: 3,
        crop_fraction,
        interpolation,
        mean: Cow::Borrowed(mean),
        std: Cow::Borrowed(std),
    })
}
