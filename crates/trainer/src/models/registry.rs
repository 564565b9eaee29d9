//! Every architecture that Rehead can build. To add one: a file for its family with a list `ALL`, and a line in `all`; the
//! tests over the registry then check it unasked.

use tch::{Device, nn};

use super::{efficientnet, inverted, mobilenet, resnet, trunk::Trunk};
use crate::domain::base_model::{self, Interpolation, LayerTensor, Layers, Preprocessing};

/// The mean of ImageNet's training images by channel, on pixels scaled to 0..1; with `IMAGENET_STD` the usual input of
/// networks from PyTorch.
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// A network that can be built: code, and what its published weights expect.
#[derive(Debug)]
pub struct Architecture {
    /// timm's name.
    pub name: &'static str,
    /// Width of the pooled features that a head reads.
    pub feature_dim: u32,
    /// The name of the original head in timm, such as `fc`: its tensors are `fc.weight` and `fc.bias`.
    pub classifier: &'static str,
    /// What input the usual weights were trained with.
    pub preprocessing: Preprocessing,
    pub(super) family: Family,
}

/// What builds an architecture's trunk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Family {
    ResNet(&'static resnet::Config),
    Inverted(&'static inverted::Config),
}

/// Every architecture, in alphabetical order of its family.
pub fn all() -> impl Iterator<Item = &'static Architecture> + Clone {
    efficientnet::ALL
        .iter()
        .chain(&mobilenet::ALL)
        .chain(&resnet::ALL)
}

/// The architecture of this name.
pub fn find(name: &str) -> Option<&'static Architecture> {
    all().find(|architecture| architecture.name == name)
}

impl Architecture {
    /// Builds the trunk with fresh weights (drawn from torch's generator) under `path`, every parameter trainable.
    pub fn build(&self, path: &nn::Path) -> Trunk {
        match self.family {
            Family::ResNet(config) => resnet::build(config, path),
            Family::Inverted(config) => inverted::build(config, path),
        }
    }

    /// timm's name for a tensor of published weights; names that need no mapping stay.
    pub fn timm_name(&self, published: &str) -> String {
        let mapped = match self.family {
            Family::Inverted(config) => efficientnet::timm_name(config, published),
            Family::ResNet(_) => None,
        };
        mapped.unwrap_or_else(|| published.to_owned())
    }
}

/// An ordinary image network's input: `input_size` 224, centre crop of 7/8, ImageNet's mean and deviation.
pub(super) const fn imagenet_224(interpolation: Interpolation) -> Preprocessing {
    Preprocessing {
        input_size: 224,
        crop_fraction: 0.875,
        interpolation,
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
    }
}

/// The stages, blocks and tensors of an architecture's trunk, in forward order, as timm names them.
pub fn layers(architecture: &Architecture) -> Layers {
    let vs = nn::VarStore::new(Device::Cpu);
    let trunk = architecture.build(&vs.root());
    let tensors: Vec<LayerTensor> = trunk
        .tensors()
        .into_iter()
        .map(|entry| LayerTensor {
            shape: entry
                .tensor
                .size()
                .iter()
                .map(|&side| side.unsigned_abs() as u32)
                .collect(),
            name: entry.name,
            stage: entry.stage,
            block: entry.block,
            trainable: entry.trainable,
        })
        .collect();
    let stages = trunk
        .stages
        .iter()
        .map(|stage| base_model::Stage {
            name: stage.name.clone(),
            blocks: stage
                .blocks
                .iter()
                .map(|block| block.name.clone())
                .filter(|name| *name != stage.name)
                .collect(),
            parameters: tensors
                .iter()
                .filter(|tensor| tensor.trainable && tensor.stage == stage.name)
                .map(LayerTensor::count)
                .sum(),
            channels: stage.channels.unsigned_abs() as u32,
        })
        .collect();
    Layers {
        feature_dim: architecture.feature_dim,
        stages,
        tensors,
    }
}
