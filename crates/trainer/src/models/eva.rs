//! Vision Transformers with rotary positions, as in timm 1.0 `eva.py`: EVA-02 (Fang et al. 2023,
//! <https://arxiv.org/abs/2303.11331>), with gated linear layers, and DINOv3 (Siméoni et al. 2025,
//! <https://arxiv.org/abs/2508.10104>), with registers and layer scale. As in timm, the features of
//! the whole network are the mean over the patches; at an earlier cut they are the class token.

use tch::nn;

use super::{
    architecture::{Architecture, Builder, Family, clip_rgb, imagenet},
    attention::{Attention, PatchEmbedding, Prefix},
    backbone::{Backbone, Stage},
    conv::ConvShape,
    layer_norm::{LayerNorm, LayerScale},
    linear::{Bias, Linear},
    ops::Op,
    pass::{Activation, Param, ZEROS},
    rotary::{Rotary, Scheme},
};
use crate::domain::{
    base_model::{Interpolation, Preprocessing},
    input::Input,
};

const DEPTH: i64 = 12;
/// Channels of one attention head.
const HEAD: i64 = 64;
/// Initial value of DINOv3's layer scale.
const SCALE: f64 = 1e-5;
/// Patches along a side of the images that EVA-02 was trained with.
const EVA_GRID: i64 = 16;

/// The configuration of one network.
#[derive(Debug)]
struct Config {
    width: i64,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Eva02,
    DinoV3,
}

use Version::{DinoV3, Eva02};

const fn config(width: i64, version: Version) -> Config {
    Config { width, version }
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

const EVA02: Input = clip_rgb(0.9);
const DINOV3: Input = imagenet(256, 1.0, Interpolation::Bicubic);

pub(super) static ARCHITECTURES: &[Architecture] = &[
    architecture(
        "eva02_tiny_patch14_224",
        EVA02,
        &const { config(192, Eva02) },
    ),
    architecture(
        "eva02_small_patch14_224",
        EVA02,
        &const { config(384, Eva02) },
    ),
    architecture(
        "vit_small_patch16_dinov3",
        DINOV3,
        &const { config(384, DinoV3) },
    ),
    architecture(
        "vit_base_patch16_dinov3",
        DINOV3,
        &const { config(768, DinoV3) },
    ),
];

impl Version {
    const fn eps(self) -> f64 {
        match self {
            Eva02 => 1e-6,
            DinoV3 => 1e-5,
        }
    }

    const fn patch(self) -> i64 {
        match self {
            Eva02 => 14,
            DinoV3 => 16,
        }
    }

    const fn prefix(self) -> Prefix {
        match self {
            Eva02 => Prefix::PositionedClass,
            DinoV3 => Prefix::Class { registers: 4 },
        }
    }
}

impl Family<Preprocessing> for Config {
    /// Stages `patch_embed` (with the class token, registers and positions), `blocks.0` …
    /// `blocks.11`, and `fc_norm` (EVA-02) or `norm` (DINOv3).
    fn build(&self, root: &nn::Path, input: &Preprocessing) -> Backbone {
        let &Self { width, version } = self;
        let (patch, prefix) = (version.patch(), version.prefix());
        let grid = i64::from(input.input_size) / patch;
        let patches = ConvShape::patches((i64::from(input.channels), width), patch);
        let positions = (version == Eva02).then_some(grid);
        let embed = PatchEmbedding::new(root, (patches, true), positions, prefix);
        let embed = vec![Op::PatchEmbedding(embed)];
        let mut stages = vec![Stage::plain("patch_embed", embed, width)];
        let scheme = match version {
            Eva02 => Scheme::Neighbors { grid: EVA_GRID },
            DinoV3 => Scheme::Halves,
        };
        let rotary = Rotary::new(root, scheme, (grid, prefix.tokens()), HEAD);
        for index in 0..DEPTH {
            let name = format!("blocks.{index}");
            let body = block(self, root, &name, rotary.clone());
            stages.push(Stage::plain(&name, body, width));
        }
        let norm = |name: &str| Op::LayerNorm(LayerNorm::new(root, name, width, version.eps()));
        let mean = Op::PatchMean {
            prefix: prefix.tokens(),
        };
        let (name, last) = match version {
            Eva02 => ("fc_norm", vec![mean, norm("fc_norm")]),
            DinoV3 => ("norm", vec![norm("norm"), mean]),
        };
        stages.push(Stage::plain(name, last, width));
        Backbone { stages }
    }

    fn patch(&self) -> Option<u32> {
        Some(self.version.patch() as u32)
    }

    /// Maps the names of EVA-02's own files, whose last normalization comes before the mean.
    fn timm_name(&self, published: &str) -> Option<String> {
        let (module, tensor) = published.rsplit_once('.')?;
        let module = match (self.version, module) {
            (Eva02, "norm") => "fc_norm".to_owned(),
            (Eva02, _) => {
                let block = module.strip_suffix(".mlp.w12").map(|block| (block, "fc1"));
                let block = block.or_else(|| Some((module.strip_suffix(".mlp.w3")?, "fc2")));
                let (block, layer) = block?;
                format!("{block}.mlp.{layer}")
            }
            (DinoV3, _) => return None,
        };
        Some(format!("{module}.{tensor}"))
    }
}

/// Attention, then linear layers, each normalized before and with a shortcut around.
fn block(config: &Config, root: &nn::Path, name: &str, rotary: Rotary) -> Vec<Op> {
    let &Config { width, version } = config;
    let part = |part: &str| format!("{name}.{part}");
    let norm = |name: &str| Op::LayerNorm(LayerNorm::new(root, &part(name), width, version.eps()));
    let linear = |name: &str, sides, activation| {
        Op::Linear(Linear::new(root, &part(name), sides, activation))
    };
    let scaled = |mut ops: Vec<Op>, scale: &str| {
        if version == DinoV3 {
            let scale = LayerScale::new(root, part(scale), width, SCALE);
            ops.push(Op::LayerScale(scale));
        }
        Op::Residual(ops)
    };
    let bias = match version {
        Eva02 => {
            let param = |name: &str| Param::new(root, part(name), &[width], ZEROS);
            Bias::QueriesAndValues(Box::new(["attn.q_bias", "attn.v_bias"].map(param)))
        }
        DinoV3 => Bias::None,
    };
    let bias = (bias, Activation::None);
    let qkv = Linear::with_bias(root, &part("attn.qkv"), (width, 3 * width), bias);
    let qkv = (qkv, width / HEAD);
    let attention = Attention::with_qkv(root, &part("attn"), qkv, Some(rotary));
    let mlp = match version {
        Eva02 => {
            let inner = width * 8 / 3;
            vec![
                norm("norm2"),
                linear("mlp.fc1", (width, 2 * inner), Activation::None),
                Op::Gate,
                linear("mlp.fc2", (inner, width), Activation::None),
            ]
        }
        DinoV3 => vec![
            norm("norm2"),
            linear("mlp.fc1", (width, 4 * width), Activation::Gelu),
            linear("mlp.fc2", (4 * width, width), Activation::None),
        ],
    };
    vec![
        scaled(vec![norm("norm1"), Op::Attention(attention)], "gamma_1"),
        scaled(mlp, "gamma_2"),
    ]
}
