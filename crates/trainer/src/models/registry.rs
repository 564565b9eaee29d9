//! Every architecture that can be built. To add a family: a file, and a line in `FAMILIES`; the
//! tests over the registry then check its members (docs/adding-an-architecture.md).

use tch::{Device, nn};

use super::{
    architecture::Architecture, bert, convnext, densenet, efficientnet, efficientnetv2, eva,
    inception, mobilenetv2, mobilenetv3, mobilenetv4, regnet, resnet, squeezenet, swin, vit,
};
use crate::domain::{
    base_model::{self, LayerTensor, Layers},
    input::{Input, Modality},
};

/// The members of each family, in alphabetical order.
static FAMILIES: &[&[Architecture]] = &[
    bert::ARCHITECTURES,
    convnext::ARCHITECTURES,
    densenet::ARCHITECTURES,
    efficientnet::ARCHITECTURES,
    efficientnetv2::ARCHITECTURES,
    eva::ARCHITECTURES,
    inception::ARCHITECTURES,
    mobilenetv2::ARCHITECTURES,
    mobilenetv3::ARCHITECTURES,
    mobilenetv4::ARCHITECTURES,
    regnet::ARCHITECTURES,
    resnet::ARCHITECTURES,
    squeezenet::ARCHITECTURES,
    swin::ARCHITECTURES,
    vit::ARCHITECTURES,
];

/// Every architecture, family by family.
pub fn all() -> impl Iterator<Item = &'static Architecture> + Clone {
    FAMILIES.iter().copied().flatten()
}

/// The architectures that read this modality, family by family.
pub fn of(modality: Modality) -> impl Iterator<Item = &'static Architecture> + Clone {
    all().filter(move |architecture| architecture.modality() == modality)
}

/// The architecture of this name.
pub fn find(name: &str) -> Option<&'static Architecture> {
    all().find(|architecture| architecture.name == name)
}

/// The stages, blocks and tensors of an architecture's backbone for this input, in forward order,
/// under timm's names.
pub fn layers(architecture: &Architecture, input: &Input) -> Layers {
    let vs = nn::VarStore::new(Device::Cpu);
    let backbone = architecture.build(&vs.root(), input);
    let tensors: Vec<LayerTensor> = backbone
        .tensors()
        .into_iter()
        .map(|entry| LayerTensor {
            shape: entry
                .tensor
                .size()
                .into_iter()
                .map(|side| side as u32)
                .collect(),
            name: entry.name,
            stage: entry.stage,
            block: entry.block,
            trainable: entry.trainable,
        })
        .collect();
    let stages = backbone.stages.iter().map(|stage| {
        let blocks = stage.blocks.iter().map(|block| &block.name);
        let own = tensors
            .iter()
            .filter(|tensor| tensor.trainable && tensor.stage == stage.name);
        base_model::Stage {
            name: stage.name.clone(),
            blocks: blocks
                .filter(|name| **name != stage.name)
                .cloned()
                .collect(),
            parameters: own.map(LayerTensor::count).sum(),
            channels: stage.channels.unsigned_abs() as u32,
        }
    });
    let stages = stages.collect();
    Layers {
        costs: Vec::new(),
        picoseconds_per_mac: None,
        feature_dim: architecture.feature_dim,
        stages,
        tensors,
    }
}
