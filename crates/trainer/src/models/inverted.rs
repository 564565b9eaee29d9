//! Networks of inverted residual blocks: what EfficientNet, MobileNetV2 and MobileNetV3 have in common, as in timm 1.0
//! `_efficientnet_builder.py`. A network is a table of rows; width and depth scale the table (Tan & Le 2019, section 3.3).

use tch::nn;

use super::{
    ops::{Activation, Conv, ConvNorm, ConvShape, Op, Padding, SqueezeExcite},
    trunk::{Block, Stage, Trunk},
};

/// What tells one such network from another.
#[derive(Debug)]
pub(super) struct Config {
    /// The rows of each stage `blocks.0`, `blocks.1` and so on.
    pub stages: &'static [&'static [Row]],
    /// Multiplies the channels of every row.
    pub width: f64,
    /// Multiplies the repeats of every row.
    pub depth: f64,
    /// Whether the first and the last stage keep their repeats (EfficientNet-Lite).
    pub fixed_ends: bool,
    /// Channels of the first convolution.
    pub stem: i64,
    pub head: Head,
    /// Of the stem, the head, and every row that has none of its own.
    pub activation: Activation,
    pub padding: Padding,
    /// Of every BatchNorm.
    pub eps: f64,
}

/// The last convolution, 1x1, to the features.
#[derive(Debug, Clone, Copy)]
pub(super) enum Head {
    /// With BatchNorm, before pooling.
    Conv(i64),
    /// With a bias, after pooling (MobileNetV3, section 5.1).
    PooledConv(i64),
}

/// Blocks of one shape in a row. All but the first have stride 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub kind: Kind,
    pub kernel: i64,
    pub stride: i64,
    pub outputs: i64,
    pub repeats: i64,
    pub activation: Option<Activation>,
    pub squeeze_excite: Option<Squeeze>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Depthwise convolution, then 1x1 to the outputs.
    DepthwiseSeparable,
    /// 1x1 to so many times the inputs, depthwise convolution, 1x1 to the outputs (Sandler et al. 2018).
    InvertedResidual(f64),
    /// One convolution with BatchNorm and activation.
    Conv,
}

/// A quarter of which channels squeeze-and-excitation leaves, and how it gates.
#[derive(Debug, Clone, Copy)]
pub(super) enum Squeeze {
    /// Of the block's inputs; SiLU, sigmoid.
    Inputs,
    /// Of the expanded channels, rounded to eights; ReLU, hard sigmoid.
    Expanded,
}

/// Channels after scaling: the nearest multiple of 8, but never less than nine tenths of what was asked for.
fn round_channels(channels: f64) -> i64 {
    let rounded = (((channels + 4.0) / 8.0).floor() as i64 * 8).max(8);
    if (rounded as f64) < 0.9 * channels {
        rounded + 8
    } else {
        rounded
    }
}

impl Config {
    /// Blocks of a row of stage `stage`.
    fn repeats(&self, stage: usize, row: &Row) -> i64 {
        if self.fixed_ends && (stage == 0 || stage + 1 == self.stages.len()) {
            row.repeats
        } else {
            (row.repeats as f64 * self.depth).ceil() as i64
        }
    }

    /// The place (stage, block in it, row) of the block that is the `place`-th of all.
    pub(super) fn locate(&self, mut place: i64) -> Option<(usize, i64, &'static Row)> {
        for (stage, rows) in self.stages.iter().enumerate() {
            let mut before = 0;
            for row in *rows {
                let repeats = self.repeats(stage, row);
                if place < repeats {
                    return Some((stage, before + place, row));
                }
                place -= repeats;
                before += repeats;
            }
        }
        None
    }
}

/// Stages `stem`, `blocks.0` and so on, `conv_head`.
pub(super) fn build(config: &Config, root: &nn::Path) -> Trunk {
    let builder = Builder { config, root };
    let stem = builder.unit(
        ("conv_stem", "bn1"),
        (3, config.stem),
        (3, 2),
        1,
        config.activation,
    );
    let mut stages = vec![plain("stem", vec![stem], config.stem)];
    let mut inputs = config.stem;
    for (index, rows) in config.stages.iter().enumerate() {
        let name = format!("blocks.{index}");
        let mut blocks = Vec::new();
        for row in *rows {
            for repeat in 0..config.repeats(index, row) {
                let stride = if repeat == 0 { row.stride } else { 1 };
                let block = format!("{name}.{}", blocks.len());
                let outputs = round_channels(row.outputs as f64 * config.width);
                blocks.push(builder.block(block, row, (inputs, outputs), stride));
                inputs = outputs;
            }
        }
        stages.push(Stage {
            name,
            blocks,
            channels: inputs,
        });
    }
    let (ops, features) = match config.head {
        Head::Conv(features) => {
            let names = ("conv_head", "bn2");
            let conv = builder.unit(names, (inputs, features), (1, 1), 1, config.activation);
            (vec![conv], features)
        }
        Head::PooledConv(features) => {
            let shape = builder.shape((inputs, features), (1, 1), 1);
            let conv = Op::Conv {
                conv: Conv::new(root, "conv_head", shape, true),
                activation: config.activation,
            };
            (vec![Op::GlobalPool, conv], features)
        }
    };
    stages.push(plain("conv_head", ops, features));
    Trunk { stages }
}

/// A stage of operations in a row.
fn plain(name: &str, body: Vec<Op>, channels: i64) -> Stage {
    let block = Block {
        name: name.to_owned(),
        body,
        shortcut: None,
        activation: Activation::None,
    };
    Stage {
        name: name.to_owned(),
        blocks: vec![block],
        channels,
    }
}

struct Builder<'a> {
    config: &'a Config,
    root: &'a nn::Path<'a>,
}

impl Builder<'_> {
    fn block(&self, name: String, row: &Row, (inputs, outputs): (i64, i64), stride: i64) -> Block {
        let act = row.activation.unwrap_or(self.config.activation);
        let unit = |conv: &str, norm: &str, channels, size, groups, activation| {
            let names = (format!("{name}.{conv}"), format!("{name}.{norm}"));
            self.unit((&names.0, &names.1), channels, size, groups, activation)
        };
        let depthwise = (row.kernel, stride);
        let squeeze = |inner| self.squeeze(&name, row, inputs, inner);
        let body = match row.kind {
            Kind::Conv => vec![unit("conv", "bn1", (inputs, outputs), depthwise, 1, act)],
            Kind::DepthwiseSeparable => {
                let same = (inputs, inputs);
                let mut body = vec![unit("conv_dw", "bn1", same, depthwise, inputs, act)];
                body.extend(squeeze(inputs));
                let channels = (inputs, outputs);
                body.push(unit(
                    "conv_pw",
                    "bn2",
                    channels,
                    (1, 1),
                    1,
                    Activation::None,
                ));
                body
            }
            Kind::InvertedResidual(expand) => {
                let inner = round_channels(inputs as f64 * expand);
                let same = (inner, inner);
                let mut body = vec![
                    unit("conv_pw", "bn1", (inputs, inner), (1, 1), 1, act),
                    unit("conv_dw", "bn2", same, depthwise, inner, act),
                ];
                body.extend(squeeze(inner));
                let channels = (inner, outputs);
                body.push(unit(
                    "conv_pwl",
                    "bn3",
                    channels,
                    (1, 1),
                    1,
                    Activation::None,
                ));
                body
            }
        };
        let adds = !matches!(row.kind, Kind::Conv) && stride == 1 && inputs == outputs;
        Block {
            name,
            body,
            shortcut: adds.then(Vec::new),
            activation: Activation::None,
        }
    }

    fn squeeze(&self, block: &str, row: &Row, inputs: i64, inner: i64) -> Option<Op> {
        let (reduced, activation, gate) = match row.squeeze_excite? {
            Squeeze::Inputs => (inputs / 4, Activation::Silu, Activation::Sigmoid),
            Squeeze::Expanded => {
                let reduced = round_channels(inner as f64 / 4.0);
                (reduced, Activation::Relu, Activation::HardSigmoid)
            }
        };
        let name = format!("{block}.se");
        let op = SqueezeExcite::new(self.root, &name, (inner, reduced), (activation, gate));
        Some(Op::SqueezeExcite(op))
    }

    fn unit(
        &self,
        names: (&str, &str),
        channels: (i64, i64),
        size: (i64, i64),
        groups: i64,
        activation: Activation,
    ) -> Op {
        let shape = self.shape(channels, size, groups);
        Op::ConvNorm(ConvNorm::new(
            self.root,
            names,
            shape,
            self.config.eps,
            activation,
        ))
    }

    fn shape(
        &self,
        (inputs, outputs): (i64, i64),
        (kernel, stride): (i64, i64),
        groups: i64,
    ) -> ConvShape {
        ConvShape {
            inputs,
            outputs,
            kernel,
            stride,
            groups,
            padding: self.config.padding,
        }
    }
}
