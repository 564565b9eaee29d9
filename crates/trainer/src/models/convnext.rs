//! ConvNeXt (Liu et al. 2022, <https://arxiv.org/abs/2201.03545>), as in timm 1.0 `convnext.py`. Features are pooled, then
//! normalized.

use tch::nn;

use super::{
    backbone::{Backbone, Block, Stage},
    channels::{LayerNorm, LayerScale, Linear},
    ops::{Activation, Conv, ConvShape, Op, Padding},
    registry::{Architecture, Family, imagenet},
};
use crate::domain::base_model::Interpolation;

const EPS: f64 = 1e-6;
/// What layer scale starts at.
const SCALE: f64 = 1e-6;

/// What tells one ConvNeXt from another: blocks of each stage, and the channels of the first, which double each time.
#[derive(Debug)]
pub(super) struct Config {
    depths: [i64; 4],
    width: i64,
}

const fn architecture(name: &'static str, config: &'static Config) -> Architecture {
    Architecture {
        name,
        feature_dim: 8 * config.width as u32,
        classifier: "head.fc",
        preprocessing: imagenet(224, 0.875, Interpolation::Bicubic),
        family: Family::ConvNext(config),
    }
}

pub static CONVNEXT_TINY: Architecture = architecture(
    "convnext_tiny",
    &Config {
        depths: [3, 3, 9, 3],
        width: 96,
    },
);
pub static CONVNEXT_SMALL: Architecture = architecture(
    "convnext_small",
    &Config {
        depths: [3, 3, 27, 3],
        width: 96,
    },
);
pub static CONVNEXT_BASE: Architecture = architecture(
    "convnext_base",
    &Config {
        depths: [3, 3, 27, 3],
        width: 128,
    },
);

/// Stages `stem`, `stages.0` … `stages.3`, `head.norm`.
pub(super) fn build(config: &Config, root: &nn::Path, inputs: i64) -> Backbone {
    let patches = |name: &str, inputs, outputs, side| {
        let shape = ConvShape {
            padding: Padding::None,
            ..ConvShape::dense((inputs, outputs), (side, side))
        };
        Op::Conv {
            conv: Conv::new(root, name, shape, true),
            activation: Activation::None,
        }
    };
    let norm = |name: &str, channels| Op::LayerNorm(LayerNorm::new(root, name, channels, EPS));
    let stem = vec![
        patches("stem.0", inputs, config.width, 4),
        norm("stem.1", config.width),
    ];
    let mut stages = vec![Stage::plain("stem", stem, config.width)];
    let mut channels = config.width;
    for (index, &depth) in config.depths.iter().enumerate() {
        let name = format!("stages.{index}");
        let mut blocks = Vec::new();
        if index > 0 {
            let down = format!("{name}.downsample");
            let body = vec![
                norm(&format!("{down}.0"), channels),
                patches(&format!("{down}.1"), channels, 2 * channels, 2),
            ];
            channels *= 2;
            blocks.push(Block::plain(&down, body));
        }
        blocks.extend(
            (0..depth).map(|place| block(root, format!("{name}.blocks.{place}"), channels)),
        );
        stages.push(Stage {
            name,
            blocks,
            channels,
        });
    }
    let head = vec![Op::GlobalPool, norm("head.norm", channels)];
    stages.push(Stage::plain("head.norm", head, channels));
    Backbone { stages }
}

fn block(root: &nn::Path, name: String, channels: i64) -> Block {
    let part = |part: &str| format!("{name}.{part}");
    let depthwise = ConvShape {
        groups: channels,
        ..ConvShape::dense((channels, channels), (7, 1))
    };
    let (wide, gelu) = (4 * channels, Activation::Gelu);
    let body = vec![
        Op::Conv {
            conv: Conv::new(root, &part("conv_dw"), depthwise, true),
            activation: Activation::None,
        },
        Op::LayerNorm(LayerNorm::new(root, &part("norm"), channels, EPS)),
        Op::Linear(Linear::new(root, &part("mlp.fc1"), (channels, wide), gelu)),
        Op::Linear(Linear::new(
            root,
            &part("mlp.fc2"),
            (wide, channels),
            Activation::None,
        )),
        Op::LayerScale(LayerScale::new(root, &part("gamma"), channels, SCALE)),
    ];
    Block {
        name,
        body,
        shortcut: Some(Vec::new()),
        activation: Activation::None,
    }
}
