//! Calls of `fused.cpp`: a tensor's optimizer step in one pass.
#![expect(unsafe_code, reason = "calls C++")]

use std::{
    ffi::{c_char, c_void},
    ptr,
};

use tch::Tensor;

use crate::models::message::{self, Message};

/// The tensors of a step: dense, all of one shape and one order in memory. The gradient is used up.
#[derive(Debug)]
pub(super) struct Tensors {
    pub weight: Tensor,
    pub gradient: Tensor,
    /// SGD's momentum buffer, or AdamW's first moment.
    pub first: Tensor,
    /// AdamW's second moment.
    pub second: Option<Tensor>,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Rates {
    pub rate: f64,
    pub weight_decay: f64,
    /// SGD's momentum, or AdamW's decay of the first moment.
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
}

#[repr(C)]
struct Addresses {
    weight: *mut c_void,
    gradient: *mut c_void,
    first: *mut c_void,
    second: *mut c_void,
}

unsafe extern "C" {
    fn rehead_adamw(
        tensors: *const Addresses,
        step: *const c_void,
        rates: *const Rates,
        message: *mut c_char,
        message_bytes: usize,
    ) -> bool;

    fn rehead_sgd(
        tensors: *const Addresses,
        rates: *const Rates,
        nesterov: bool,
        message: *mut c_char,
        message_bytes: usize,
    ) -> bool;
}

impl Tensors {
    fn addresses(&mut self) -> Addresses {
        let second = self.second.as_mut();
        Addresses {
            weight: self.weight.as_mut_ptr().cast(),
            gradient: self.gradient.as_mut_ptr().cast(),
            first: self.first.as_mut_ptr().cast(),
            second: second.map_or(ptr::null_mut(), |second| second.as_mut_ptr().cast()),
        }
    }
}

/// AdamW's step `step` (from 1). `tensors` has a second moment.
///
/// # Panics
/// Where torch fails, as its operators do.
pub(super) fn adamw(mut tensors: Tensors, step: &Tensor, rates: Rates) {
    let mut message = Message::default();
    let addresses = tensors.addresses();
    // SAFETY: all tensors live until it returns, and the message has as much room as it says.
    let failed = unsafe {
        rehead_adamw(
            &raw const addresses,
            step.as_ptr().cast(),
            &raw const rates,
            message.as_mut_ptr(),
            message::BYTES,
        )
    };
    assert!(!failed, "{}", message.text());
}

/// A step of SGD with momentum.
///
/// # Panics
/// Where torch fails, as its operators do.
pub(super) fn sgd(mut tensors: Tensors, nesterov: bool, rates: Rates) {
    let mut message = Message::default();
    let addresses = tensors.addresses();
    // SAFETY: as for `adamw`.
    let failed = unsafe {
        rehead_sgd(
            &raw const addresses,
            &raw const rates,
            nesterov,
            message.as_mut_ptr(),
            message::BYTES,
        )
    };
    assert!(!failed, "{}", message.text());
}
