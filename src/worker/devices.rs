//! Resolves the devices of a worker: a list, or all that the trainer sees.

use std::{ffi::OsStr, path::Path, time::Duration};

use crate::{
    child,
    config::Devices,
    sandbox::{Launch, Sandbox},
};

/// Device files of NVIDIA's driver on Linux, and on Linux in Windows. Without one, CUDA sees no
/// GPU.
const DRIVERS: [&str; 2] = ["/dev/nvidiactl", "/dev/dxg"];
const CPU: &str = "cpu";

/// The names of the devices. For `auto`, only the trainer knows which GPUs its torch can use; it is
/// not asked where there is no driver.
pub(super) async fn resolve(
    devices: &Devices,
    sandbox: &Sandbox,
    patience: Duration,
) -> Vec<String> {
    match devices {
        Devices::Listed(names) => names.clone(),
        Devices::Auto if !DRIVERS.iter().any(|driver| Path::new(driver).exists()) => {
            vec![CPU.to_owned()]
        }
        Devices::Auto => {
            // It reads nothing that a user made.
            let launch = Launch::trusted(sandbox.executable());
            let arguments = [OsStr::new("devices")];
            let found = child::answer_of(Ok(launch), &arguments, patience).await;
            found.unwrap_or_else(|error| {
                // Its self-test fails too, and is what the worker reports.
                tracing::error!("cannot list the devices of this machine: {error}");
                vec![devices.to_string()]
            })
        }
    }
}
