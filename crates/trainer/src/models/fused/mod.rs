//! Operators of oneDNN for inference on a CPU. tch has no names for them; `shim.cpp` calls them
//! through libtorch's dispatcher.
#![expect(unsafe_code, reason = "calls of C++")]

mod calls;
mod conv;
mod linear;

pub use self::{conv::FusedConv, linear::FusedLinear};
#[cfg(test)]
use super::pass::Activation;

/// Every activation, for tests.
#[cfg(test)]
const ACTIVATIONS: [Activation; 7] = [
    Activation::None,
    Activation::Relu,
    Activation::Relu6,
    Activation::Silu,
    Activation::HardSwish,
    Activation::Gelu,
    Activation::QuickGelu,
];
