//! Convolutions for inference on a CPU: oneDNN computes the convolution, its bias, the activation
//! and the sum with a shortcut in one pass, with weights in an order of its own. tch has no name
//! for these operators; `shim.cpp` calls them through libtorch's dispatcher.

use std::{
    ffi::{CStr, c_char, c_void},
    ptr,
    sync::{PoisonError, RwLock},
};

use tch::{TchError, Tensor};

use super::calls::{is_known, made};
use crate::models::{
    conv::Conv,
    message::{self, Message},
    pass::Activation,
    torch_error::is_out_of_memory,
};

/// A convolution and an activation. Computes as `Conv` does where oneDNN cannot: on a GPU, for
/// other numbers than f32 and bf16, and while a TorchScript program is traced.
///
/// Here an activation of NaN may be a number: oneDNN's takes maxima as the processor does.
#[derive(Debug)]
pub struct FusedConv {
    activation: Activation,
    weights: RwLock<Weights>,
}

#[derive(Debug)]
enum Weights {
    /// Until the first input, and where oneDNN does not take it.
    Plain {
        conv: Conv,
        can_pack: bool,
    },
    Packed(Packed),
}

/// Weights in oneDNN's order, and the inputs that they are for.
#[derive(Debug)]
struct Packed {
    weight: Tensor,
    padding: [i64; 2],
    /// Zeros before the kernel's first row and column.
    added: [i64; 2],
    /// Height and width of the input.
    side: [i64; 2],
    /// The convolution, without its weight.
    conv: Conv,
}

/// `rehead_convolution` of `shim.cpp`.
#[repr(C)]
struct Shape {
    padding: [i64; 2],
    stride: [i64; 2],
    groups: i64,
    activation: *const c_char,
    scalars: [f64; 2],
    scalar_count: i64,
}

unsafe extern "C" {
    fn rehead_convolve(
        x: *const c_void,
        shortcut: *const c_void,
        weight: *const c_void,
        bias: *const c_void,
        shape: *const Shape,
        message: *mut c_char,
        message_bytes: usize,
    ) -> *mut c_void;
}

impl FusedConv {
    pub fn new(conv: Conv, activation: Activation) -> Self {
        Self {
            activation,
            weights: RwLock::new(Weights::Plain {
                conv,
                can_pack: true,
            }),
        }
    }

    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// `activation(conv(x))` of [N, inputs, h, w].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let fused = |packed: &Packed| packed.convolve(x, None, self.activation);
        let fused = self.with_packed(x, fused);
        fused.unwrap_or_else(|| self.activation.apply(self.plain().forward(x)))
    }

    /// `activation(conv(x) + shortcut)`: of the block that ends with this convolution, which has no
    /// activation of its own.
    pub fn forward_onto(&self, x: &Tensor, shortcut: &Tensor, activation: Activation) -> Tensor {
        let adds = matches!(activation, Activation::None | Activation::Relu)
            && self.activation == Activation::None;
        let fused = |packed: &Packed| packed.convolve(x, Some(shortcut), activation);
        let fused = if adds {
            self.with_packed(x, fused)
        } else {
            None
        };
        fused.unwrap_or_else(|| activation.apply(self.forward(x) + shortcut))
    }

    /// Calls `compute` with the packed weights, if they can be used for this input.
    fn with_packed(&self, x: &Tensor, compute: impl Fn(&Packed) -> Tensor) -> Option<Tensor> {
        if !is_known(x) || x.dim() != 4 {
            return None;
        }
        // A thread that failed has changed nothing.
        let read = || self.weights.read().unwrap_or_else(PoisonError::into_inner);
        let is_packable = matches!(*read(), Weights::Plain { can_pack: true, .. });
        if is_packable {
            let mut weights = self.weights.write().unwrap_or_else(PoisonError::into_inner);
            weights.pack(x);
        }
        match &*read() {
            Weights::Packed(packed) if packed.side == x.size()[2..] => Some(compute(packed)),
            _ => None,
        }
    }

    /// The convolution as it was given.
    pub fn plain(&self) -> Conv {
        let weights = self.weights.read().unwrap_or_else(PoisonError::into_inner);
        match &*weights {
            Weights::Plain { conv, .. } => conv.shared(),
            Weights::Packed(packed) => packed.plain(),
        }
    }
}

/// The copy packs its own weights.
impl Clone for FusedConv {
    fn clone(&self) -> Self {
        Self::new(self.plain(), self.activation)
    }
}

impl Weights {
    /// Replaces the weights by packed ones for inputs of the size of `x`. They stay plain where
    /// this build of libtorch, or oneDNN, has no way to compute it.
    ///
    /// # Panics
    /// When memory runs out, as operators of torch do.
    fn pack(&mut self, x: &Tensor) {
        // Another thread may have done it meanwhile.
        let Self::Plain { conv, can_pack } = self else {
            return;
        };
        match Packed::new(conv, x) {
            Ok(packed) => *self = Self::Packed(packed),
            Err(error) if is_out_of_memory(&error.to_string()) => panic!("{error}"),
            Err(_) => *can_pack = false,
        }
    }
}

impl Packed {
    fn new(conv: &Conv, x: &Tensor) -> Result<Self, TchError> {
        let size = x.size();
        let (stride, groups) = (conv.shape.stride, conv.shape.groups);
        let [vertical, horizontal] = conv.padding_of([size[2], size[3]]);
        // One more pixel at the end is the same as one more on both sides, under a kernel that is
        // one larger and begins with zeros.
        let added = [vertical, horizontal].map(|(before, after)| after - before);
        let padding = [vertical.1, horizontal.1];
        let weight = match added {
            [0, 0] => conv.weight.shallow_clone(),
            [top, left] => conv.weight.f_constant_pad_nd([left, 0, top, 0])?,
        };
        let weight = weight.f_to_mkldnn(weight.kind())?;
        let weight = weight.f_mkldnn_reorder_conv2d_weight(
            padding,
            [stride; 2],
            [1, 1],
            groups,
            size.as_slice(),
        )?;
        Ok(Self {
            weight,
            padding,
            added,
            side: [size[2], size[3]],
            conv: Conv {
                weight: conv.weight.replaced(Tensor::new()),
                ..conv.shared()
            },
        })
    }

    /// `activation(conv(x) + shortcut)`.
    fn convolve(&self, x: &Tensor, shortcut: Option<&Tensor>, activation: Activation) -> Tensor {
        let Some((name, scalars)) = attribute(activation) else {
            let map = self.convolve(x, shortcut, Activation::None);
            return activation.apply(map);
        };
        let mut numbers = [0.0; 2];
        numbers[..scalars.len()].copy_from_slice(scalars);
        let shape = Shape {
            padding: self.padding,
            stride: [self.conv.shape.stride; 2],
            groups: self.conv.shape.groups,
            activation: name.as_ptr(),
            scalars: numbers,
            scalar_count: scalars.len() as i64,
        };
        let address = |tensor: &Tensor| tensor.as_ptr().cast::<c_void>();
        let optional = |tensor: Option<&Tensor>| tensor.map_or(ptr::null(), address);
        let mut message = Message::default();
        // SAFETY: all tensors live until the call returns, and the message has the length that is
        // given.
        let map = unsafe {
            let map = rehead_convolve(
                address(x),
                optional(shortcut),
                address(&self.weight),
                optional(self.conv.bias.as_deref()),
                &raw const shape,
                message.as_mut_ptr(),
                message::BYTES,
            );
            made(map, &message)
        };
        // As tch's own calls do.
        map.unwrap_or_else(|message| panic!("{message}"))
    }

    /// The convolution that was packed.
    fn plain(&self) -> Conv {
        let [top, left] = self.added;
        let [height, width] = self.conv.shape.kernel;
        let whole = self.weight.to_dense(None, false);
        let weight = whole.narrow(2, top, height).narrow(3, left, width);
        Conv {
            weight: self.conv.weight.replaced(weight),
            ..self.conv.shared()
        }
    }
}

/// The name that oneDNN's operators have for an activation, and its numbers; `None` where it has to
/// be an operation of its own.
fn attribute(activation: Activation) -> Option<(&'static CStr, &'static [f64])> {
    Some(match activation {
        Activation::None => (c"none", &[]),
        Activation::Relu => (c"relu", &[]),
        Activation::Relu6 => (c"hardtanh", &[0.0, 6.0]),
        Activation::Silu => (c"swish", &[]),
        Activation::HardSwish => (c"hardswish", &[]),
        Activation::Gelu | Activation::QuickGelu => return None,
    })
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, nn};

    use super::{super::ACTIVATIONS, *};
    use crate::models::conv::{ConvShape, Padding};

    fn shapes() -> Vec<ConvShape> {
        let mut shapes = vec![
            ConvShape::dense((8, 16), (1, 1)),
            ConvShape::dense((8, 16), (3, 2)),
            ConvShape::depthwise(8, (5, 1)),
            ConvShape::patches((8, 16), 4),
        ];
        for (kernel, stride) in [(3, 2), (5, 2), (3, 1)] {
            shapes.push(ConvShape {
                padding: Padding::Same,
                ..ConvShape::depthwise(8, (kernel, stride))
            });
        }
        shapes
    }

    fn error(ours: &Tensor, plain: &Tensor) -> f64 {
        assert_eq!(ours.size(), plain.size());
        let scale = plain.abs().max().double_value(&[]);
        (ours - plain).abs().max().double_value(&[]) / scale
    }

    #[test]
    fn fused_convolutions_equal_plain_ones() {
        let _no_gradients = tch::no_grad_guard();
        tch::manual_seed(1);
        let vs = nn::VarStore::new(Device::Cpu);
        let random = |shape: [i64; 4]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        for (number, shape) in shapes().into_iter().enumerate() {
            let name = format!("conv{number}");
            let conv = Conv::new(&vs.root(), &name, shape, number % 2 == 0);
            for activation in ACTIVATIONS {
                let fused = FusedConv::new(conv.clone(), activation);
                // An even side, an odd one that weights were not packed for, and the first again.
                for (side, is_packed) in [(12, true), (13, false), (12, true)] {
                    let x = random([2, shape.inputs, side, side]);
                    let plain = activation.apply(conv.forward(&x));
                    let case = format!("{shape:?}, {activation:?}, {side}");
                    assert!(error(&fused.forward(&x), &plain) < 1e-5, "{case}");
                    let used = fused.with_packed(&x, |_| Tensor::new()).is_some();
                    assert_eq!(used, is_packed, "{case}");
                }
                let x = random([2, shape.inputs, 12, 12]);
                let open = FusedConv::new(conv.clone(), Activation::None);
                let out = conv.forward(&x);
                let shortcut = out.rand_like();
                let plain = activation.apply(out + &shortcut);
                let ours = open.forward_onto(&x, &shortcut, activation);
                assert!(
                    error(&ours, &plain) < 1e-5,
                    "{shape:?} onto, {activation:?}"
                );
                assert!(open.clone().plain().weight.equal(&conv.weight));
            }
        }
    }
}
