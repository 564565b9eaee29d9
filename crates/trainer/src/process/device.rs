//! The device of a run. The CUDA part of libtorch is loaded here where it is installed, so that one
//! executable serves machines with and without a GPU.

#![expect(
    unsafe_code,
    reason = "loads a library, and calls C++ for settings that tch has no name for"
)]

use std::{ffi::CStr, sync::Once};

use tch::Device;

use super::error::TrainError;

/// Reads `cpu`, `cuda:N`, or `auto` (a GPU where there is one), and checks that the device is
/// there. From then on, float32 is float32 on a GPU too, until `allow_tf32`.
///
/// # Errors
/// `Plan` for any other name, `Device` for a GPU that this machine does not have.
pub fn open(name: &str) -> Result<Device, TrainError> {
    allow_tf32(false);
    if name == "cpu" {
        return Ok(Device::Cpu);
    }
    if name == "auto" {
        load_cuda();
        return Ok(Device::cuda_if_available());
    }
    let index: Option<usize> = name
        .strip_prefix("cuda:")
        .and_then(|index| index.parse().ok());
    let Some(index) = index else {
        return Err(TrainError::Plan(format!(
            "`{name}` is not a device; give `auto`, `cpu` or `cuda:N`, such as `cuda:0`"
        )));
    };
    load_cuda();
    let count = tch::Cuda::device_count();
    if i64::try_from(index).is_ok_and(|index| index < count) {
        Ok(Device::Cuda(index))
    } else {
        Err(TrainError::Device(format!(
            "device `{name}` does not exist: CUDA finds {count} GPUs; give `cuda:N` with N below that, or `cpu`"
        )))
    }
}

/// The names of all devices that `auto` stands for: every GPU, or the CPU where there is none.
pub fn all() -> Vec<String> {
    load_cuda();
    match usize::try_from(tch::Cuda::device_count()) {
        Ok(count) if count > 0 => (0..count).map(|index| name(Device::Cuda(index))).collect(),
        _ => vec![name(Device::Cpu)],
    }
}

/// The device's name, as `open` reads it.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    }
}

/// Peak memory of this process in bytes; `None` on a GPU, whose peak libtorch's C API does not
/// expose.
pub fn peak_bytes(device: Device) -> Option<u64> {
    if device != Device::Cpu {
        return None;
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

unsafe extern "C" {
    fn rehead_set_tf32(allowed: bool);
    #[cfg(test)]
    fn rehead_tf32() -> bool;
}

/// Lets a GPU compute matrix products and convolutions of float32 in TF32, with three significant
/// digits, or forbids it: libtorch by itself allows it for convolutions only.
pub fn allow_tf32(allowed: bool) {
    // SAFETY: sets two switches of libtorch's context.
    unsafe { rehead_set_tf32(allowed) }
}

/// Loads `libtorch_cuda.so` where it is installed beside libtorch. Its hooks register only if this
/// happens before any other use of CUDA.
pub fn load_cuda() {
    const LIBRARY: &CStr = c"libtorch_cuda.so";
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the name is a constant C string. A machine without CUDA gets a null handle.
        let _handle = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tf32_is_set_for_products_and_convolutions() {
        // SAFETY: reads two switches.
        let is_allowed = || unsafe { rehead_tf32() };
        for allowed in [true, false] {
            allow_tf32(allowed);
            assert_eq!(is_allowed(), allowed);
        }
    }
}
