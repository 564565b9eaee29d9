//! Every architecture that Rehead can build. To add one: a file for its family, and a line in `ALL`; the tests over the
//! registry then check it unasked.

use std::borrow::Cow;

use tch::{Device, nn};

use super::{
    backbone::Backbone, convnext, efficientnet, mobilenetv2, mobilenetv3, resnet, squeezenet, vit,
};
use crate::domain::base_model::{self, Interpolation, LayerTensor, Layers, Preprocessing};

/// The mean of ImageNet's training images by channel, on pixels scaled to 0..1; with `IMAGENET_STD` the usual input of
/// networks from PyTorch.
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// A network that can be built: code, and what its published weights expect.
#[derive(Debug)]
pub struct Architecture {
    /// timm's name, or torchvision's where timm has no such network.
    pub name: &'static str,
    /// Width of the pooled features that a head reads.
    pub feature_dim: u32,
    /// The name of the original head in timm, such as `fc`: its tensors are `fc.weight` and `fc.bias`.
    pub classifier: &'static str,
    /// What input the usual weights were trained with.
    pub preprocessing: Preprocessing,
    pub(super) family: Family,
}

/// What builds an architecture's backbone.
#[derive(Debug, Clone, Copy)]
pub(super) enum Family {
    ConvNext(&'static convnext::Config),
    EfficientNet(&'static efficientnet::Config),
    MobileNetV2,
    MobileNetV3(&'static mobilenetv3::Config),
    ResNet(&'static resnet::Config),
    SqueezeNet,
    Vit(&'static vit::Config),
}

static ALL: [&Architecture; 27] = [
    &convnext::CONVNEXT_TINY,
    &convnext::CONVNEXT_SMALL,
    &convnext::CONVNEXT_BASE,
    &efficientnet::EFFICIENTNET_B0,
    &efficientnet::EFFICIENTNET_B1,
    &efficientnet::EFFICIENTNET_B2,
    &efficientnet::EFFICIENTNET_B3,
    &efficientnet::EFFICIENTNET_B4,
    &efficientnet::TF_EFFICIENTNET_LITE0,
    &efficientnet::TF_EFFICIENTNET_LITE1,
    &efficientnet::TF_EFFICIENTNET_LITE2,
    &efficientnet::TF_EFFICIENTNET_LITE3,
    &efficientnet::TF_EFFICIENTNET_LITE4,
    &mobilenetv2::MOBILENETV2_100,
    &mobilenetv3::MOBILENETV3_SMALL_100,
    &mobilenetv3::MOBILENETV3_LARGE_100,
    &resnet::RESNET18,
    &resnet::RESNET34,
    &resnet::RESNET50,
    &resnet::RESNET101,
    &resnet::RESNET152,
    &squeezenet::SQUEEZENET1_1,
    &vit::VIT_TINY_PATCH16_224,
    &vit::VIT_SMALL_PATCH16_224,
    &vit::VIT_BASE_PATCH16_224,
    &vit::VIT_SMALL_PATCH14_DINOV2,
    &vit::VIT_BASE_PATCH14_DINOV2,
];

/// Every architecture, in alphabetical order of its family.
pub fn all() -> &'static [&'static Architecture] {
    &ALL
}

/// The architecture of this name.
pub fn find(name: &str) -> Option<&'static Architecture> {
    ALL.into_iter()
        .find(|architecture| architecture.name == name)
}

impl Architecture {
    /// Builds the backbone for this input with fresh weights (drawn from torch's generator) under `path`, every parameter
    /// trainable. The stem has as many inputs as `input` channels; a Vision Transformer has a position for each patch.
    pub fn build(&self, path: &nn::Path, input: &Preprocessing) -> Backbone {
        let channels = i64::from(input.channels);
        match self.family {
            Family::ConvNext(config) => convnext::build(config, path, channels),
            Family::EfficientNet(config) => efficientnet::build(config, path, channels),
            Family::MobileNetV2 => mobilenetv2::build(path, channels),
            Family::MobileNetV3(config) => mobilenetv3::build(config, path, channels),
            Family::ResNet(config) => resnet::build(config, path, channels),
            Family::SqueezeNet => squeezenet::build(path, channels),
            Family::Vit(config) => vit::build(config, path, input),
        }
    }

    /// The name of the weight that reads the image.
    pub fn stem(&self) -> &'static str {
        match self.family {
            Family::ConvNext(_) => "stem.0.weight",
            Family::EfficientNet(_) | Family::MobileNetV2 | Family::MobileNetV3(_) => {
                "conv_stem.weight"
            }
            Family::ResNet(_) => "conv1.weight",
            Family::SqueezeNet => "features.0.weight",
            Family::Vit(_) => "patch_embed.proj.weight",
        }
    }

    /// Side of a Vision Transformer's patches, of which its input's side must be a multiple; `None` for other networks.
    pub fn patch(&self) -> Option<u32> {
        match self.family {
            Family::Vit(config) => Some(config.patch as u32),
            _ => None,
        }
    }

    /// The Python library that has a network of its name.
    pub fn library(&self) -> &'static str {
        match self.family {
            Family::SqueezeNet => "torchvision",
            _ => "timm",
        }
    }

    /// What `timm.create_model` must be told for weights of this input to fit, by name.
    pub fn model_args(&self, input: &Preprocessing) -> Vec<(&'static str, u32)> {
        let channels = (input.channels != 3).then_some(("in_chans", input.channels));
        let side = self.patch().map(|_| ("img_size", input.input_size));
        channels.into_iter().chain(side).collect()
    }

    /// timm's name for a tensor of published weights; names that need no mapping stay.
    pub fn timm_name(&self, published: &str) -> String {
        let mapped = match self.family {
            Family::EfficientNet(config) => efficientnet::timm_name(config, published),
            _ => None,
        };
        mapped.unwrap_or_else(|| published.to_owned())
    }
}

/// An ordinary image network's input: ImageNet's mean and deviation.
pub(super) const fn imagenet(
    input_size: u32,
    crop_fraction: f64,
    interpolation: Interpolation,
) -> Preprocessing {
    rgb(
        input_size,
        crop_fraction,
        interpolation,
        (&IMAGENET_MEAN, &IMAGENET_STD),
    )
}

/// Images of red, green and blue.
pub(super) const fn rgb(
    input_size: u32,
    crop_fraction: f64,
    interpolation: Interpolation,
    (mean, std): (&'static [f64; 3], &'static [f64; 3]),
) -> Preprocessing {
    Preprocessing {
        input_size,
        channels: 3,
        crop_fraction,
        interpolation,
        mean: Cow::Borrowed(mean),
        std: Cow::Borrowed(std),
    }
}

/// The stages, blocks and tensors of an architecture's backbone for this input, in forward order, as timm names them.
pub fn layers(architecture: &Architecture, input: &Preprocessing) -> Layers {
    let vs = nn::VarStore::new(Device::Cpu);
    let backbone = architecture.build(&vs.root(), input);
    let tensors: Vec<LayerTensor> = backbone
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
    let stages = backbone
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
        costs: Vec::new(),
        picoseconds_per_mac: None,
        feature_dim: architecture.feature_dim,
        stages,
        tensors,
    }
}
