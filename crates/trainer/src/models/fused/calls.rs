//! Calls of `shim.cpp`.

use std::ffi::c_void;

use tch::{Device, Kind, Tensor};

use crate::models::message::Message;

unsafe extern "C" {
    safe fn rehead_is_tracing() -> bool;
}

/// True for inputs of which oneDNN has operators: f32 and bf16 on a CPU, while no TorchScript
/// program is traced.
pub(super) fn is_known(x: &Tensor) -> bool {
    let is_on_cpu = x.device() == Device::Cpu;
    is_on_cpu && matches!(x.kind(), Kind::Float | Kind::BFloat16) && !rehead_is_tracing()
}

/// The answer of a call of `shim.cpp`.
///
/// # Safety
/// `address` is of a tensor of the caller's own, or null with a message.
pub(super) unsafe fn made(address: *mut c_void, message: &Message) -> Result<Tensor, String> {
    if address.is_null() {
        return Err(message.text());
    }
    // SAFETY: the conditions of this function.
    Ok(unsafe { Tensor::from_ptr(address.cast()) })
}
