//! Vision Transformer (Dosovitskiy et al. 2020, <https://arxiv.org/abs/2010.11929>), as in timm 1.0
//! `vision_transformer.py`, and what was made of it: DeiT (Touvron et al. 2020,
//! <https://arxiv.org/abs/2012.12877>), DeiT III (2022, <https://arxiv.org/abs/2204.07118>), DINOv2
//! (Oquab et al. 2023, <https://arxiv.org/abs/2304.07193>) without and with registers (Darcet et
//! al. 2023, <https://arxiv.org/abs/2309.16588>), and the image towers of CLIP (Radford et al.
//! 2021, <https://arxiv.org/abs/2103.00020>) and SigLIP (Zhai et al. 2023,
//! <https://arxiv.org/abs/2303.15343>). Features, at any cut, are the class token; CLIP's
//! projection is the original head. SigLIP has no class token: its features are what its attention
//! pooling gives, at an earlier cut the mean over the patches.

use tch::nn;

use super::{
    architecture::{Architecture, Builder, Family, clip_rgb, imagenet, rgb},
    attention::{Attention, AttentionPool, PatchEmbedding, Prefix},
    backbone::{Backbone, Stage},
    conv::ConvShape,
    layer_norm::{LayerNorm, LayerScale},
    linear::Linear,
    ops::Op,
    pass::Activation,
};
use crate::domain::{
    base_model::{Interpolation, Preprocessing},
    input::Input,
};

/// Channels of one attention head.
const HEAD: i64 = 64;

/// Channels of the large members, which have twice as many blocks as the others.
const LARGE: i64 = 1024;

/// The configuration of one ViT.
#[derive(Debug)]
struct Config {
    width: i64,
    depth: i64,
    /// Side of a patch in pixels.
    patch: i64,
    prefix: Prefix,
    /// Initial value of layer scale, where there is one.
    layer_scale: Option<f64>,
    /// CLIP normalizes tokens before the first block, and maps patches without a bias.
    is_clip: bool,
    activation: Activation,
}

const fn patch16(width: i64) -> Config {
    Config {
        width,
        depth: if width == LARGE { 24 } else { 12 },
        patch: 16,
        prefix: Prefix::PositionedClass,
        layer_scale: None,
        is_clip: false,
        activation: Activation::Gelu,
    }
}

const fn patch32(width: i64) -> Config {
    Config {
        patch: 32,
        ..patch16(width)
    }
}

const fn deit3(width: i64) -> Config {
    Config {
        prefix: Prefix::Class { registers: 0 },
        layer_scale: Some(1e-6),
        ..patch16(width)
    }
}

const fn dinov2(width: i64) -> Config {
    Config {
        patch: 14,
        layer_scale: Some(1e-5),
        ..patch16(width)
    }
}

const fn dinov2_registers(width: i64) -> Config {
    Config {
        prefix: Prefix::Class { registers: 4 },
        ..dinov2(width)
    }
}

const fn clip(width: i64, patch: i64, activation: Activation) -> Config {
    Config {
        patch,
        is_clip: true,
        activation,
        ..patch16(width)
    }
}

const fn siglip(width: i64) -> Config {
    Config {
        prefix: Prefix::None,
        ..patch16(width)
    }
}

impl Config {
    const fn eps(&self) -> f64 {
        if self.is_clip { 1e-5 } else { 1e-6 }
    }
}

const fn architecture(name: &'static str, input: Input, config: &'static Config) -> Architecture {
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

const HALF: Input = rgb(224, 0.9, Interpolation::Bicubic, (&[0.5; 3], &[0.5; 3]));
const DEIT: Input = imagenet(224, 0.9, Interpolation::Bicubic);
const DINOV2: Input = imagenet(518, 1.0, Interpolation::Bicubic);

pub(super) static ARCHITECTURES: &[Architecture] = &[
    architecture("vit_tiny_patch16_224", HALF, &const { patch16(192) }),
    architecture("vit_small_patch16_224", HALF, &const { patch16(384) }),
    architecture("vit_base_patch16_224", HALF, &const { patch16(768) }),
    architecture("vit_base_patch32_224", HALF, &const { patch32(768) }),
    architecture("vit_large_patch16_224", HALF, &const { patch16(LARGE) }),
    architecture("deit_small_patch16_224", DEIT, &const { patch16(384) }),
    architecture("deit_base_patch16_224", DEIT, &const { patch16(768) }),
    architecture("deit3_small_patch16_224", DEIT, &const { deit3(384) }),
    architecture("deit3_base_patch16_224", DEIT, &const { deit3(768) }),
    architecture("vit_small_patch14_dinov2", DINOV2, &const { dinov2(384) }),
    architecture("vit_base_patch14_dinov2", DINOV2, &const { dinov2(768) }),
    architecture(
        "vit_small_patch14_reg4_dinov2",
        DINOV2,
        &const { dinov2_registers(384) },
    ),
    architecture(
        "vit_base_patch14_reg4_dinov2",
        DINOV2,
        &const { dinov2_registers(768) },
    ),
    architecture(
        "vit_base_patch16_clip_224",
        clip_rgb(0.95),
        &const { clip(768, 16, Activation::Gelu) },
    ),
    architecture(
        "vit_base_patch32_clip_224",
        clip_rgb(0.9),
        &const { clip(768, 32, Activation::Gelu) },
    ),
    architecture(
        "vit_base_patch16_clip_quickgelu_224",
        clip_rgb(1.0),
        &const { clip(768, 16, Activation::QuickGelu) },
    ),
    architecture(
        "vit_large_patch14_clip_224",
        clip_rgb(1.0),
        &const { clip(LARGE, 14, Activation::Gelu) },
    ),
    architecture("vit_base_patch16_siglip_224", HALF, &const { siglip(768) }),
];

impl Family<Preprocessing> for Config {
    /// Stages `patch_embed` (with the class token, registers and positions), `blocks.0` …
    /// `blocks.11` or `blocks.23`, `norm`, and SigLIP's `attn_pool`.
    fn build(&self, root: &nn::Path, input: &Preprocessing) -> Backbone {
        let &Self { width, patch, .. } = self;
        let channels = i64::from(input.channels);
        let patches = ConvShape::patches((channels, width), patch);
        let grid = i64::from(input.input_size) / patch;
        let norm = |name: &str| Op::LayerNorm(LayerNorm::new(root, name, width, self.eps()));
        let embed = PatchEmbedding::new(root, (patches, !self.is_clip), Some(grid), self.prefix);
        let mut embed = vec![Op::PatchEmbedding(embed)];
        if self.is_clip {
            embed.push(norm("norm_pre"));
        }
        let mut stages = vec![Stage::plain("patch_embed", embed, width)];
        for index in 0..self.depth {
            let name = format!("blocks.{index}");
            let body = block(self, root, &name);
            stages.push(Stage::plain(&name, body, width));
        }
        stages.push(Stage::plain("norm", vec![norm("norm")], width));
        if self.prefix == Prefix::None {
            stages.push(attention_pool(self, root));
        }
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
    let norm = |name: &str| Op::LayerNorm(LayerNorm::new(root, &part(name), width, config.eps()));
    let linear = |name: &str, sides, activation| {
        Op::Linear(Linear::new(root, &part(name), sides, activation))
    };
    let residual = |mut ops: Vec<Op>, scale: &str| {
        if let Some(value) = config.layer_scale {
            let scale = LayerScale::new(root, part(scale), width, value);
            ops.push(Op::LayerScale(scale));
        }
        Op::Residual(ops)
    };
    let attention = Op::Attention(Attention::new(root, &part("attn"), width, width / HEAD));
    let mlp = vec![
        norm("norm2"),
        linear("mlp.fc1", (width, 4 * width), config.activation),
        linear("mlp.fc2", (4 * width, width), Activation::None),
    ];
    vec![
        residual(vec![norm("norm1"), attention], "ls1.gamma"),
        residual(mlp, "ls2.gamma"),
    ]
}

/// SigLIP's last stage: attention to one token, then two linear layers.
fn attention_pool(config: &Config, root: &nn::Path) -> Stage {
    let width = config.width;
    let name = "attn_pool";
    let part = |part: &str| format!("{name}.{part}");
    let linear = |name: &str, sides, activation| {
        Op::Linear(Linear::new(root, &part(name), sides, activation))
    };
    let pool = AttentionPool::new(root, name, width, width / HEAD);
    let norm = LayerNorm::new(root, &part("norm"), width, config.eps());
    let mlp = vec![
        Op::LayerNorm(norm),
        linear("mlp.fc1", (width, 4 * width), config.activation),
        linear("mlp.fc2", (4 * width, width), Activation::None),
    ];
    let body = vec![Op::AttentionPool(pool), Op::Residual(mlp)];
    Stage::plain(name, body, width)
}
