//! DenseNet (Huang et al. 2016, <https://arxiv.org/abs/1608.06993>), as in timm 1.0 `densenet.py`
//! and torchvision: each layer adds channels to all that came before it.

use tch::nn;

use super::{
    architecture::{Architecture, Builder, Family, imagenet},
    backbone::{Backbone, Block, Stage},
    conv::{BatchNorm, Conv, ConvNorm, ConvShape},
    ops::Op,
    pass::Activation,
};
use crate::domain::base_model::{Interpolation, Preprocessing};

const EPS: f64 = 1e-5;
const STEM: i64 = 64;
/// Channels that a layer adds.
const GROWTH: i64 = 32;
/// Channels of a layer's inner convolution.
const INNER: i64 = 4 * GROWTH;

/// The configuration of one DenseNet: the layers of each block.
#[derive(Debug)]
struct Config([i64; 4]);

const fn architecture(
    name: &'static str,
    feature_dim: u32,
    config: &'static Config,
) -> Architecture {
    Architecture {
        name,
        library: "timm",
        feature_dim,
        classifier: "classifier",
        stem: "features.conv0.weight",
        input: imagenet(224, 0.875, Interpolation::Bicubic),
        builder: Builder::Image(config),
    }
}

pub(super) static ARCHITECTURES: &[Architecture] = &[
    architecture("densenet121", 1024, &Config([6, 12, 24, 16])),
    architecture("densenet169", 1664, &Config([6, 12, 32, 32])),
];

impl Family<Preprocessing> for Config {
    /// Stages `features.conv0`, `features.denseblock1`, `features.transition1`, …,
    /// `features.denseblock4`, `features.norm5`.
    fn build(&self, root: &nn::Path, input: &Preprocessing) -> Backbone {
        let shape = ConvShape::dense((i64::from(input.channels), STEM), (7, 2));
        let names = ("features.conv0", "features.norm0");
        let stem = Op::ConvNorm(ConvNorm::new(root, names, shape, EPS, Activation::Relu));
        let stem = vec![stem, Op::MaxPool];
        let mut stages = vec![Stage::plain("features.conv0", stem, STEM)];
        let mut channels = STEM;
        for (number, &layers) in (1..).zip(&self.0) {
            if number > 1 {
                let name = format!("features.transition{}", number - 1);
                let shape = ConvShape::dense((channels, channels / 2), (1, 1));
                let body = vec![
                    norm(root, &format!("{name}.norm"), channels),
                    conv(root, &format!("{name}.conv"), shape),
                    Op::AvgPool,
                ];
                channels /= 2;
                stages.push(Stage::plain(&name, body, channels));
            }
            let name = format!("features.denseblock{number}");
            let mut blocks = Vec::new();
            for layer in 1..=layers {
                let name = format!("{name}.denselayer{layer}");
                let body = vec![Op::Branches(vec![
                    Vec::new(),
                    dense_layer(root, &name, channels),
                ])];
                blocks.push(Block::plain(&name, body));
                channels += GROWTH;
            }
            stages.push(Stage {
                name,
                blocks,
                channels,
            });
        }
        let last = vec![norm(root, "features.norm5", channels)];
        stages.push(Stage::plain("features.norm5", last, channels));
        Backbone { stages }
    }
}

/// The channels that a layer adds to `inputs`.
fn dense_layer(root: &nn::Path, name: &str, inputs: i64) -> Vec<Op> {
    let part = |part: &str| format!("{name}.{part}");
    let inner = ConvShape::dense((inputs, INNER), (1, 1));
    let names = (part("conv1"), part("norm2"));
    let names = (names.0.as_str(), names.1.as_str());
    vec![
        norm(root, &part("norm1"), inputs),
        Op::ConvNorm(ConvNorm::new(root, names, inner, EPS, Activation::Relu)),
        conv(
            root,
            &part("conv2"),
            ConvShape::dense((INNER, GROWTH), (3, 1)),
        ),
    ]
}

fn norm(root: &nn::Path, name: &str, channels: i64) -> Op {
    let norm = BatchNorm::new(root, name, channels, EPS);
    Op::BatchNorm(norm, Activation::Relu)
}

fn conv(root: &nn::Path, name: &str, shape: ConvShape) -> Op {
    Op::Conv(Conv::new(root, name, shape, false), Activation::None)
}
