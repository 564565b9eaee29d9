//! SqueezeNet 1.1 (Iandola et al. 2016, <https://arxiv.org/abs/1602.07360>), as in torchvision. Its
//! classifier was a 1x1 convolution and a ReLU before pooling; here as everywhere features are
//! pooled first, so a new head is an ordinary linear layer under the same name, `classifier.1`.

use tch::nn;

use super::{
    architecture::{Architecture, Builder, Family, imagenet},
    backbone::{Backbone, Stage},
    conv::{Conv, ConvShape, Padding},
    ops::Op,
    pass::Activation,
};
use crate::domain::base_model::{Interpolation, Preprocessing};

/// The one member of the family.
#[derive(Debug)]
struct SqueezeNet;

pub(super) static ARCHITECTURES: &[Architecture] = &[Architecture {
    name: "squeezenet1_1",
    library: "torchvision",
    feature_dim: 512,
    classifier: "classifier.1",
    stem: "features.0.weight",
    input: imagenet(224, 0.875, Interpolation::Bilinear),
    builder: Builder::Image(&SqueezeNet),
}];

/// The fire modules: place in torchvision's `features`, squeezed channels, and those of either
/// expansion.
const MODULES: [(i64, i64, i64); 8] = [
    (3, 16, 64),
    (4, 16, 64),
    (6, 32, 128),
    (7, 32, 128),
    (9, 48, 192),
    (10, 48, 192),
    (11, 64, 256),
    (12, 64, 256),
];

/// Modules before which torchvision's `features` have a max pooling.
const POOLED: [i64; 3] = [3, 6, 9];

impl Family<Preprocessing> for SqueezeNet {
    /// Stages `stem`, then a fire module each: `features.3`, `features.4`, `features.6` …
    /// `features.12`.
    fn build(&self, root: &nn::Path, input: &Preprocessing) -> Backbone {
        let channels = i64::from(input.channels);
        let conv = |name: &str, shape| Conv::new(root, name, shape, true);
        let shape = ConvShape {
            padding: Padding::None,
            ..ConvShape::dense((channels, 64), (3, 2))
        };
        let stem = Op::Conv(conv("features.0", shape), Activation::Relu);
        let mut stages = vec![Stage::plain("stem", vec![stem], 64)];
        let mut inputs = 64;
        for (module, squeezed, outputs) in MODULES {
            let name = format!("features.{module}");
            let part = |part: &str, inputs, outputs, kernel| {
                let shape = ConvShape::dense((inputs, outputs), (kernel, 1));
                Op::Conv(conv(&format!("{name}.{part}"), shape), Activation::Relu)
            };
            let fire = [
                part("squeeze", inputs, squeezed, 1),
                Op::Branches(vec![
                    vec![part("expand1x1", squeezed, outputs, 1)],
                    vec![part("expand3x3", squeezed, outputs, 3)],
                ]),
            ];
            let pool = POOLED.contains(&module).then_some(Op::MaxPoolCeil);
            inputs = 2 * outputs;
            let body = pool.into_iter().chain(fire).collect();
            stages.push(Stage::plain(&name, body, inputs));
        }
        Backbone { stages }
    }
}
