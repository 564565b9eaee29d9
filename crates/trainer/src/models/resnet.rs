//! ResNet (He et al. 2015, <https://arxiv.org/abs/1512.03385>), as in timm 1.0 `resnet.py` and
//! torchvision: the stride of a bottleneck sits on its 3x3 convolution ("v1.5"). Weights of timm's
//! and torchvision's fit; the preprocessing is that of torchvision's.

use tch::nn;

use self::Config::{Basic, Bottleneck};
use super::{
    architecture::{Architecture, Builder, Family, imagenet},
    backbone::{Backbone, Block, Stage},
    conv::{ConvNorm, ConvShape},
    ops::Op,
    pass::Activation,
};
use crate::domain::base_model::{Interpolation, Preprocessing};

const EPS: f64 = 1e-5;

/// The configuration of one ResNet: the blocks of layer1 to layer4.
#[derive(Debug)]
enum Config {
    /// Two 3x3 convolutions in a block.
    Basic([i64; 4]),
    /// 1x1, 3x3 and 1x1 convolutions, with four times the outputs.
    Bottleneck([i64; 4]),
}

const fn architecture(name: &'static str, config: &'static Config) -> Architecture {
    Architecture {
        name,
        library: "timm",
        feature_dim: if matches!(config, Bottleneck(_)) {
            2048
        } else {
            512
        },
        classifier: "fc",
        stem: "conv1.weight",
        input: imagenet(224, 0.875, Interpolation::Bilinear),
        builder: Builder::Image(config),
    }
}

pub(super) static ARCHITECTURES: &[Architecture] = &[
    architecture("resnet18", &Basic([2, 2, 2, 2])),
    architecture("resnet34", &Basic([3, 4, 6, 3])),
    architecture("resnet50", &Bottleneck([3, 4, 6, 3])),
    architecture("resnet101", &Bottleneck([3, 4, 23, 3])),
    architecture("resnet152", &Bottleneck([3, 8, 36, 3])),
];

impl Family<Preprocessing> for Config {
    /// Stages `stem`, `layer1` … `layer4`.
    fn build(&self, root: &nn::Path, input: &Preprocessing) -> Backbone {
        let inputs = i64::from(input.channels);
        let stem = conv(
            root,
            ("conv1", "bn1"),
            (inputs, 64),
            (7, 2),
            Activation::Relu,
        );
        let mut stages = vec![Stage::plain("stem", vec![stem, Op::MaxPool], 64)];
        let (depths, expansion) = match self {
            Basic(depths) => (depths, 1),
            Bottleneck(depths) => (depths, 4),
        };
        let mut channels = 64;
        for (index, &depth) in (0..).zip(depths) {
            let name = format!("layer{}", index + 1);
            let width = 64 << index;
            let outputs = expansion * width;
            let blocks = (0..depth)
                .map(|place| {
                    let stride = if place == 0 && index > 0 { 2 } else { 1 };
                    let inputs = if place == 0 { channels } else { outputs };
                    let name = format!("{name}.{place}");
                    residual(root, name, self, (inputs, width, outputs), stride)
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
}

fn residual(
    root: &nn::Path,
    name: String,
    config: &Config,
    (inputs, width, outputs): (i64, i64, i64),
    stride: i64,
) -> Block {
    let unit = |index: i64, channels, size, activation| {
        let names = (format!("{name}.conv{index}"), format!("{name}.bn{index}"));
        conv(root, (&names.0, &names.1), channels, size, activation)
    };
    let body = if matches!(config, Bottleneck(_)) {
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
        let down = format!("{name}.downsample");
        let names = (format!("{down}.0"), format!("{down}.1"));
        let sides = (inputs, outputs);
        vec![conv(
            root,
            (&names.0, &names.1),
            sides,
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
    names: (&str, &str),
    channels: (i64, i64),
    size: (i64, i64),
    activation: Activation,
) -> Op {
    let shape = ConvShape::dense(channels, size);
    Op::ConvNorm(ConvNorm::new(root, names, shape, EPS, activation))
}
