//! The inverted residual (Sandler et al. 2018, <https://arxiv.org/abs/1801.04381>) and the stages
//! made of it, under the names of timm 1.0 `_efficientnet_blocks.py`: what MobileNetV2 and V3,
//! EfficientNet and EfficientNetV2 share.

use tch::nn;

use super::{
    backbone::{Block, Stage},
    conv::{ConvNorm, ConvShape, Gate, Padding, SqueezeExcite},
    ops::Op,
    pass::Activation,
};

/// Properties that all convolutions of a network share.
#[derive(Debug)]
pub(super) struct Style {
    pub activation: Activation,
    pub padding: Padding,
    /// Epsilon of BatchNorm.
    pub eps: f64,
    pub gate: Gate,
}

impl Style {
    /// A convolution with BatchNorm; `names` are theirs.
    pub(super) fn conv(
        &self,
        root: &nn::Path,
        names: (&str, &str),
        shape: ConvShape,
        activation: Activation,
    ) -> Op {
        let shape = ConvShape {
            padding: self.padding,
            ..shape
        };
        Op::ConvNorm(ConvNorm::new(root, names, shape, self.eps, activation))
    }
}

/// One inverted residual.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spec {
    pub kernel: i64,
    pub stride: i64,
    /// Channels of the depthwise convolution; `None` for the input's own, without a convolution
    /// that expands them.
    pub inner: Option<i64>,
    pub outputs: i64,
    /// Channels between the two convolutions of squeeze-and-excitation; `None` without one.
    pub squeeze: Option<i64>,
    pub activation: Activation,
}

/// The multiple of 8 nearest to `channels`, at least 8, and at least nine tenths of it
/// (TensorFlow's `make_divisible`).
pub(super) fn divisible_by_8(channels: f64) -> i64 {
    let nearest = ((channels + 4.0) as i64 / 8 * 8).max(8);
    if (nearest as f64) < 0.9 * channels {
        nearest + 8
    } else {
        nearest
    }
}

/// A row of a paper's table, for one stage: side of the depthwise kernels, stride of the first
/// block, expansion, outputs, blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row(pub i64, pub i64, pub i64, pub i64, pub i64);

impl Row {
    /// The blocks of this stage, after `inputs` channels; those of its last block afterwards.
    /// `squeeze` is a block's share of its inputs between the convolutions of
    /// squeeze-and-excitation.
    pub(super) fn specs(
        self,
        inputs: &mut i64,
        squeeze: Option<i64>,
        activation: Activation,
    ) -> Vec<Spec> {
        let Self(kernel, stride, expand, outputs, repeats) = self;
        let spec = |place| {
            let spec = Spec {
                kernel,
                stride: if place == 0 { stride } else { 1 },
                inner: (expand > 1).then_some(*inputs * expand),
                outputs,
                squeeze: squeeze.map(|share| *inputs / share),
                activation,
            };
            *inputs = outputs;
            spec
        };
        (0..repeats).map(spec).collect()
    }
}

/// Stages `stem` (3x3 at stride 2 from an image's channels to `stem`) and `blocks.0` and so on, a
/// stage for each of `rows`.
pub(super) fn stages(
    style: &Style,
    root: &nn::Path,
    (channels, stem): (i64, i64),
    rows: impl IntoIterator<Item = Vec<Spec>>,
) -> Vec<Stage> {
    let mut stages = vec![conv_stem(style, root, (channels, stem))];
    let mut inputs = stem;
    for (index, specs) in rows.into_iter().enumerate() {
        let name = format!("blocks.{index}");
        let mut blocks = Vec::new();
        for (place, spec) in specs.into_iter().enumerate() {
            blocks.push(block(style, root, format!("{name}.{place}"), &spec, inputs));
            inputs = spec.outputs;
        }
        stages.push(Stage {
            name,
            blocks,
            channels: inputs,
        });
    }
    stages
}

/// Stage `stem`: 3x3 at stride 2 from an image's channels to `stem`.
pub(super) fn conv_stem(style: &Style, root: &nn::Path, sides: (i64, i64)) -> Stage {
    let shape = ConvShape::dense(sides, (3, 2));
    let op = style.conv(root, ("conv_stem", "bn1"), shape, style.activation);
    Stage::plain("stem", vec![op], sides.1)
}

/// The last stage of MobileNetV2 and EfficientNet: a 1x1 convolution with BatchNorm, to `features`.
pub(super) fn conv_head(style: &Style, root: &nn::Path, inputs: i64, features: i64) -> Stage {
    let shape = ConvShape::dense((inputs, features), (1, 1));
    let op = style.conv(root, ("conv_head", "bn2"), shape, style.activation);
    Stage::plain("conv_head", vec![op], features)
}

/// The inverted residual of this name.
pub(super) fn block(
    style: &Style,
    root: &nn::Path,
    name: String,
    spec: &Spec,
    inputs: i64,
) -> Block {
    let inner = spec.inner.unwrap_or(inputs);
    let unit = |conv: &str, norm: &str, shape, activation| {
        let names = (format!("{name}.{conv}"), format!("{name}.{norm}"));
        style.conv(root, (&names.0, &names.1), shape, activation)
    };
    let mut body = Vec::new();
    let (depthwise, project, last) = if spec.inner.is_some() {
        let shape = ConvShape::dense((inputs, inner), (1, 1));
        body.push(unit("conv_pw", "bn1", shape, spec.activation));
        ("bn2", "conv_pwl", "bn3")
    } else {
        ("bn1", "conv_pw", "bn2")
    };
    let shape = ConvShape::depthwise(inner, (spec.kernel, spec.stride));
    body.push(unit("conv_dw", depthwise, shape, spec.activation));
    if let Some(squeeze) = spec.squeeze {
        let names = ["conv_reduce", "conv_expand"].map(|part| format!("{name}.se.{part}"));
        let op = SqueezeExcite::new(root, names, (inner, squeeze), style.gate);
        body.push(Op::SqueezeExcite(op));
    }
    let shape = ConvShape::dense((inner, spec.outputs), (1, 1));
    body.push(unit(project, last, shape, Activation::None));
    Block {
        name,
        body,
        shortcut: (spec.stride == 1 && inputs == spec.outputs).then(Vec::new),
        activation: Activation::None,
    }
}
