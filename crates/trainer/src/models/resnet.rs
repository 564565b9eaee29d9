//! ResNet (He et al. 2015, <https://arxiv.org/abs/1512.03385>), as in timm 1.0 `resnet.py` and torchvision: the stride of
//! a bottleneck sits on its 3x3 convolution ("v1.5"). Weights of timm's and torchvision's fit; the
//! preprocessing is that of torchvision's.

use tch::nn;

use super::{
    backbone::{Backbone, Block, Stage},
    ops::{Activation, ConvNorm, ConvShape, Op},
    registry::{Architecture, Family, imagenet},
};
use crate::domain::base_model::Interpolation;

const EPS: f64 = 1e-5;

/// What tells one ResNet from another.
#[derive(Debug)]
pub(super) struct Config {
    /// Blocks of layer1 to layer4.
    depths: [i64; 4],
    /// 1x1, 3x3, 1x1 convolutions with four times the outputs, instead of two 3x3 ones.
    bottleneck: bool,
}

const fn architecture(name: &'static str, config: &'static Config) -> Architecture {
    Architecture {
        name,
        feature_dim: if config.bottleneck { 2048 } else { 512 },
        classifier: "fc",
        preprocessing: imagenet(224, 0.875, Interpolation::Bilinear),
        family: Family::ResNet(config),
    }
}

pub static RESNET18: Architecture = architecture(
    "resnet18",
    &Config {
        depths: [2, 2, 2, 2],
        bottleneck: false,
    },
);
pub static RESNET34: Architecture = architecture(
    "resnet34",
    &Config {
        depths: [3, 4, 6, 3],
        bottleneck: false,
    },
);
pub static RESNET50: Architecture = architecture(
    "resnet50",
    &Config {
        depths: [3, 4, 6, 3],
        bottleneck: true,
    },
);
pub static RESNET101: Architecture = architecture(
    "resnet101",
    &Config {
        depths: [3, 4, 23, 3],
        bottleneck: true,
    },
);
pub static RESNET152: Architecture = architecture(
    "resnet152",
    &Config {
        depths: [3, 8, 36, 3],
        bottleneck: true,
    },
);

/// Stages `stem`, `layer1` … `layer4`.
pub(super) fn build(config: &Config, root: &nn::Path, inputs: i64) -> Backbone {
    let stem = conv(root, "conv1", "bn1", (inputs, 64), (7, 2), Activation::Relu);
    let block = Block {
        name: "stem".to_owned(),
        body: vec![stem, Op::MaxPool],
        shortcut: None,
        activation: Activation::None,
    };
    let mut stages = vec![Stage {
        name: "stem".to_owned(),
        blocks: vec![block],
        channels: 64,
    }];
    let mut channels = 64;
    for (index, &depth) in (0..).zip(&config.depths) {
        let name = format!("layer{}", index + 1);
        let width = 64 << index;
        let outputs = if config.bottleneck { 4 * width } else { width };
        let blocks = (0..depth)
            .map(|place| {
                let stride = if place == 0 && index > 0 { 2 } else { 1 };
                let inputs = if place == 0 { channels } else { outputs };
                residual(
                    root,
                    format!("{name}.{place}"),
                    config,
                    (inputs, width, outputs),
                    stride,
                )
            })
            .collect();
        stages.push(Stage {
            name,
            blocks,
            channels: outputs,
        });
        channels = outputs;
    }
    Backbone { stages }
}

fn residual(
    root: &nn::Path,
    name: String,
    config: &Config,
    (inputs, width, outputs): (i64, i64, i64),
    stride: i64,
) -> Block {
    let unit = |index: i64, channels, size, activation| {
        conv(
            root,
            &format!("{name}.conv{index}"),
            &format!("{name}.bn{index}"),
            channels,
            size,
            activation,
        )
    };
    let body = if config.bottleneck {
        vec![
            unit(1, (inputs, width), (1, 1), Activation::Relu),
            unit(2, (width, width), (3, stride), Activation::Relu),
            unit(3, (width, outputs), (1, 1), Activation::None),
        ]
    } else {
        vec![
            unit(1, (inputs, width), (3, stride), Activation::Relu),
            unit(2, (width, outputs), (3, 1), Activation::None),
        ]
    };
    let shortcut = if stride == 1 && inputs == outputs {
        vec![]
    } else {
        let (down, norm) = (
            format!("{name}.downsample.0"),
            format!("{name}.downsample.1"),
        );
        vec![conv(
            root,
            &down,
            &norm,
            (inputs, outputs),
            (1, stride),
            Activation::None,
        )]
    };
    Block {
        name,
        body,
        shortcut: Some(shortcut),
        activation: Activation::Relu,
    }
}

fn conv(
    root: &nn::Path,
    conv: &str,
    norm: &str,
    channels: (i64, i64),
    size: (i64, i64),
    activation: Activation,
) -> Op {
    let shape = ConvShape::dense(channels, size);
    Op::ConvNorm(ConvNorm::new(root, (conv, norm), shape, EPS, activation))
}
