//! A bundle as one TorchScript file: preprocessed images [N, C, S, S] f32 in, logits [N, classes]
//! out, for any N, without any code of ours. Weights are constants of the traced graph, with
//! BatchNorm folded as in a prediction.
//!
//! The only file here that calls libtorch's loader, and only on what `write` wrote: users'
//! TorchScript is never read.

use std::{fs::File, path::Path};

use tch::{CModule, Device, Tensor};

use super::{bundle::Bundle, golden::Golden};
use crate::{data::source::probe, process::error::TrainError};

/// Images of the example that is traced; more than one, so that nothing can take N for 1.
const TRACED_IMAGES: i64 = 2;

/// Traces the bundle in `folder` and writes it to `target`.
///
/// # Errors
/// As `Bundle::load`; `Torch` when it cannot be traced or written.
pub(super) fn write(folder: &Path, target: &Path) -> Result<(), TrainError> {
    let bundle = Bundle::load(folder, Device::Cpu)?;
    let example = probe(bundle.input(), TRACED_IMAGES);
    let mut forward = |inputs: &[Tensor]| vec![bundle.logits(&inputs[0])];
    let mut module = CModule::create_by_tracing("Rehead", "forward", &[example], &mut forward)?;
    module.f_set_eval()?;
    module.save(target)?;
    File::open(target)
        .and_then(|file| file.sync_all())
        .map_err(TrainError::io(format!("cannot write {}", target.display())))
}

/// Loads what `write` wrote for the bundle in `folder`, and compares with the golden logits.
/// Returns the difference, as `Golden::compare`.
///
/// # Errors
/// `ExportMismatch`, `Torch`.
pub(super) fn verify(folder: &Path, script: &Path) -> Result<f64, TrainError> {
    let golden = Golden::read(folder)?;
    let module = CModule::load(script)?;
    golden.compare("the TorchScript", |images| {
        let _no_grad = tch::no_grad_guard();
        Ok(module.forward_ts(&[images])?)
    })
}
