//! MobileNetV2 (Sandler et al. 2018, <https://arxiv.org/abs/1801.04381>) and MobileNetV3 (Howard et al. 2019,
//! <https://arxiv.org/abs/1905.02244>), as in timm 1.0 `efficientnet.py` and `mobilenetv3.py`.

use super::{
    inverted::{Config, Head, Kind, Row, Squeeze},
    ops::{Activation, Padding},
    registry::{Architecture, Family, imagenet_224},
};
use crate::domain::base_model::Interpolation;

/// An inverted residual with the network's own activation; the other forms change what differs.
const fn row(kernel: i64, stride: i64, expand: f64, outputs: i64, repeats: i64) -> Row {
    Row {
        kind: Kind::InvertedResidual(expand),
        kernel,
        stride,
        outputs,
        repeats,
        activation: None,
        squeeze_excite: None,
    }
}

/// The same with ReLU in hard swish's place.
const fn relu(row: Row) -> Row {
    Row {
        activation: Some(Activation::Relu),
        ..row
    }
}

const fn squeezed(row: Row) -> Row {
    Row {
        squeeze_excite: Some(Squeeze::Expanded),
        ..row
    }
}

/// The same without the expansion.
const fn separable(row: Row) -> Row {
    Row {
        kind: Kind::DepthwiseSeparable,
        ..row
    }
}

const fn conv(outputs: i64) -> Row {
    Row {
        kind: Kind::Conv,
        ..row(1, 1, 1.0, outputs, 1)
    }
}

/// MobileNetV2's table 2.
static V2: Config = Config {
    stages: &[
        &[separable(row(3, 1, 1.0, 16, 1))],
        &[row(3, 2, 6.0, 24, 2)],
        &[row(3, 2, 6.0, 32, 3)],
        &[row(3, 2, 6.0, 64, 4)],
        &[row(3, 1, 6.0, 96, 3)],
        &[row(3, 2, 6.0, 160, 3)],
        &[row(3, 1, 6.0, 320, 1)],
    ],
    width: 1.0,
    depth: 1.0,
    fixed_ends: false,
    stem: 32,
    head: Head::Conv(1280),
    activation: Activation::Relu6,
    padding: Padding::Half,
    eps: 1e-5,
};

/// MobileNetV3's table 2.
static V3_SMALL: Config = Config {
    stages: &[
        &[squeezed(relu(separable(row(3, 2, 1.0, 16, 1))))],
        &[relu(row(3, 2, 4.5, 24, 1)), relu(row(3, 1, 3.67, 24, 1))],
        &[
            squeezed(row(5, 2, 4.0, 40, 1)),
            squeezed(row(5, 1, 6.0, 40, 2)),
        ],
        &[squeezed(row(5, 1, 3.0, 48, 2))],
        &[squeezed(row(5, 2, 6.0, 96, 3))],
        &[conv(576)],
    ],
    head: Head::PooledConv(1024),
    ..V3_LARGE_BASE
};

/// MobileNetV3's table 1.
static V3_LARGE: Config = V3_LARGE_BASE;

const V3_LARGE_BASE: Config = Config {
    stages: &[
        &[relu(separable(row(3, 1, 1.0, 16, 1)))],
        &[relu(row(3, 2, 4.0, 24, 1)), relu(row(3, 1, 3.0, 24, 1))],
        &[squeezed(relu(row(5, 2, 3.0, 40, 3)))],
        &[
            row(3, 2, 6.0, 80, 1),
            row(3, 1, 2.5, 80, 1),
            row(3, 1, 2.3, 80, 2),
        ],
        &[squeezed(row(3, 1, 6.0, 112, 2))],
        &[squeezed(row(5, 2, 6.0, 160, 3))],
        &[conv(960)],
    ],
    width: 1.0,
    depth: 1.0,
    fixed_ends: false,
    stem: 16,
    head: Head::PooledConv(1280),
    activation: Activation::HardSwish,
    padding: Padding::Half,
    eps: 1e-5,
};

const fn architecture(
    name: &'static str,
    feature_dim: u32,
    config: &'static Config,
) -> Architecture {
    Architecture {
        name,
        feature_dim,
        classifier: "classifier",
        preprocessing: imagenet_224(Interpolation::Bicubic),
        family: Family::Inverted(config),
    }
}

pub static ALL: [Architecture; 3] = [
    architecture("mobilenetv2_100", 1280, &V2),
    architecture("mobilenetv3_small_100", 1024, &V3_SMALL),
    architecture("mobilenetv3_large_100", 1280, &V3_LARGE),
];
