//! Calls of `shim.cpp`.

use std::ffi::{CStr, c_char, c_void};

use tch::{Device, Kind, Tensor};

/// Longest message of an error, in bytes.
pub(super) const MESSAGE_BYTES: usize = 4_096;

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
/// `address` is of a tensor of the caller's own, or null with a message that ends.
pub(super) unsafe fn made(
    address: *mut c_void,
    message: &[c_char; MESSAGE_BYTES],
) -> Result<Tensor, String> {
    // SAFETY: the conditions of this function.
    unsafe {
        if address.is_null() {
            return Err(CStr::from_ptr(message.as_ptr())
                .to_string_lossy()
                .into_owned());
        }
        Ok(Tensor::from_ptr(address.cast()))
    }
}
