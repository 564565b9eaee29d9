//! Swin Transformer (Liu et al. 2021, <https://arxiv.org/abs/2103.14030>), as in timm 1.0
//! `swin_transformer.py`: attention in windows of 7x7, every second time shifted. A map smaller
//! than a window is one. Features are the mean over the last map.

use tch::nn;

use super::{
    architecture::{Architecture, Builder, Family, imagenet},
    backbone::{Backbone, Block, Stage},
    conv::{Conv, ConvShape},
    layer_norm::LayerNorm,
    linear::{Bias, Linear},
    ops::Op,
    pass::Activation,
    windows::{WindowAttention, Windows},
};
use crate::domain::base_model::{Interpolation, Preprocessing};

const EPS: f64 = 1e-5;
/// Sides of a patch in pixels, and of a window in patches.
const PATCH: i64 = 4;
const WINDOW: i64 = 7;
/// Channels of one attention head.
const HEAD: i64 = 32;

/// The configuration of one Swin Transformer: blocks of each stage, and the channels of the first,
/// which double each time.
#[derive(Debug)]
struct Config {
    depths: [i64; 4],
    width: i64,
}

const fn architecture(name: &'static str, config: &'static Config) -> Architecture {
    Architecture {
        name,
        library: "timm",
        feature_dim: 8 * config.width as u32,
        classifier: "head.fc",
        stem: "patch_embed.proj.weight",
        input: imagenet(224, 0.9, Interpolation::Bicubic),
        builder: Builder::Image(config),
    }
}

const fn config(depths: [i64; 4], width: i64) -> Config {
    Config { depths, width }
}

pub(super) static ARCHITECTURES: &[Architecture] = &[
    architecture(
        "swin_tiny_patch4_window7_224",
        &const { config([2, 2, 6, 2], 96) },
    ),
    architecture(
        "swin_small_patch4_window7_224",
        &const { config([2, 2, 18, 2], 96) },
    ),
    architecture(
        "swin_base_patch4_window7_224",
        &const { config([2, 2, 18, 2], 128) },
    ),
];

impl Family<Preprocessing> for Config {
    /// Stages `patch_embed`, `layers.0` … `layers.3`, `norm`.
    fn build(&self, root: &nn::Path, input: &Preprocessing) -> Backbone {
        let norm = |name: &str, width| Op::LayerNorm(LayerNorm::new(root, name, width, EPS));
        let mut width = self.width;
        let shape = ConvShape::patches((i64::from(input.channels), width), PATCH);
        let patches = Conv::new(root, "patch_embed.proj", shape, true);
        let embed = vec![
            Op::Conv(patches, Activation::None),
            norm("patch_embed.norm", width),
        ];
        let mut stages = vec![Stage::plain("patch_embed", embed, width)];
        let mut map = i64::from(input.input_size) / PATCH;
        for (index, &depth) in self.depths.iter().enumerate() {
            let name = format!("layers.{index}");
            let mut blocks = Vec::new();
            if index > 0 {
                let down = format!("{name}.downsample");
                let sides = (4 * width, 2 * width);
                let reduction = format!("{down}.reduction");
                let without_bias = (Bias::None, Activation::None);
                let body = vec![
                    Op::MergePatches,
                    norm(&format!("{down}.norm"), sides.0),
                    Op::Linear(Linear::with_bias(root, &reduction, sides, without_bias)),
                ];
                blocks.push(Block::plain(&down, body));
                width = sides.1;
                map = (map + 1) / 2;
            }
            for place in 0..depth {
                let name = format!("{name}.blocks.{place}");
                let windows = Windows::new(map, WINDOW, place % 2 == 1);
                blocks.push(Block::plain(&name, block(root, &name, width, windows)));
            }
            stages.push(Stage {
                name,
                blocks,
                channels: width,
            });
        }
        stages.push(Stage::plain("norm", vec![norm("norm", width)], width));
        Backbone { stages }
    }

    fn patch(&self) -> Option<u32> {
        Some(PATCH as u32)
    }
}

/// Attention in windows, then two linear layers, each normalized before and with a shortcut around.
fn block(root: &nn::Path, name: &str, width: i64, windows: Windows) -> Vec<Op> {
    let part = |part: &str| format!("{name}.{part}");
    let norm = |name: &str| Op::LayerNorm(LayerNorm::new(root, &part(name), width, EPS));
    let linear = |name: &str, sides, activation| {
        Op::Linear(Linear::new(root, &part(name), sides, activation))
    };
    let sides = (width, width / HEAD);
    let attention = WindowAttention::new(root, &part("attn"), sides, windows);
    vec![
        Op::Residual(vec![norm("norm1"), Op::WindowAttention(attention)]),
        Op::Residual(vec![
            norm("norm2"),
            linear("mlp.fc1", (width, 4 * width), Activation::Gelu),
            linear("mlp.fc2", (4 * width, width), Activation::None),
        ]),
    ]
}
