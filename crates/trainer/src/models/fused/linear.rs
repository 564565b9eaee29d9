//! Linear layers for inference on a CPU: oneDNN computes the product, the bias and the activation
//! in one pass, with weights in an order of its own.

use std::{
    ffi::{CStr, c_char, c_void},
    ptr,
    sync::{PoisonError, RwLock},
};

use tch::Tensor;

use super::calls::{is_known, made};
use crate::models::{
    message::{self, Message},
    pass::Activation,
    torch_error::is_out_of_memory,
};

/// The weight of a linear layer: [outputs, inputs].
#[derive(Debug)]
pub struct FusedLinear(RwLock<Weight>);

#[derive(Debug)]
enum Weight {
    /// Until the first input, and where oneDNN does not take it.
    Plain {
        weight: Tensor,
        can_pack: bool,
    },
    Packed(Tensor),
}

unsafe extern "C" {
    fn rehead_pack_linear(
        weight: *const c_void,
        rows: i64,
        message: *mut c_char,
        message_bytes: usize,
    ) -> *mut c_void;
    fn rehead_linear(
        x: *const c_void,
        weight: *const c_void,
        bias: *const c_void,
        activation: *const c_char,
        algorithm: *const c_char,
        message: *mut c_char,
        message_bytes: usize,
    ) -> *mut c_void;
}

impl FusedLinear {
    pub fn new(weight: Tensor) -> Self {
        Self(RwLock::new(Weight::Plain {
            weight,
            can_pack: true,
        }))
    }

    /// `activation(x · weightᵀ + bias)` of x [..., inputs]; `None` where oneDNN cannot compute it:
    /// on a GPU, for other numbers than f32 and bf16, and while a TorchScript program is traced.
    pub fn forward(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
    ) -> Option<Tensor> {
        if !is_known(x) {
            return None;
        }
        // A thread that failed has changed nothing.
        let read = || self.0.read().unwrap_or_else(PoisonError::into_inner);
        let is_packable = matches!(*read(), Weight::Plain { can_pack: true, .. });
        if is_packable {
            let mut weight = self.0.write().unwrap_or_else(PoisonError::into_inner);
            weight.pack(x);
        }
        match &*read() {
            Weight::Packed(weight) => Some(multiply(x, weight, bias, activation)),
            Weight::Plain { .. } => None,
        }
    }

    /// The weight as it was given.
    pub fn weight(&self) -> Tensor {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Weight::Plain { weight, .. } => weight.shallow_clone(),
            Weight::Packed(weight) => weight.to_dense(None, false),
        }
    }
}

/// The copy packs its own weight.
impl Clone for FusedLinear {
    fn clone(&self) -> Self {
        Self::new(self.weight())
    }
}

impl Weight {
    /// Replaces the weight by a packed one, for as many rows as `x` has. It stays plain where this
    /// build of libtorch, or oneDNN, has no way to compute it.
    ///
    /// # Panics
    /// When memory runs out, as operators of torch do.
    fn pack(&mut self, x: &Tensor) {
        // Another thread may have done it meanwhile.
        let Self::Plain { weight, can_pack } = self else {
            return;
        };
        let rows = x.numel() as i64 / weight.size()[1];
        match packed(weight, rows) {
            Ok(packed) => *self = Self::Packed(packed),
            Err(error) if is_out_of_memory(&error) => panic!("{error}"),
            Err(_) => *can_pack = false,
        }
    }
}

fn packed(weight: &Tensor, rows: i64) -> Result<Tensor, String> {
    let mut message = Message::default();
    // SAFETY: the weight lives until the call returns, and the message has the length that is
    // given.
    unsafe {
        let weight = weight.as_ptr().cast::<c_void>();
        let address = rehead_pack_linear(weight, rows, message.as_mut_ptr(), message::BYTES);
        made(address, &message)
    }
}

/// `activation(x · weightᵀ + bias)`, with a packed weight.
fn multiply(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Tensor {
    let (name, algorithm): (&CStr, Option<&CStr>) = match activation {
        Activation::None => (c"none", None),
        Activation::Relu => (c"relu", None),
        Activation::Silu => (c"swish", None),
        Activation::HardSwish => (c"hardswish", None),
        Activation::Gelu => (c"gelu", Some(c"none")),
        Activation::Relu6 | Activation::QuickGelu => {
            return activation.apply(multiply(x, weight, bias, Activation::None));
        }
    };
    let address = |tensor: &Tensor| tensor.as_ptr().cast::<c_void>();
    let mut message = Message::default();
    // SAFETY: all tensors and names live until the call returns, and the message has the length
    // that is given.
    let product = unsafe {
        let product = rehead_linear(
            address(x),
            address(weight),
            bias.map_or(ptr::null(), address),
            name.as_ptr(),
            algorithm.map_or(ptr::null(), CStr::as_ptr),
            message.as_mut_ptr(),
            message::BYTES,
        );
        made(product, &message)
    };
    // As tch's own calls do.
    product.unwrap_or_else(|message| panic!("{message}"))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::{super::ACTIVATIONS, *};
    use crate::models::inference::has_bfloat16;

    #[test]
    fn fused_layers_equal_plain_ones() {
        let _no_gradients = tch::no_grad_guard();
        tch::manual_seed(1);
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        for kind in [Kind::Float, Kind::BFloat16] {
            let allowed = if kind == Kind::Float { 1e-5 } else { 2e-2 };
            for activation in ACTIVATIONS {
                let (weight, bias) = (random(&[24, 16]), random(&[24]));
                let fused = FusedLinear::new(weight.to_kind(kind));
                for shape in [&[7, 16][..], &[2, 5, 16], &[2, 3, 3, 16]] {
                    let x = random(shape);
                    let given = (shape.len() < 4).then_some(&bias);
                    let plain = activation.apply(x.linear(&weight, given));
                    let given = given.map(|bias| bias.to_kind(kind));
                    let found = fused.forward(&x.to_kind(kind), given.as_ref(), activation);
                    let Some(found) = found else {
                        let is_lacking = kind == Kind::BFloat16 && !has_bfloat16(Device::Cpu);
                        assert!(is_lacking, "oneDNN takes it");
                        continue;
                    };
                    assert_eq!((found.kind(), found.size()), (kind, plain.size()));
                    let error = (found.to_kind(Kind::Float) - &plain).abs().max();
                    let error = error.double_value(&[]) / plain.abs().max().double_value(&[]);
                    assert!(
                        error < allowed,
                        "{kind:?}, {activation:?}, {shape:?}: {error}"
                    );
                }
                assert!(fused.clone().weight().equal(&weight.to_kind(kind)));
            }
        }
    }
}
