//! Vision Transformer (Dosovitskiy et al. 2020, <https://arxiv.org/abs/2010.11929>) and DINOv2's
//! (Oquab et al. 2023, <https://arxiv.org/abs/2304.07193>), which has layer scale, as in timm 1.0
//! `vision_transformer.py`. Features, at any cut, are the class token.

use tch::nn;

use super::{
    architecture::{Architecture, Builder, Family, imagenet, rgb},
    attention::{Attention, PatchEmbedding},
    backbone::{Backbone, Stage},
    conv::{ConvShape, Padding},
    layer_norm::{LayerNorm, LayerScale},
    linear::Linear,
    ops::Op,
    pass::Activation,
};
use crate::domain::{
    base_model::{Interpolation, Preprocessing},
    input::Input,
};

const EPS: f64 = 1e-6;
const DEPTH: i64 = 12;
/// Channels of one attention head.
const HEAD: i64 = 64;
/// Initial value of DINOv2's layer scale.
const SCALE: f64 = 1e-5;

/// The configuration of one ViT.
#[derive(Debug)]
struct Config {
    width: i64,
    patch: i64,
    layer_scale: bool,
}

const fn architecture(name: &'static str, config: &'static Config, input: Input) -> Architecture {
    Architecture {
        name,
        library: "timm",
        feature_dim: config.width as u32,
        classifier: "head",
        stem: "patch_embed.proj.weight",
        input,
        builder: Builder::Image(config),
    }
}

const fn patch16(name: &'static str, config: &'static Config) -> Architecture {
    let input = rgb(224, 0.9, Interpolation::Bicubic, (&[0.5; 3], &[0.5; 3]));
    architecture(name, config, input)
}

const fn dinov2(name: &'static str, config: &'static Config) -> Architecture {
    architecture(name, config, imagenet(518, 1.0, Interpolation::Bicubic))
}

const fn config16(width: i64) -> Config {
    Config {
        width,
        patch: 16,
        layer_scale: false,
    }
}

const fn config14(width: i64) -> Config {
    Config {
        width,
        patch: 14,
        layer_scale: true,
    }
}

pub(super) static ARCHITECTURES: &[Architecture] = &[
    patch16("vit_tiny_patch16_224", &const { config16(192) }),
    patch16("vit_small_patch16_224", &const { config16(384) }),
    patch16("vit_base_patch16_224", &const { config16(768) }),
    dinov2("vit_small_patch14_dinov2", &const { config14(384) }),
    dinov2("vit_base_patch14_dinov2", &const { config14(768) }),
];

impl Family<Preprocessing> for Config {
    /// Stages `patch_embed` (with the class token and the positions), `blocks.0` … `blocks.11`,
    /// `norm`.
    fn build(&self, root: &nn::Path, input: &Preprocessing) -> Backbone {
        let width = self.width;
        let channels = i64::from(input.channels);
        let patches = ConvShape {
            padding: Padding::None,
            ..ConvShape::dense((channels, width), (self.patch, self.patch))
        };
        let grid = i64::from(input.input_size) / self.patch;
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
        Some(self.patch as u32)
    }
}

/// Attention, then two linear layers, each normalized before and with a shortcut around.
fn block(config: &Config, root: &nn::Path, name: &str) -> Vec<Op> {
    let width = config.width;
    let part = |part: &str| format!("{name}.{part}");
    let norm = |name: &str| Op::LayerNorm(LayerNorm::new(root, &part(name), width, EPS));
    let linear = |name: &str, sides, activation| {
        Op::Linear(Linear::new(root, &part(name), sides, activation))
    };
    let residual = |mut ops: Vec<Op>, scale: &str| {
        if config.layer_scale {
            let scale = LayerScale::new(root, &part(scale), width, SCALE);
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
