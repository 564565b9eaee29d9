//! Which device a run is on. CUDA's half of libtorch is loaded here, when it is installed, so that one executable serves
//! machines with and without a GPU.

use std::{ffi::CStr, sync::Once};

use tch::Device;

use super::error::TrainError;

/// Reads `cpu`, `cuda:N`, or `auto` (a GPU where there is one), and checks that the device is there.
///
/// # Errors
/// `Plan` for another word, `Device` for a GPU that this machine does not have.
pub fn open(name: &str) -> Result<Device, TrainError> {
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
            "there is no device `{name}`; give `auto`, `cpu` or `cuda:0`"
        )));
    };
    load_cuda();
    let count = tch::Cuda::device_count();
    if i64::try_from(index).is_ok_and(|index| index < count) {
        Ok(Device::Cuda(index))
    } else {
        Err(TrainError::Device(format!(
            "there is no device `{name}`: CUDA finds {count} here"
        )))
    }
}

/// The device's name, as `open` reads it.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    }
}

/// The most memory that this process has held, in bytes, when `device` is the CPU. libtorch's C API does not tell CUDA's.
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

/// Loads `libtorch_cuda.so` where it is installed beside libtorch. Its hooks register only when this comes before the
/// first question to CUDA.
pub fn load_cuda() {
    const LIBRARY: &CStr = c"libtorch_cuda.so";
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[expect(
            unsafe_code,
            reason = "dlopen: runs the initializers of a library that comes with libtorch"
        )]
        // SAFETY: the name is a constant C string; a missing library is a null handle, which is what a CPU machine has.
        let _handle = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    });
}
