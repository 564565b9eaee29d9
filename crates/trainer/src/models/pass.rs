//! Shared by all operations: how a pass runs, activations, and the names of tensors.

use tch::{Tensor, nn};

/// Receives a tensor: its name in timm's state dict, the tensor, and whether it is a parameter.
pub type Visitor<'a> = dyn FnMut(String, &Tensor, bool) + 'a;

/// Which statistics BatchNorm uses; see `Backbone::forward`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// The running ones, which stay.
    Running,
    /// The batch's where the layer trains, and the running ones are updated; the running ones
    /// elsewhere.
    Batch,
}

/// How one pass runs through the operations.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    pub norm: Norm,
    /// In training, the key of the masks of adapters' dropout; `None` drops nothing.
    pub dropout: Option<u64>,
    /// For texts: [N, T], 1 for a token and 0 behind the text's end. `None` for images, and for
    /// texts of one length.
    pub mask: Option<&'a Tensor>,
}

impl From<Norm> for Pass<'_> {
    fn from(norm: Norm) -> Self {
        Self {
            norm,
            dropout: None,
            mask: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    None,
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `x * sigmoid(x)`, also called swish.
    Silu,
    /// `x * relu6(x + 3) / 6`
    HardSwish,
    /// `x * Φ(x)`, exact.
    Gelu,
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
            Self::HardSwish if !x.requires_grad() => x.hardswish_(),
            Self::HardSwish => x.hardswish(),
            Self::Gelu => x.gelu("none"),
        }
    }
}

/// The path of a dotted name such as `layer1.0.conv1`.
pub(super) fn at<'a>(root: &nn::Path<'a>, name: &str) -> nn::Path<'a> {
    name.split('.').fold(root.clone(), |path, part| path / part)
}

/// Applies `f`, which works on the last dimension, to the channels: the second dimension of maps
/// [N, C, h, w], the last of tokens [N, T, C].
pub(super) fn over_channels(x: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
    if x.dim() == 4 {
        f(&x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2])
    } else {
        f(x)
    }
}
