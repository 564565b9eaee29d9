//! MobileNetV4 (Qin et al. 2024, <https://arxiv.org/abs/2404.10518>) of convolutions only, as in
//! timm 1.0 `mobilenetv3.py`: the last convolution reads pooled features.

use tch::nn;

use self::Row::{Conv, Fused, Universal};
use super::{
    architecture::{Architecture, Builder, Family, imagenet},
    backbone::{Backbone, Block, Stage},
    conv::{ConvNorm, ConvShape},
    inverted_residual::divisible_by_8,
    ops::Op,
    pass::Activation,
};
use crate::domain::base_model::{Interpolation, Preprocessing};

const EPS: f64 = 1e-5;
const STEM: i64 = 32;
const FEATURES: i64 = 1280;

/// The configuration of one MobileNetV4: the rows of each stage.
#[derive(Debug)]
struct Config {
    stages: &'static [&'static [Row]],
    crop_fraction: f64,
    input_size: u32,
}

/// Blocks of the paper's tables.
#[derive(Debug)]
enum Row {
    /// A convolution: kernel, stride, outputs.
    Conv(i64, i64, i64),
    /// A 3x3 convolution at stride 2 to four times the channels, and a 1x1 one to these.
    Fused(i64),
    /// Universal inverted bottlenecks: kernels of the depthwise convolutions before and after the
    /// expansion, 0 for none; stride of the first block, expansion, outputs, blocks.
    Universal(i64, i64, i64, i64, i64, i64),
}

const SMALL: Config = Config {
    stages: &[
        &[Conv(3, 2, 32), Conv(1, 1, 32)],
        &[Conv(3, 2, 96), Conv(1, 1, 64)],
        &[
            Universal(5, 5, 2, 3, 96, 1),
            Universal(0, 3, 1, 2, 96, 4),
            Universal(3, 0, 1, 4, 96, 1),
        ],
        &[
            Universal(3, 3, 2, 6, 128, 1),
            Universal(5, 5, 1, 4, 128, 1),
            Universal(0, 5, 1, 4, 128, 1),
            Universal(0, 5, 1, 3, 128, 1),
            Universal(0, 3, 1, 4, 128, 2),
        ],
        &[Conv(1, 1, 960)],
    ],
    crop_fraction: 0.875,
    input_size: 224,
};

const MEDIUM: Config = Config {
    stages: &[
        &[Fused(48)],
        &[Universal(3, 5, 2, 4, 80, 1), Universal(3, 3, 1, 2, 80, 1)],
        &[
            Universal(3, 5, 2, 6, 160, 1),
            Universal(3, 3, 1, 4, 160, 2),
            Universal(3, 5, 1, 4, 160, 1),
            Universal(3, 3, 1, 4, 160, 1),
            Universal(3, 0, 1, 4, 160, 1),
            Universal(0, 0, 1, 2, 160, 1),
            Universal(3, 0, 1, 4, 160, 1),
        ],
        &[
            Universal(5, 5, 2, 6, 256, 1),
            Universal(5, 5, 1, 4, 256, 1),
            Universal(3, 5, 1, 4, 256, 2),
            Universal(0, 0, 1, 4, 256, 1),
            Universal(3, 0, 1, 4, 256, 1),
            Universal(3, 5, 1, 2, 256, 1),
            Universal(5, 5, 1, 4, 256, 1),
            Universal(0, 0, 1, 4, 256, 2),
            Universal(5, 0, 1, 2, 256, 1),
        ],
        &[Conv(1, 1, 960)],
    ],
    crop_fraction: 0.95,
    input_size: 256,
};

const fn architecture(name: &'static str, config: &'static Config) -> Architecture {
    Architecture {
        name,
        library: "timm",
        feature_dim: FEATURES as u32,
        classifier: "classifier",
        stem: "conv_stem.weight",
        input: imagenet(
            config.input_size,
            config.crop_fraction,
            Interpolation::Bicubic,
        ),
        builder: Builder::Image(config),
    }
}

pub(super) static ARCHITECTURES: &[Architecture] = &[
    architecture("mobilenetv4_conv_small", &SMALL),
    architecture("mobilenetv4_conv_medium", &MEDIUM),
];

impl Family<Preprocessing> for Config {
    /// Stages `stem`, `blocks.0` … `blocks.4`, `conv_head`.
    fn build(&self, root: &nn::Path, input: &Preprocessing) -> Backbone {
        let shape = ConvShape::dense((i64::from(input.channels), STEM), (3, 2));
        let stem = conv(root, ("conv_stem", "bn1"), shape, Activation::Relu);
        let mut stages = vec![Stage::plain("stem", vec![stem], STEM)];
        let mut channels = STEM;
        for (index, rows) in self.stages.iter().enumerate() {
            let name = format!("blocks.{index}");
            let mut blocks = Vec::new();
            for row in rows.iter().flat_map(Row::blocks) {
                let name = format!("{name}.{}", blocks.len());
                blocks.push(block(root, name, &row, channels));
                channels = row.outputs();
            }
            stages.push(Stage {
                name,
                blocks,
                channels,
            });
        }
        let shape = ConvShape::dense((channels, FEATURES), (1, 1));
        let head = conv(root, ("conv_head", "norm_head"), shape, Activation::Relu);
        let head = vec![Op::GlobalPool, head];
        stages.push(Stage::plain("conv_head", head, FEATURES));
        Backbone { stages }
    }
}

impl Row {
    /// The row's blocks, each as a row of one block.
    fn blocks(&self) -> Vec<Self> {
        match *self {
            Conv(kernel, stride, outputs) => vec![Conv(kernel, stride, outputs)],
            Fused(outputs) => vec![Fused(outputs)],
            Universal(start, middle, stride, expand, outputs, repeats) => (0..repeats)
                .map(|place| {
                    let stride = if place == 0 { stride } else { 1 };
                    Universal(start, middle, stride, expand, outputs, 1)
                })
                .collect(),
        }
    }

    fn outputs(&self) -> i64 {
        let (Conv(_, _, outputs) | Fused(outputs) | Universal(_, _, _, _, outputs, _)) = *self;
        outputs
    }
}

fn block(root: &nn::Path, name: String, row: &Row, inputs: i64) -> Block {
    let part = |part: &str| format!("{name}.{part}");
    let unit = |(first, second): (&str, &str), shape, activation| {
        conv(root, (&part(first), &part(second)), shape, activation)
    };
    let (body, has_shortcut) = match *row {
        Conv(kernel, stride, outputs) => {
            let shape = ConvShape::dense((inputs, outputs), (kernel, stride));
            let body = vec![unit(("conv", "bn1"), shape, Activation::Relu)];
            (body, false)
        }
        Fused(outputs) => {
            let wide = ConvShape::dense((inputs, 4 * inputs), (3, 2));
            let project = ConvShape::dense((4 * inputs, outputs), (1, 1));
            let body = vec![
                unit(("conv_exp", "bn1"), wide, Activation::Relu),
                unit(("conv_pwl", "bn2"), project, Activation::None),
            ];
            (body, false)
        }
        Universal(start, middle, stride, expand, outputs, _) => {
            let inner = divisible_by_8((inputs * expand) as f64);
            let dense = |channels| ConvShape::dense(channels, (1, 1));
            let mut body = Vec::new();
            if start > 0 {
                let stride = if middle > 0 { 1 } else { stride };
                let shape = ConvShape::depthwise(inputs, (start, stride));
                body.push(unit(
                    ("dw_start.conv", "dw_start.bn"),
                    shape,
                    Activation::None,
                ));
            }
            let names = ("pw_exp.conv", "pw_exp.bn");
            body.push(unit(names, dense((inputs, inner)), Activation::Relu));
            if middle > 0 {
                let shape = ConvShape::depthwise(inner, (middle, stride));
                body.push(unit(("dw_mid.conv", "dw_mid.bn"), shape, Activation::Relu));
            }
            let names = ("pw_proj.conv", "pw_proj.bn");
            body.push(unit(names, dense((inner, outputs)), Activation::None));
            (body, stride == 1 && inputs == outputs)
        }
    };
    Block {
        name,
        body,
        shortcut: has_shortcut.then(Vec::new),
        activation: Activation::None,
    }
}

fn conv(root: &nn::Path, names: (&str, &str), shape: ConvShape, activation: Activation) -> Op {
    Op::ConvNorm(ConvNorm::new(root, names, shape, EPS, activation))
}
