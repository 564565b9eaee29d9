//! MobileNetV3 (Howard et al. 2019, <https://arxiv.org/abs/1905.02244>), as in timm 1.0
//! `mobilenetv3.py`: the last convolution reads pooled features and has a bias instead of
//! BatchNorm.

use tch::nn;

use super::{
    architecture::{Architecture, Builder, Family, imagenet},
    backbone::{Backbone, Stage},
    conv::{Conv, ConvShape, Gate, Padding},
    inverted_residual::{self, Spec, Style, divisible_by_8},
    ops::Op,
    pass::Activation,
};
use crate::domain::base_model::{Interpolation, Preprocessing};

const STEM: i64 = 16;

/// The configuration of one MobileNetV3.
#[derive(Debug)]
struct Config {
    /// A block each. A stage has those of one number of outputs.
    rows: &'static [Row],
    /// Outputs of the 1x1 convolution after the blocks.
    last: i64,
    features: i64,
}

/// Rows of the paper's tables 1 and 2: kernel, stride, expansion, outputs, squeeze-and-excitation,
/// hard-swish (else ReLU).
#[derive(Debug)]
struct Row(i64, i64, f64, i64, bool, bool);

const LARGE: Config = Config {
    rows: &[
        Row(3, 1, 1.0, 16, false, false),
        Row(3, 2, 4.0, 24, false, false),
        Row(3, 1, 3.0, 24, false, false),
        Row(5, 2, 3.0, 40, true, false),
        Row(5, 1, 3.0, 40, true, false),
        Row(5, 1, 3.0, 40, true, false),
        Row(3, 2, 6.0, 80, false, true),
        Row(3, 1, 2.5, 80, false, true),
        Row(3, 1, 2.3, 80, false, true),
        Row(3, 1, 2.3, 80, false, true),
        Row(3, 1, 6.0, 112, true, true),
        Row(3, 1, 6.0, 112, true, true),
        Row(5, 2, 6.0, 160, true, true),
        Row(5, 1, 6.0, 160, true, true),
        Row(5, 1, 6.0, 160, true, true),
    ],
    last: 960,
    features: 1280,
};

const SMALL: Config = Config {
    rows: &[
        Row(3, 2, 1.0, 16, true, false),
        Row(3, 2, 4.5, 24, false, false),
        Row(3, 1, 3.67, 24, false, false),
        Row(5, 2, 4.0, 40, true, true),
        Row(5, 1, 6.0, 40, true, true),
        Row(5, 1, 6.0, 40, true, true),
        Row(5, 1, 3.0, 48, true, true),
        Row(5, 1, 3.0, 48, true, true),
        Row(5, 2, 6.0, 96, true, true),
        Row(5, 1, 6.0, 96, true, true),
        Row(5, 1, 6.0, 96, true, true),
    ],
    last: 576,
    features: 1024,
};

const fn architecture(name: &'static str, config: &'static Config) -> Architecture {
    Architecture {
        name,
        library: "timm",
        feature_dim: config.features as u32,
        classifier: "classifier",
        stem: "conv_stem.weight",
        input: imagenet(224, 0.875, Interpolation::Bicubic),
        builder: Builder::Image(config),
    }
}

pub(super) static ARCHITECTURES: &[Architecture] = &[
    architecture("mobilenetv3_large_100", &LARGE),
    architecture("mobilenetv3_small_100", &SMALL),
];

impl Family<Preprocessing> for Config {
    /// Stages `stem`, `blocks.0` and so on (the last is the 1x1 convolution), `conv_head`.
    fn build(&self, root: &nn::Path, input: &Preprocessing) -> Backbone {
        let channels = i64::from(input.channels);
        let style = Style {
            activation: Activation::HardSwish,
            padding: Padding::Half,
            eps: 1e-5,
            gate: Gate::HardSigmoid,
        };
        let mut inputs = STEM;
        let rows: Vec<Vec<Spec>> = self
            .rows
            .chunk_by(|one, next| one.3 == next.3)
            .map(|rows| rows.iter().map(|row| spec(row, &mut inputs)).collect())
            .collect();
        let name = format!("blocks.{}", rows.len());
        let mut stages = inverted_residual::stages(&style, root, (channels, STEM), rows);
        let names = (format!("{name}.0.conv"), format!("{name}.0.bn1"));
        let shape = ConvShape::dense((inputs, self.last), (1, 1));
        let last = style.conv(root, (&names.0, &names.1), shape, style.activation);
        stages.push(Stage::plain(&name, vec![last], self.last));
        let shape = ConvShape::dense((self.last, self.features), (1, 1));
        let head = Op::Conv(Conv::new(root, "conv_head", shape, true), style.activation);
        let head = vec![Op::GlobalPool, head];
        stages.push(Stage::plain("conv_head", head, self.features));
        Backbone { stages }
    }
}

fn spec(row: &Row, inputs: &mut i64) -> Spec {
    let &Row(kernel, stride, expand, outputs, squeeze, hard_swish) = row;
    let expanded = divisible_by_8(*inputs as f64 * expand);
    *inputs = outputs;
    Spec {
        kernel,
        stride,
        inner: (expand > 1.0).then_some(expanded),
        outputs,
        squeeze: squeeze.then(|| divisible_by_8(expanded as f64 * 0.25)),
        activation: if hard_swish {
            Activation::HardSwish
        } else {
            Activation::Relu
        },
    }
}
