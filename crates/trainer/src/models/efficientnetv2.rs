//! EfficientNetV2 (Tan & Le 2021, <https://arxiv.org/abs/2104.00298>), as in timm 1.0
//! `efficientnet.py` with TensorFlow's padding and BatchNorm epsilon: plain and fused convolutions
//! in the first stages, inverted residuals in the later ones.

use tch::nn;

use super::{
    architecture::{Architecture, Builder, Family, rgb},
    backbone::{Backbone, Block, Stage},
    conv::{ConvShape, Gate, Padding},
    inverted_residual::{self, Spec, Style},
    pass::Activation,
};
use crate::domain::base_model::{Interpolation, Preprocessing};

const STEM: i64 = 24;
const FEATURES: i64 = 1280;
const STYLE: Style = Style {
    activation: Activation::Silu,
    padding: Padding::Same,
    eps: 1e-3,
    gate: Gate::Sigmoid,
};

/// The configuration of one EfficientNetV2: a row for each stage.
#[derive(Debug)]
struct Config(&'static [Row]);

/// A row of table 4 of the paper; all kernels are 3x3.
#[derive(Debug, Clone, Copy)]
enum Row {
    /// A convolution with a shortcut: outputs, blocks.
    Conv(i64, i64),
    /// A convolution that expands, one that projects: stride of the first block, expansion,
    /// outputs, blocks.
    Fused(i64, i64, i64, i64),
    /// The same numbers of an inverted residual with squeeze-and-excitation.
    Inverted(i64, i64, i64, i64),
}

use Row::{Conv, Fused, Inverted};

const SMALL: Config = Config(&[
    Conv(24, 2),
    Fused(2, 4, 48, 4),
    Fused(2, 4, 64, 4),
    Inverted(2, 4, 128, 6),
    Inverted(1, 6, 160, 9),
    Inverted(2, 6, 256, 15),
]);

const MEDIUM: Config = Config(&[
    Conv(24, 3),
    Fused(2, 4, 48, 5),
    Fused(2, 4, 80, 5),
    Inverted(2, 4, 160, 7),
    Inverted(1, 6, 176, 14),
    Inverted(2, 6, 304, 18),
    Inverted(1, 6, 512, 5),
]);

const fn architecture(
    name: &'static str,
    input_size: u32,
    config: &'static Config,
) -> Architecture {
    let scale = (&[0.5; 3], &[0.5; 3]);
    Architecture {
        name,
        library: "timm",
        feature_dim: FEATURES as u32,
        classifier: "classifier",
        stem: "conv_stem.weight",
        input: rgb(input_size, 1.0, Interpolation::Bicubic, scale),
        builder: Builder::Image(config),
    }
}

pub(super) static ARCHITECTURES: &[Architecture] = &[
    architecture("tf_efficientnetv2_s", 300, &SMALL),
    architecture("tf_efficientnetv2_m", 384, &MEDIUM),
];

impl Family<Preprocessing> for Config {
    /// Stages `stem`, `blocks.0` … `blocks.5` (small) or `blocks.6` (medium), `conv_head`.
    fn build(&self, root: &nn::Path, input: &Preprocessing) -> Backbone {
        let sides = (i64::from(input.channels), STEM);
        let mut stages = vec![inverted_residual::conv_stem(&STYLE, root, sides)];
        let mut inputs = STEM;
        for (index, row) in self.0.iter().enumerate() {
            let name = format!("blocks.{index}");
            let (Conv(channels, repeats)
            | Fused(_, _, channels, repeats)
            | Inverted(_, _, channels, repeats)) = *row;
            let mut blocks = Vec::new();
            for place in 0..repeats {
                let name = format!("{name}.{place}");
                blocks.push(block(root, name, *row, (inputs, place == 0)));
                inputs = channels;
            }
            stages.push(Stage {
                name,
                blocks,
                channels,
            });
        }
        stages.push(inverted_residual::conv_head(&STYLE, root, inputs, FEATURES));
        Backbone { stages }
    }
}

fn block(root: &nn::Path, name: String, row: Row, (inputs, is_first): (i64, bool)) -> Block {
    let stride_of = |stride| if is_first { stride } else { 1 };
    let unit = |(conv, norm): (&str, &str), shape, activation| {
        let names = (format!("{name}.{conv}"), format!("{name}.{norm}"));
        STYLE.conv(root, (&names.0, &names.1), shape, activation)
    };
    let (body, has_shortcut) = match row {
        Conv(outputs, _) => {
            let shape = ConvShape::dense((inputs, outputs), (3, 1));
            let body = vec![unit(("conv", "bn1"), shape, STYLE.activation)];
            (body, inputs == outputs)
        }
        Fused(stride, expand, outputs, _) => {
            let (stride, inner) = (stride_of(stride), expand * inputs);
            let wide = ConvShape::dense((inputs, inner), (3, stride));
            let project = ConvShape::dense((inner, outputs), (1, 1));
            let body = vec![
                unit(("conv_exp", "bn1"), wide, STYLE.activation),
                unit(("conv_pwl", "bn2"), project, Activation::None),
            ];
            (body, stride == 1 && inputs == outputs)
        }
        Inverted(stride, expand, outputs, _) => {
            let spec = Spec {
                kernel: 3,
                stride: stride_of(stride),
                inner: Some(expand * inputs),
                outputs,
                squeeze: Some(inputs / 4),
                activation: STYLE.activation,
            };
            return inverted_residual::block(&STYLE, root, name, &spec, inputs);
        }
    };
    Block {
        name,
        body,
        shortcut: has_shortcut.then(Vec::new),
        activation: Activation::None,
    }
}
