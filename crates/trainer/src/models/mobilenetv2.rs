//! MobileNetV2 (Sandler et al. 2018, <https://arxiv.org/abs/1801.04381>), as in timm 1.0
//! `efficientnet.py`.

use tch::nn;

use super::{
    architecture::{Architecture, Builder, Family, imagenet},
    backbone::Backbone,
    conv::{Gate, Padding},
    inverted_residual::{self, Row, Style},
    pass::Activation,
};
use crate::domain::base_model::{Interpolation, Preprocessing};

const FEATURES: i64 = 1280;

/// The paper's table 2, all 3x3.
const ROWS: [Row; 7] = [
    Row(3, 1, 1, 16, 1),
    Row(3, 2, 6, 24, 2),
    Row(3, 2, 6, 32, 3),
    Row(3, 2, 6, 64, 4),
    Row(3, 1, 6, 96, 3),
    Row(3, 2, 6, 160, 3),
    Row(3, 1, 6, 320, 1),
];

/// The one member of the family.
#[derive(Debug)]
struct MobileNetV2;

pub(super) static ARCHITECTURES: &[Architecture] = &[Architecture {
    name: "mobilenetv2_100",
    library: "timm",
    feature_dim: FEATURES as u32,
    classifier: "classifier",
    stem: "conv_stem.weight",
    input: imagenet(224, 0.875, Interpolation::Bicubic),
    builder: Builder::Image(&MobileNetV2),
}];

impl Family<Preprocessing> for MobileNetV2 {
    /// Stages `stem`, `blocks.0` … `blocks.6`, `conv_head`.
    fn build(&self, root: &nn::Path, input: &Preprocessing) -> Backbone {
        let channels = i64::from(input.channels);
        let style = Style {
            activation: Activation::Relu6,
            padding: Padding::Half,
            eps: 1e-5,
            gate: Gate::Sigmoid,
        };
        let mut inputs = 32;
        let rows = ROWS.map(|row| row.specs(&mut inputs, None, style.activation));
        let mut stages = inverted_residual::stages(&style, root, (channels, 32), rows);
        stages.push(inverted_residual::conv_head(&style, root, inputs, FEATURES));
        Backbone { stages }
    }
}
