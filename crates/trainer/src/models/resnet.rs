//! ResNet (He et al. 2015, <https://arxiv.org/abs/1512.03385>), as in timm 1.0 `resnet.py` and
//! torchvision: the stride of a bottleneck sits on its 3x3 convolution ("v1.5"). Weights of timm's
//! and torchvision's fit; the preprocessing is that of torchvision's. With it: ResNeXt (Xie et al.
//! 2016, <https://arxiv.org/abs/1611.05431>), Wide ResNet (Zagoruyko and Komodakis 2016,
//! <https://arxiv.org/abs/1605.07146>) and ResNet-D (He et al. 2018,
//! <https://arxiv.org/abs/1812.01187>), whose preprocessing is that of timm's weights.

use tch::nn;

use super::{
    architecture::{Architecture, Builder, Family, imagenet},
    backbone::{Backbone, Block, Stage},
    conv::{ConvNorm, ConvShape},
    ops::Op,
    pass::Activation,
};
use crate::domain::base_model::{Interpolation, Preprocessing};

const EPS: f64 = 1e-5;

/// The configuration of one ResNet.
#[derive(Debug)]
struct Config {
    /// Blocks of layer1 to layer4.
    depths: [i64; 4],
    /// Blocks of 1x1, 3x3 and 1x1 convolutions, with four times the outputs, instead of two 3x3
    /// convolutions.
    is_bottleneck: bool,
    /// Groups of a bottleneck's 3x3 convolution, and channels of each in layer1.
    groups: i64,
    group_width: i64,
    /// ResNet-D: three 3x3 convolutions in the stem, and shortcuts that average before they
    /// convolve.
    is_d: bool,
}

const fn basic(depths: [i64; 4]) -> Config {
    Config {
        depths,
        is_bottleneck: false,
        groups: 1,
        group_width: 64,
        is_d: false,
    }
}

const fn bottleneck(depths: [i64; 4]) -> Config {
    Config {
        is_bottleneck: true,
        ..basic(depths)
    }
}

/// Bottlenecks with groups of this many channels.
const fn grouped(depths: [i64; 4], groups: i64, group_width: i64) -> Config {
    Config {
        groups,
        group_width,
        ..bottleneck(depths)
    }
}

/// The D variant.
const fn d(config: Config) -> Config {
    Config {
        is_d: true,
        ..config
    }
}

const fn architecture(name: &'static str, config: &'static Config) -> Architecture {
    Architecture {
        name,
        library: "timm",
        feature_dim: if config.is_bottleneck { 2048 } else { 512 },
        classifier: "fc",
        stem: if config.is_d {
            "conv1.0.weight"
        } else {
            "conv1.weight"
        },
        input: if config.is_d {
            imagenet(224, 0.875, Interpolation::Bicubic)
        } else {
            imagenet(224, 0.875, Interpolation::Bilinear)
        },
        builder: Builder::Image(config),
    }
}

/// Blocks of ResNet-50 and 101.
const R50: [i64; 4] = [3, 4, 6, 3];
const R101: [i64; 4] = [3, 4, 23, 3];

pub(super) static ARCHITECTURES: &[Architecture] = &[
    architecture("resnet18", &const { basic([2, 2, 2, 2]) }),
    architecture("resnet34", &const { basic(R50) }),
    architecture("resnet50", &const { bottleneck(R50) }),
    architecture("resnet101", &const { bottleneck(R101) }),
    architecture("resnet152", &const { bottleneck([3, 8, 36, 3]) }),
    architecture("resnet18d", &const { d(basic([2, 2, 2, 2])) }),
    architecture("resnet34d", &const { d(basic(R50)) }),
    architecture("resnet50d", &const { d(bottleneck(R50)) }),
    architecture("resnet101d", &const { d(bottleneck(R101)) }),
    architecture("resnext50_32x4d", &const { grouped(R50, 32, 4) }),
    architecture("resnext101_32x8d", &const { grouped(R101, 32, 8) }),
    architecture("wide_resnet50_2", &const { grouped(R50, 1, 128) }),
];

impl Family<Preprocessing> for Config {
    /// Stages `stem`, `layer1` … `layer4`.
    fn build(&self, root: &nn::Path, input: &Preprocessing) -> Backbone {
        let inputs = i64::from(input.channels);
        let unit = |names, channels, size| {
            let shape = ConvShape::dense(channels, size);
            conv(root, names, shape, Activation::Relu)
        };
        let mut stem = if self.is_d {
            vec![
                unit(("conv1.0", "conv1.1"), (inputs, 32), (3, 2)),
                unit(("conv1.3", "conv1.4"), (32, 32), (3, 1)),
                unit(("conv1.6", "bn1"), (32, 64), (3, 1)),
            ]
        } else {
            vec![unit(("conv1", "bn1"), (inputs, 64), (7, 2))]
        };
        stem.push(Op::MaxPool);
        let mut stages = vec![Stage::plain("stem", stem, 64)];
        let expansion = if self.is_bottleneck { 4 } else { 1 };
        let mut channels = 64;
        for (index, &depth) in (0..).zip(&self.depths) {
            let name = format!("layer{}", index + 1);
            let width = (self.groups * self.group_width) << index;
            let outputs = expansion * (64 << index);
            let blocks = (0..depth)
                .map(|place| {
                    let stride = if place == 0 && index > 0 { 2 } else { 1 };
                    let inputs = if place == 0 { channels } else { outputs };
                    let name = format!("{name}.{place}");
                    residual(root, name, self, (inputs, width, outputs), stride)
                })
                .collect();
            stages.push(Stage {
                name,
                blocks,
                channels: outputs,
            });
            channels = outputs;
        }
        Backbone { stages }
    }
}

fn residual(
    root: &nn::Path,
    name: String,
    config: &Config,
    (inputs, width, outputs): (i64, i64, i64),
    stride: i64,
) -> Block {
    let unit = |index: i64, shape, activation| {
        let names = (format!("{name}.conv{index}"), format!("{name}.bn{index}"));
        conv(root, (&names.0, &names.1), shape, activation)
    };
    let dense = ConvShape::dense;
    let body = if config.is_bottleneck {
        let grouped = ConvShape {
            groups: config.groups,
            ..dense((width, width), (3, stride))
        };
        vec![
            unit(1, dense((inputs, width), (1, 1)), Activation::Relu),
            unit(2, grouped, Activation::Relu),
            unit(3, dense((width, outputs), (1, 1)), Activation::None),
        ]
    } else {
        vec![
            unit(1, dense((inputs, width), (3, stride)), Activation::Relu),
            unit(2, dense((width, outputs), (3, 1)), Activation::None),
        ]
    };
    let shortcut = if stride == 1 && inputs == outputs {
        vec![]
    } else {
        shortcut(root, &name, config, (inputs, outputs), stride)
    };
    Block {
        name,
        body,
        shortcut: Some(shortcut),
        activation: Activation::Relu,
    }
}

/// A 1x1 convolution to another shape.
fn shortcut(
    root: &nn::Path,
    name: &str,
    config: &Config,
    channels: (i64, i64),
    stride: i64,
) -> Vec<Op> {
    // In the D variant, the first part is a pooling, or nothing.
    let (first, conv_stride) = if config.is_d { (1, 1) } else { (0, stride) };
    let part = |index: i64| format!("{name}.downsample.{index}");
    let shape = ConvShape::dense(channels, (1, conv_stride));
    let names = (part(first), part(first + 1));
    let conv = conv(root, (&names.0, &names.1), shape, Activation::None);
    if config.is_d && stride > 1 {
        vec![Op::AvgPoolCeil, conv]
    } else {
        vec![conv]
    }
}

fn conv(root: &nn::Path, names: (&str, &str), shape: ConvShape, activation: Activation) -> Op {
    Op::ConvNorm(ConvNorm::new(root, names, shape, EPS, activation))
}
