//! Vision Transformer (Dosovitskiy et al. 2020, <https://arxiv.org/abs/2010.11929>) and DINOv2's
//! (Oquab et al. 2023, <https://arxiv.org/abs/2304.07193>), which has layer scale, as in timm 1.0
//! `vision_transformer.py`. Features, at any cut, are the class token.

use tch::nn;

use self::Config::{Dinov2, Patch16};
use super::{
    architecture::{Architecture, Builder, Family, imagenet, rgb},
    attention::{Attention, PatchEmbedding},
    backbone::{Backbone, Stage},
    conv::ConvShape,
    layer_norm::{LayerNorm, LayerScale},
    linear::Linear,
    ops::Op,
    pass::Activation,
};
use crate::domain::base_model::{Interpolation, Preprocessing};

const EPS: f64 = 1e-6;
const DEPTH: i64 = 12;
/// Channels of one attention head.
const HEAD: i64 = 64;
/// Initial value of DINOv2's layer scale.
const SCALE: f64 = 1e-5;

/// The configuration of one ViT: its width.
#[derive(Debug)]
enum Config {
    /// Patches of 16 pixels.
    Patch16(i64),
    /// Patches of 14 pixels, and layer scale.
    Dinov2(i64),
}

impl Config {
    const fn width(&self) -> i64 {
        let (Patch16(width) | Dinov2(width)) = self;
        *width
    }

    fn patch_side(&self) -> i64 {
        match self {
            Patch16(_) => 16,
            Dinov2(_) => 14,
        }
    }
}

const fn architecture(name: &'static str, config: &'static Config) -> Architecture {
    Architecture {
        name,
        library: "timm",
        feature_dim: config.width() as u32,
        classifier: "head",
        stem: "patch_embed.proj.weight",
        input: match config {
            Patch16(_) => rgb(224, 0.9, Interpolation::Bicubic, (&[0.5; 3], &[0.5; 3])),
            Dinov2(_) => imagenet(518, 1.0, Interpolation::Bicubic),
        },
        builder: Builder::Image(config),
    }
}

pub(super) static ARCHITECTURES: &[Architecture] = &[
    architecture("vit_tiny_patch16_224", &Patch16(192)),
    architecture("vit_small_patch16_224", &Patch16(384)),
    architecture("vit_base_patch16_224", &Patch16(768)),
    architecture("vit_small_patch14_dinov2", &Dinov2(384)),
    architecture("vit_base_patch14_dinov2", &Dinov2(768)),
];

impl Family<Preprocessing> for Config {
    /// Stages `patch_embed` (with the class token and the positions), `blocks.0` … `blocks.11`,
    /// `norm`.
    fn build(&self, root: &nn::Path, input: &Preprocessing) -> Backbone {
        let (width, patch) = (self.width(), self.patch_side());
        let channels = i64::from(input.channels);
        let patches = ConvShape::patches((channels, width), patch);
        let grid = i64::from(input.input_size) / patch;
        let embed = Op::PatchEmbedding(PatchEmbedding::new(root, patches, grid));
        let mut stages = vec![Stage::plain("patch_embed", vec![embed], width)];
        for index in 0..DEPTH {
            let name = format!("blocks.{index}");
            let body = block(self, root, &name);
            stages.push(Stage::plain(&name, body, width));
        }
        let norm = Op::LayerNorm(LayerNorm::new(root, "norm", width, EPS));
        stages.push(Stage::plain("norm", vec![norm], width));
        Backbone { stages }
    }

    fn patch(&self) -> Option<u32> {
        Some(self.patch_side() as u32)
    }
}

/// Attention, then two linear layers, each normalized before and with a shortcut around.
fn block(config: &Config, root: &nn::Path, name: &str) -> Vec<Op> {
    let width = config.width();
    let part = |part: &str| format!("{name}.{part}");
    let norm = |name: &str| Op::LayerNorm(LayerNorm::new(root, &part(name), width, EPS));
    let linear = |name: &str, sides, activation| {
        Op::Linear(Linear::new(root, &part(name), sides, activation))
    };
    let residual = |mut ops: Vec<Op>, scale: &str| {
        if matches!(config, Dinov2(_)) {
            let scale = LayerScale::new(root, part(scale), width, SCALE);
            ops.push(Op::LayerScale(scale));
        }
        Op::Residual(ops)
    };
    let attention = Op::Attention(Attention::new(root, &part("attn"), width, width / HEAD));
    let mlp = vec![
        norm("norm2"),
        linear("mlp.fc1", (width, 4 * width), Activation::Gelu),
        linear("mlp.fc2", (4 * width, width), Activation::None),
    ];
    vec![
        residual(vec![norm("norm1"), attention], "ls1.gamma"),
        residual(mlp, "ls2.gamma"),
    ]
}
