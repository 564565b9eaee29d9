//! What blocks are made of: convolution with BatchNorm, squeeze-and-excitation, max pooling. Built under a
//! `tch::nn::Path` so that a `VarStore` knows every tensor by its timm name; initial values are set here, because tch's
//! defaults differ from PyTorch's.

use tch::{Tensor, nn};

/// How much a BatchNorm's running statistics move towards the batch's in one step (PyTorch's default).
const MOMENTUM: f64 = 0.1;

/// Which statistics BatchNorm uses; see `Trunk::forward`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// The running ones, which stay.
    Running,
    /// The batch's where the layer trains, and the running ones are updated; the running ones elsewhere.
    Batch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    None,
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `x * sigmoid(x)`, also called swish.
    Silu,
    /// `x * relu6(x + 3) / 6` (Howard et al. 2019).
    HardSwish,
    Sigmoid,
    /// `relu6(x + 3) / 6`
    HardSigmoid,
}

impl Activation {
    /// Takes `x` over: its memory is used again where that is safe for the gradient.
    pub fn apply(self, mut x: Tensor) -> Tensor {
        match self {
            Self::None => x,
            Self::Relu => x.relu_(),
            Self::Relu6 => x.relu6_(),
            // Its gradient needs its input.
            Self::Silu if !x.requires_grad() => x.silu_(),
            Self::Silu => x.silu(),
            Self::HardSwish => x.hardswish(),
            Self::Sigmoid => x.sigmoid(),
            Self::HardSigmoid => x.hardsigmoid(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// `kernel / 2` on every side.
    Half,
    /// TensorFlow's `SAME`: as much as makes the output `ceil(input / stride)`, the odd one at the bottom and right.
    Same,
}

/// The shape of a convolution.
#[derive(Debug, Clone, Copy)]
pub struct ConvShape {
    pub inputs: i64,
    pub outputs: i64,
    pub kernel: i64,
    pub stride: i64,
    /// 1, or `inputs` for a depthwise one.
    pub groups: i64,
    pub padding: Padding,
}

/// One step of a block.
#[derive(Debug)]
pub enum Op {
    ConvNorm(ConvNorm),
    /// A convolution with bias and an activation: what `fast` makes of a `ConvNorm`.
    Conv {
        conv: Conv,
        activation: Activation,
    },
    SqueezeExcite(SqueezeExcite),
    /// 3x3 at stride 2, one pixel of padding (ResNet's stem).
    MaxPool,
    /// The mean over all places: [N, C, h, w] to [N, C, 1, 1].
    GlobalPool,
}

/// A convolution without bias, BatchNorm, and an activation.
#[derive(Debug)]
pub struct ConvNorm {
    pub conv: Conv,
    pub norm: BatchNorm,
    pub activation: Activation,
}

/// A convolution. `weight` is [outputs, inputs / groups, kernel, kernel].
#[derive(Debug)]
pub struct Conv {
    pub name: String,
    pub weight: Tensor,
    pub bias: Option<Tensor>,
    pub shape: ConvShape,
}

/// Ioffe & Szegedy 2015, over the channels of [N, C, h, w].
#[derive(Debug)]
pub struct BatchNorm {
    pub name: String,
    pub weight: Tensor,
    pub bias: Tensor,
    pub running_mean: Tensor,
    /// Unbiased.
    pub running_var: Tensor,
    pub eps: f64,
}

/// Hu et al. 2018: channels are scaled by `gate(expand(activation(reduce(mean))))`, timm's `SqueezeExcite`.
#[derive(Debug)]
pub struct SqueezeExcite {
    pub reduce: Conv,
    pub activation: Activation,
    pub expand: Conv,
    pub gate: Activation,
}

/// The path of a dotted name such as `layer1.0.conv1`.
fn at<'a>(root: &nn::Path<'a>, name: &str) -> nn::Path<'a> {
    name.split('.').fold(root.clone(), |path, part| path / part)
}

impl Conv {
    /// Fresh weights from N(0, 2 / fan_out) (He et al. 2015), bias 0.
    pub fn new(root: &nn::Path, name: &str, shape: ConvShape, bias: bool) -> Self {
        let path = at(root, name);
        let fan_out = shape.outputs * shape.kernel * shape.kernel / shape.groups;
        let init = nn::Init::Randn {
            mean: 0.0,
            stdev: (2.0 / fan_out as f64).sqrt(),
        };
        let dims = [
            shape.outputs,
            shape.inputs / shape.groups,
            shape.kernel,
            shape.kernel,
        ];
        Self {
            name: name.to_owned(),
            weight: path.var("weight", &dims, init),
            bias: bias.then(|| path.var("bias", &[shape.outputs], nn::Init::Const(0.0))),
            shape,
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
        let convolve = |x: &Tensor, pad: i64| {
            x.conv2d(
                &self.weight,
                self.bias.as_ref(),
                [stride, stride],
                [pad, pad],
                [1, 1],
                groups,
            )
        };
        match padding {
            Padding::Half => convolve(x, kernel / 2),
            Padding::Same if stride == 1 => convolve(x, kernel / 2),
            Padding::Same => {
                let size = x.size();
                let (top, bottom) = same_padding(size[2], kernel, stride);
                let (left, right) = same_padding(size[3], kernel, stride);
                convolve(&x.constant_pad_nd([left, right, top, bottom]), 0)
            }
        }
    }

    fn visit(&self, tell: &mut impl FnMut(String, &Tensor, bool)) {
        tell(format!("{}.weight", self.name), &self.weight, true);
        if let Some(bias) = &self.bias {
            tell(format!("{}.bias", self.name), bias, true);
        }
    }
}

/// What TensorFlow's `SAME` adds before and after a side of this length.
fn same_padding(side: i64, kernel: i64, stride: i64) -> (i64, i64) {
    let outputs = (side + stride - 1) / stride;
    let total = ((outputs - 1) * stride + kernel - side).max(0);
    (total / 2, total - total / 2)
}

impl BatchNorm {
    /// The identity, but for `eps`.
    pub fn new(root: &nn::Path, name: &str, channels: i64, eps: f64) -> Self {
        let path = at(root, name);
        Self {
            name: name.to_owned(),
            weight: path.var("weight", &[channels], nn::Init::Const(1.0)),
            bias: path.var("bias", &[channels], nn::Init::Const(0.0)),
            running_mean: path.zeros_no_train("running_mean", &[channels]),
            running_var: path.ones_no_train("running_var", &[channels]),
            eps,
        }
    }

    pub fn forward(&self, x: &Tensor, norm: Norm) -> Tensor {
        let train = norm == Norm::Batch && self.weight.requires_grad();
        x.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            train,
            MOMENTUM,
            self.eps,
            true,
        )
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
    /// `inner` channels between the two 1x1 convolutions.
    pub fn new(
        root: &nn::Path,
        name: &str,
        (channels, inner): (i64, i64),
        (activation, gate): (Activation, Activation),
    ) -> Self {
        let shape = |inputs, outputs| ConvShape {
            inputs,
            outputs,
            kernel: 1,
            stride: 1,
            groups: 1,
            padding: Padding::Half,
        };
        Self {
            reduce: Conv::new(
                root,
                &format!("{name}.conv_reduce"),
                shape(channels, inner),
                true,
            ),
            activation,
            expand: Conv::new(
                root,
                &format!("{name}.conv_expand"),
                shape(inner, channels),
                true,
            ),
            gate,
        }
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mean = x.mean_dim(&[2i64, 3][..], true, None);
        let reduced = self.activation.apply(self.reduce.forward(&mean));
        x * self.gate.apply(self.expand.forward(&reduced))
    }
}

impl Op {
    pub fn forward(&self, x: &Tensor, norm: Norm) -> Tensor {
        match self {
            Self::ConvNorm(op) => op
                .activation
                .apply(op.norm.forward(&op.conv.forward(x), norm)),
            Self::Conv { conv, activation } => activation.apply(conv.forward(x)),
            Self::SqueezeExcite(op) => op.forward(x),
            Self::MaxPool => x.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false),
            Self::GlobalPool => x.mean_dim(&[2i64, 3][..], true, None),
        }
    }

    /// Tells every tensor, in timm's order: its name, the tensor, and whether it is a parameter.
    pub fn visit(&self, tell: &mut impl FnMut(String, &Tensor, bool)) {
        match self {
            Self::ConvNorm(op) => {
                op.conv.visit(tell);
                let norm = &op.norm;
                tell(format!("{}.weight", norm.name), &norm.weight, true);
                tell(format!("{}.bias", norm.name), &norm.bias, true);
                tell(
                    format!("{}.running_mean", norm.name),
                    &norm.running_mean,
                    false,
                );
                tell(
                    format!("{}.running_var", norm.name),
                    &norm.running_var,
                    false,
                );
            }
            Self::Conv { conv, .. } => conv.visit(tell),
            Self::SqueezeExcite(op) => {
                op.reduce.visit(tell);
                op.expand.visit(tell);
            }
            Self::MaxPool | Self::GlobalPool => {}
        }
    }
}
