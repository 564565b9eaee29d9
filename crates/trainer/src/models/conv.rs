//! Convolutions, BatchNorm and the modules made of them. Every tensor is created under a
//! `tch::nn::Path`, so that a `VarStore` knows it by its timm name. Initial values are set here,
//! because tch's defaults differ from PyTorch's.

use tch::{Kind, Tensor, nn};

use super::pass::{Activation, Norm, ONES, Param, ZEROS, batch_norm};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// `kernel / 2` on every side.
    Half,
    None,
    /// TensorFlow's `SAME`: as much as makes the output `ceil(input / stride)`, the odd one at the
    /// bottom and right.
    Same,
}

/// The shape of a convolution.
#[derive(Debug, Clone, Copy)]
pub struct ConvShape {
    pub inputs: i64,
    pub outputs: i64,
    /// Height and width.
    pub kernel: [i64; 2],
    pub stride: i64,
    /// 1, or `inputs` for a depthwise one.
    pub groups: i64,
    pub padding: Padding,
}

impl ConvShape {
    /// From all inputs to all outputs, padded by half the kernel.
    pub fn dense((inputs, outputs): (i64, i64), (kernel, stride): (i64, i64)) -> Self {
        Self {
            inputs,
            outputs,
            kernel: [kernel; 2],
            stride,
            groups: 1,
            padding: Padding::Half,
        }
    }

    /// From each channel to itself.
    pub fn depthwise(channels: i64, size: (i64, i64)) -> Self {
        Self {
            groups: channels,
            ..Self::dense((channels, channels), size)
        }
    }

    /// From squares of `side` pixels that do not overlap.
    pub fn patches(channels: (i64, i64), side: i64) -> Self {
        Self {
            padding: Padding::None,
            ..Self::dense(channels, (side, side))
        }
    }
}

/// A convolution without bias, BatchNorm, and an activation.
#[derive(Debug, Clone)]
pub struct ConvNorm {
    pub conv: Conv,
    pub norm: BatchNorm,
    pub activation: Activation,
}

/// A convolution. `weight` is [outputs, inputs / groups, height, width].
#[derive(Debug, Clone)]
pub struct Conv {
    pub weight: Param,
    pub bias: Option<Param>,
    pub shape: ConvShape,
}

/// Ioffe & Szegedy 2015, over the channels of [N, C, h, w].
#[derive(Debug, Clone)]
pub struct BatchNorm {
    pub weight: Param,
    pub bias: Param,
    pub running_mean: Param,
    /// Unbiased.
    pub running_var: Param,
    pub eps: f64,
}

/// The two functions of a `SqueezeExcite`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// SiLU inside, sigmoid at the end.
    Sigmoid,
    /// ReLU inside, `relu6(x + 3) / 6` at the end.
    HardSigmoid,
    /// ReLU inside, sigmoid at the end.
    ReluSigmoid,
}

/// Hu et al. 2018: channels are scaled by `gate(expand(act(reduce(mean))))`, timm's
/// `SqueezeExcite`.
#[derive(Debug, Clone)]
pub struct SqueezeExcite {
    pub gate: Gate,
    pub reduce: Conv,
    pub expand: Conv,
}

impl Conv {
    /// Fresh weights from N(0, 2 / fan_out) (He et al. 2015), bias 0.
    pub fn new(root: &nn::Path, name: &str, shape: ConvShape, bias: bool) -> Self {
        let part =
            |part: &str, dims: &[i64], init| Param::new(root, format!("{name}.{part}"), dims, init);
        let ConvShape {
            inputs,
            outputs,
            kernel: [height, width],
            groups,
            ..
        } = shape;
        let fan_out = outputs * height * width / groups;
        let init = nn::Init::Randn {
            mean: 0.0,
            stdev: (2.0 / fan_out as f64).sqrt(),
        };
        Self {
            weight: part("weight", &[outputs, inputs / groups, height, width], init),
            bias: bias.then(|| part("bias", &[outputs], ZEROS)),
            shape,
        }
    }

    /// The same with numbers of this kind, for inference.
    pub(super) fn to_kind(&self, kind: Kind) -> Self {
        let cast = |param: &Param| param.replaced(param.to_kind(kind));
        Self {
            weight: cast(&self.weight),
            bias: self.bias.as_ref().map(cast),
            shape: self.shape,
        }
    }

    /// [N, inputs, h, w] to [N, outputs, h', w'].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let ConvShape {
            kernel,
            stride,
            groups,
            padding,
            ..
        } = self.shape;
        // No copy where the kinds are equal; otherwise gradients reach the weights through the
        // cast.
        let kind = x.kind();
        let weight = self.weight.to_kind(kind);
        let bias = self.bias.as_ref().map(|bias| bias.to_kind(kind));
        let convolve = |x: &Tensor, padding: [i64; 2]| {
            x.conv2d(
                &weight,
                bias.as_ref(),
                [stride, stride],
                padding,
                [1, 1],
                groups,
            )
        };
        let half = kernel.map(|side| side / 2);
        match padding {
            Padding::Half => convolve(x, half),
            Padding::None => convolve(x, [0, 0]),
            Padding::Same if stride == 1 => convolve(x, half),
            Padding::Same => {
                let size = x.size();
                let [(top, bottom), (left, right)] = self.padding_of([size[2], size[3]]);
                convolve(&x.constant_pad_nd([left, right, top, bottom]), [0, 0])
            }
        }
    }

    /// The pixels that are added before and after the rows and the columns of a map of this height
    /// and width.
    pub(super) fn padding_of(&self, sides: [i64; 2]) -> [(i64, i64); 2] {
        let ConvShape { kernel, stride, .. } = self.shape;
        [0, 1].map(|axis| match self.shape.padding {
            Padding::Half => (kernel[axis] / 2, kernel[axis] / 2),
            Padding::None => (0, 0),
            Padding::Same => same_padding(sides[axis], kernel[axis], stride),
        })
    }

    /// The same tensors.
    pub(super) fn shared(&self) -> Self {
        let share = |param: &Param| param.replaced(param.shallow_clone());
        Self {
            weight: share(&self.weight),
            bias: self.bias.as_ref().map(share),
            shape: self.shape,
        }
    }

    pub(super) fn params(&self) -> Vec<&Param> {
        [&self.weight].into_iter().chain(&self.bias).collect()
    }
}

/// The padding that TensorFlow's `SAME` adds before and after a side of this length.
fn same_padding(side: i64, kernel: i64, stride: i64) -> (i64, i64) {
    let outputs = (side + stride - 1) / stride;
    let total = ((outputs - 1) * stride + kernel - side).max(0);
    (total / 2, total - total / 2)
}

impl BatchNorm {
    /// The identity, but for `eps`.
    pub fn new(root: &nn::Path, name: &str, channels: i64, eps: f64) -> Self {
        let part = |part: &str, init| Param::new(root, format!("{name}.{part}"), &[channels], init);
        let statistic =
            |part: &str, value| Param::statistic(root, format!("{name}.{part}"), channels, value);
        Self {
            weight: part("weight", ONES),
            bias: part("bias", ZEROS),
            running_mean: statistic("running_mean", 0.0),
            running_var: statistic("running_var", 1.0),
            eps,
        }
    }

    pub fn forward(&self, x: &Tensor, norm: Norm<'_>) -> Tensor {
        let noted = match norm {
            Norm::Batch(noted) if self.weight.requires_grad() => Some(noted),
            _ => None,
        };
        let layer: [&Tensor; 4] = [
            &self.weight,
            &self.bias,
            &self.running_mean,
            &self.running_var,
        ];
        batch_norm(x, layer, noted, self.eps, true)
    }

    pub(super) fn params(&self) -> Vec<&Param> {
        vec![
            &self.weight,
            &self.bias,
            &self.running_mean,
            &self.running_var,
        ]
    }
}

impl ConvNorm {
    pub fn new(
        root: &nn::Path,
        (conv, norm): (&str, &str),
        shape: ConvShape,
        eps: f64,
        activation: Activation,
    ) -> Self {
        Self {
            conv: Conv::new(root, conv, shape, false),
            norm: BatchNorm::new(root, norm, shape.outputs, eps),
            activation,
        }
    }
}

impl SqueezeExcite {
    /// `names` are those of the two 1x1 convolutions, with `inner` channels between them.
    pub fn new(
        root: &nn::Path,
        names: [String; 2],
        (channels, inner): (i64, i64),
        gate: Gate,
    ) -> Self {
        let conv = |name: &str, channels| {
            let shape = ConvShape::dense(channels, (1, 1));
            Conv::new(root, name, shape, true)
        };
        Self {
            gate,
            reduce: conv(&names[0], (channels, inner)),
            expand: conv(&names[1], (inner, channels)),
        }
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mean = x.mean_dim(&[2i64, 3][..], true, None);
        let inner = self.reduce.forward(&mean);
        let scale = match self.gate {
            Gate::Sigmoid => self.expand.forward(&inner.silu()).sigmoid(),
            Gate::HardSigmoid => self.expand.forward(&inner.relu()).hardsigmoid(),
            Gate::ReluSigmoid => self.expand.forward(&inner.relu()).sigmoid(),
        };
        x * scale
    }
}
