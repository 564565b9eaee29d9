//! ConvNeXt (Liu et al. 2022, <https://arxiv.org/abs/2201.03545>) and ConvNeXt V2 (Woo et al. 2023,
//! <https://arxiv.org/abs/2301.00808>), which has global response normalization for layer scale, as
//! in timm 1.0 `convnext.py`. Features are pooled, then normalized.

use tch::nn;

use super::{
    architecture::{Architecture, Builder, Family, imagenet},
    backbone::{Backbone, Block, Stage},
    conv::{Conv, ConvShape},
    layer_norm::{LayerNorm, LayerScale, ResponseNorm},
    linear::Linear,
    ops::Op,
    pass::Activation,
};
use crate::domain::base_model::{Interpolation, Preprocessing};

const EPS: f64 = 1e-6;
/// Initial value of layer scale.
const SCALE: f64 = 1e-6;

/// The configuration of one ConvNeXt: blocks of each stage, and the channels of the first, which
/// double each time.
#[derive(Debug)]
struct Config {
    depths: [i64; 4],
    width: i64,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
    /// V2 whose linear layers are stored as 1x1 convolutions.
    V2Conv,
}

const fn config(depths: [i64; 4], width: i64) -> Config {
    Config {
        depths,
        width,
        version: Version::V1,
    }
}

const fn v2(depths: [i64; 4], width: i64) -> Config {
    Config {
        version: Version::V2,
        ..config(depths, width)
    }
}

const fn v2_conv(depths: [i64; 4], width: i64) -> Config {
    Config {
        version: Version::V2Conv,
        ..config(depths, width)
    }
}

const fn architecture(name: &'static str, config: &'static Config) -> Architecture {
    Architecture {
        name,
        library: "timm",
        feature_dim: 8 * config.width as u32,
        classifier: "head.fc",
        stem: "stem.0.weight",
        input: imagenet(224, 0.875, Interpolation::Bicubic),
        builder: Builder::Image(config),
    }
}

pub(super) static ARCHITECTURES: &[Architecture] = &[
    architecture("convnext_tiny", &const { config([3, 3, 9, 3], 96) }),
    architecture("convnext_small", &const { config([3, 3, 27, 3], 96) }),
    architecture("convnext_base", &const { config([3, 3, 27, 3], 128) }),
    architecture("convnextv2_atto", &const { v2_conv([2, 2, 6, 2], 40) }),
    architecture("convnextv2_femto", &const { v2_conv([2, 2, 6, 2], 48) }),
    architecture("convnextv2_pico", &const { v2_conv([2, 2, 6, 2], 64) }),
    architecture("convnextv2_nano", &const { v2_conv([2, 2, 8, 2], 80) }),
    architecture("convnextv2_tiny", &const { v2([3, 3, 9, 3], 96) }),
    architecture("convnextv2_base", &const { v2([3, 3, 27, 3], 128) }),
];

impl Family<Preprocessing> for Config {
    /// Stages `stem`, `stages.0` … `stages.3`, `head.norm`.
    fn build(&self, root: &nn::Path, input: &Preprocessing) -> Backbone {
        let inputs = i64::from(input.channels);
        let patches = |name: &str, inputs, outputs, side| {
            let shape = ConvShape::patches((inputs, outputs), side);
            Op::Conv(Conv::new(root, name, shape, true), Activation::None)
        };
        let norm = |name: &str, channels| Op::LayerNorm(LayerNorm::new(root, name, channels, EPS));
        let stem = vec![
            patches("stem.0", inputs, self.width, 4),
            norm("stem.1", self.width),
        ];
        let mut stages = vec![Stage::plain("stem", stem, self.width)];
        let mut channels = self.width;
        for (index, &depth) in self.depths.iter().enumerate() {
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
            blocks.extend((0..depth).map(|place| {
                let name = format!("{name}.blocks.{place}");
                block(root, name, channels, self.version)
            }));
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
}

fn block(root: &nn::Path, name: String, channels: i64, version: Version) -> Block {
    let part = |part: &str| format!("{name}.{part}");
    let depthwise = ConvShape::depthwise(channels, (7, 1));
    let linear = |name: &str, sides, activation| match version {
        Version::V2Conv => {
            let shape = ConvShape::dense(sides, (1, 1));
            Op::Conv(Conv::new(root, &part(name), shape, true), activation)
        }
        _ => Op::Linear(Linear::new(root, &part(name), sides, activation)),
    };
    let wide = 4 * channels;
    let mut body = vec![
        Op::Conv(
            Conv::new(root, &part("conv_dw"), depthwise, true),
            Activation::None,
        ),
        Op::LayerNorm(LayerNorm::new(root, &part("norm"), channels, EPS)),
        linear("mlp.fc1", (channels, wide), Activation::Gelu),
    ];
    if version != Version::V1 {
        body.push(Op::ResponseNorm(ResponseNorm::new(
            root,
            &part("mlp.grn"),
            wide,
        )));
    }
    body.push(linear("mlp.fc2", (wide, channels), Activation::None));
    if version == Version::V1 {
        let scale = LayerScale::new(root, part("gamma"), channels, SCALE);
        body.push(Op::LayerScale(scale));
    }
    Block {
        name,
        body,
        shortcut: Some(Vec::new()),
        activation: Activation::None,
    }
}
