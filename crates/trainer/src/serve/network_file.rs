//! A bundle as one file that other programs run: written here, and compared with the golden logits
//! by a process that did not write it.

use std::path::Path;

use super::{onnx, torchscript};
use crate::{domain::export::NetworkFormat, process::error::TrainError};

/// Writes the bundle in `folder` to `target`.
///
/// # Errors
/// Those of the format's own `write`.
pub fn write(format: NetworkFormat, folder: &Path, target: &Path) -> Result<(), TrainError> {
    match format {
        NetworkFormat::Torchscript => torchscript::write(folder, target),
        NetworkFormat::Onnx => onnx::write(folder, target),
    }
}

/// Compares what `write` wrote with the golden logits. Returns the difference, as
/// `Golden::compare`.
///
/// # Errors
/// Those of the format's own `verify`.
pub fn verify(format: NetworkFormat, folder: &Path, file: &Path) -> Result<f64, TrainError> {
    match format {
        NetworkFormat::Torchscript => torchscript::verify(folder, file),
        NetworkFormat::Onnx => onnx::verify(folder, file),
    }
}
