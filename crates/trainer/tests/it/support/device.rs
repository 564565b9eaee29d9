//! The device of the tests that `scripts/device-check.sh` runs. Everywhere else it is the CPU.

use std::{env, fs};

use rehead_trainer::process::device;
use tch::Device;

/// Its name as a plan has it.
pub(crate) fn name() -> String {
    env::var("REHEAD_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())
}

pub(crate) fn open() -> Device {
    device::open(&name()).unwrap()
}

/// The trainer: on a machine without cargo, another one than the one that was built with this test.
pub(crate) fn trainer() -> String {
    let built = env!("CARGO_BIN_EXE_rehead-trainer");
    env::var("REHEAD_TEST_TRAINER").unwrap_or_else(|_| built.to_owned())
}

/// Images of two classes, where the demo's data are not there.
pub(crate) fn archive() -> Option<Vec<u8>> {
    let path = env::var_os("REHEAD_TEST_ARCHIVE")?;
    Some(fs::read(path).unwrap())
}
