//! MobileNetV2 (Sandler et al. 2018, <https://arxiv.org/abs/1801.04381>), as in timm 1.0 `efficientnet.py`.

use tch::nn;

use super::{
    backbone::Backbone,
    inverted::{self, Spec, Style},
    ops::{Activation, Gate, Padding},
    registry::{Architecture, Family, imagenet},
};
use crate::domain::base_model::Interpolation;

const FEATURES: i64 = 1280;

/// The paper's table 2, all 3x3: stride, expansion, outputs, repeats.
const ROWS: [(i64, i64, i64, i64); 7] = [
    (1, 1, 16, 1),
    (2, 6, 24, 2),
    (2, 6, 32, 3),
    (2, 6, 64, 4),
    (1, 6, 96, 3),
    (2, 6, 160, 3),
    (1, 6, 320, 1),
];

pub static MOBILENETV2_100: Architecture = Architecture {
    name: "mobilenetv2_100",
    feature_dim: FEATURES as u32,
    classifier: "classifier",
    preprocessing: imagenet(224, 0.875, Interpolation::Bicubic),
    family: Family::MobileNetV2,
};

/// Stages `stem`, `blocks.0` … `blocks.6`, `conv_head`.
pub(super) fn build(root: &nn::Path, channels: i64) -> Backbone {
    let style = Style {
        activation: Activation::Relu6,
        padding: Padding::Half,
        eps: 1e-5,
        gate: Gate::Sigmoid,
    };
    let mut inputs = 32;
    let rows = ROWS.map(|(stride, expand, outputs, repeats)| {
        (0..repeats)
            .map(|place| {
                let spec = Spec {
                    kernel: 3,
                    stride: if place == 0 { stride } else { 1 },
                    inner: (expand > 1).then_some(inputs * expand),
                    outputs,
                    squeeze: None,
                    activation: style.activation,
                };
                inputs = outputs;
                spec
            })
            .collect()
    });
    let mut stages = inverted::stages(&style, root, (channels, 32), rows);
    stages.push(inverted::conv_head(&style, root, inputs, FEATURES));
    Backbone { stages }
}
