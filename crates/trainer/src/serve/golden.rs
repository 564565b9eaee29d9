//! The golden file of a bundle: inputs, and the logits that the trained network gave for them. A
//! process that did not make the bundle loads it from its files alone and must get these logits, or
//! nobody gets the model.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::bundle::Bundle;
use crate::{models::weights, process::error::TrainError, train::output::bundle::GOLDEN};

/// The largest allowed difference from the golden logits, as a share of the largest of them: folded
/// BatchNorm rounds differently.
pub const TOLERANCE: f64 = 1e-3;
/// The lower bound of that largest logit.
const SMALLEST_SCALE: f64 = 1e-3;

#[derive(Debug)]
pub struct Golden {
    /// [N, C, S, S], after preprocessing.
    pub inputs: Tensor,
    /// [N, classes]
    logits: Tensor,
}

impl Golden {
    /// Reads the golden file of a bundle.
    ///
    /// # Errors
    /// `ExportMismatch` when it is not there, or not one, `OutOfMemory`.
    pub fn read(bundle: &Path) -> Result<Self, TrainError> {
        let wrong = |what: String| {
            TrainError::ExportMismatch(format!("`{GOLDEN}` of the exported bundle: {what}"))
        };
        let mut tensors = weights::read_safetensors(&bundle.join(GOLDEN)).map_err(|error| {
            if error.lacks_memory() {
                TrainError::OutOfMemory(error.to_string())
            } else {
                wrong(error.to_string())
            }
        })?;
        let mut take = |name: &str, dimensions: usize| {
            let tensor = tensors.remove(name).filter(|tensor| {
                tensor.dim() == dimensions && tensor.kind() == Kind::Float && tensor.size()[0] > 0
            });
            tensor.ok_or_else(|| wrong(format!("has no valid tensor `{name}`")))
        };
        let (inputs, logits) = (take("inputs", 4)?, take("logits", 2)?);
        if inputs.size()[0] != logits.size()[0] {
            return Err(wrong(
                "`inputs` and `logits` have different numbers of rows".to_owned(),
            ));
        }
        Ok(Self { inputs, logits })
    }

    /// Compares what `who` makes of all inputs together and of the first alone. Returns the largest
    /// difference, as a share of the largest golden logit.
    ///
    /// # Errors
    /// `ExportMismatch` when it is beyond `TOLERANCE`; what `logits` says.
    pub fn compare(
        &self,
        who: &str,
        logits: impl Fn(&Tensor) -> Result<Tensor, TrainError>,
    ) -> Result<f64, TrainError> {
        let scale = self.logits.abs().max().double_value(&[]);
        let scale = scale.max(SMALLEST_SCALE);
        let mut largest = 0.0f64;
        for count in [self.inputs.size()[0], 1] {
            let expected = self.logits.narrow(0, 0, count);
            let found = logits(&self.inputs.narrow(0, 0, count))?;
            if found.size() != expected.size() || found.kind() != Kind::Float {
                return Err(TrainError::ExportMismatch(format!(
                    "{who} gives logits of shape {:?} and type {:?} instead of {:?} and Float",
                    found.size(),
                    found.kind(),
                    expected.size()
                )));
            }
            let error = (found - expected).abs().max().double_value(&[]) / scale;
            if error.is_nan() || error > TOLERANCE {
                return Err(TrainError::ExportMismatch(format!(
                    "{who} gives other logits than the trained network: they differ by {error:.1e} of the largest, and {TOLERANCE:.0e} is allowed"
                )));
            }
            largest = largest.max(error);
        }
        Ok(largest)
    }
}

/// Loads a bundle from its files and compares. Returns the difference, as `Golden::compare`.
///
/// # Errors
/// `ExportMismatch`: it does not load, or gives other logits. `Torch`, `OutOfMemory`.
pub fn verify(folder: &Path) -> Result<f64, TrainError> {
    let golden = Golden::read(folder)?;
    let bundle = Bundle::load(folder, Device::Cpu).map_err(|error| match error {
        error @ (TrainError::OutOfMemory(_) | TrainError::Torch(_)) => error,
        other => TrainError::ExportMismatch(format!("the exported bundle does not load: {other}")),
    })?;
    golden.compare("the exported bundle", |images| Ok(bundle.logits(images)))
}
