//! RegNetY (Radosavovic et al. 2020, <https://arxiv.org/abs/2003.13678>), as in timm 1.0
//! `regnet.py`. Widths and depths of its stages follow from the paper's four numbers for each
//! network; here they are written out.

use tch::nn;

use super::{
    architecture::{Architecture, Builder, Family, imagenet},
    backbone::{Backbone, Block, Stage},
    conv::{ConvNorm, ConvShape, Gate, SqueezeExcite},
    ops::Op,
    pass::Activation,
};
use crate::domain::base_model::{Interpolation, Preprocessing};

const EPS: f64 = 1e-5;
const STEM: i64 = 32;

/// The configuration of one RegNetY.
#[derive(Debug)]
struct Config {
    /// Blocks and channels of each stage.
    stages: [(i64, i64); 4],
    /// Channels in a group of the 3x3 convolutions.
    group: i64,
}

const fn config(depths: [i64; 4], widths: [i64; 4], group: i64) -> Config {
    Config {
        stages: [
            (depths[0], widths[0]),
            (depths[1], widths[1]),
            (depths[2], widths[2]),
            (depths[3], widths[3]),
        ],
        group,
    }
}

const fn architecture(
    name: &'static str,
    crop_fraction: f64,
    config: &'static Config,
) -> Architecture {
    Architecture {
        name,
        library: "timm",
        feature_dim: config.stages[3].1 as u32,
        classifier: "head.fc",
        stem: "stem.conv.weight",
        input: imagenet(224, crop_fraction, Interpolation::Bicubic),
        builder: Builder::Image(config),
    }
}

pub(super) static ARCHITECTURES: &[Architecture] = &[
    architecture(
        "regnety_004",
        0.965,
        &const { config([1, 3, 6, 6], [48, 104, 208, 440], 8) },
    ),
    architecture(
        "regnety_008",
        0.875,
        &const { config([1, 3, 8, 2], [64, 128, 320, 768], 16) },
    ),
    architecture(
        "regnety_016",
        0.965,
        &const { config([2, 6, 17, 2], [48, 120, 336, 888], 24) },
    ),
    architecture(
        "regnety_032",
        0.95,
        &const { config([2, 5, 13, 1], [72, 216, 576, 1512], 24) },
    ),
    architecture(
        "regnety_040",
        0.95,
        &const { config([2, 6, 12, 2], [128, 192, 512, 1088], 64) },
    ),
    architecture(
        "regnety_064",
        0.95,
        &const { config([2, 7, 14, 2], [144, 288, 576, 1296], 72) },
    ),
    architecture(
        "regnety_080",
        0.95,
        &const { config([2, 4, 10, 1], [168, 448, 896, 2016], 56) },
    ),
];

impl Family<Preprocessing> for Config {
    /// Stages `stem`, `s1` … `s4`.
    fn build(&self, root: &nn::Path, input: &Preprocessing) -> Backbone {
        let shape = ConvShape::dense((i64::from(input.channels), STEM), (3, 2));
        let stem = conv(root, "stem", shape, Activation::Relu);
        let mut stages = vec![Stage::plain("stem", vec![stem], STEM)];
        let mut channels = STEM;
        for (number, &(depth, width)) in (1..).zip(&self.stages) {
            let name = format!("s{number}");
            let blocks = (0..depth)
                .map(|place| {
                    let name = format!("{name}.b{}", place + 1);
                    let (inputs, stride) = if place == 0 {
                        (channels, 2)
                    } else {
                        (width, 1)
                    };
                    residual(root, name, (inputs, width), stride, self.group)
                })
                .collect();
            stages.push(Stage {
                name,
                blocks,
                channels: width,
            });
            channels = width;
        }
        Backbone { stages }
    }
}

fn residual(
    root: &nn::Path,
    name: String,
    (inputs, outputs): (i64, i64),
    stride: i64,
    group: i64,
) -> Block {
    let part = |part: &str| format!("{name}.{part}");
    let unit = |name: &str, shape, activation| conv(root, &part(name), shape, activation);
    let grouped = ConvShape {
        groups: outputs / group,
        ..ConvShape::dense((outputs, outputs), (3, stride))
    };
    // A quarter of the block's input, rounded to even.
    let squeeze = (inputs as f64 * 0.25).round_ties_even() as i64;
    let names = ["se.fc1", "se.fc2"].map(part);
    let excite = SqueezeExcite::new(root, names, (outputs, squeeze), Gate::ReluSigmoid);
    let dense = |channels, size| ConvShape::dense(channels, size);
    let body = vec![
        unit("conv1", dense((inputs, outputs), (1, 1)), Activation::Relu),
        unit("conv2", grouped, Activation::Relu),
        Op::SqueezeExcite(excite),
        unit("conv3", dense((outputs, outputs), (1, 1)), Activation::None),
    ];
    let shortcut = if stride == 1 && inputs == outputs {
        vec![]
    } else {
        let shape = dense((inputs, outputs), (1, stride));
        vec![unit("downsample", shape, Activation::None)]
    };
    Block {
        name,
        body,
        shortcut: Some(shortcut),
        activation: Activation::Relu,
    }
}

fn conv(root: &nn::Path, name: &str, shape: ConvShape, activation: Activation) -> Op {
    let names = (format!("{name}.conv"), format!("{name}.bn"));
    let names = (names.0.as_str(), names.1.as_str());
    Op::ConvNorm(ConvNorm::new(root, names, shape, EPS, activation))
}
