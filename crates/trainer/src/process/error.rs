//! Errors that end a trainer without a result. The parent gets a stable code, a message, and
//! whether another attempt may succeed.

use std::io;

use crate::{
    data::{batch::BatchError, source::UnsupportedModality},
    domain::progress::Failure,
    models::{torch_error::is_out_of_memory, weights::WeightsError},
};

/// The error of a trainer or an inference process.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The parent asked for it: the state is to be saved, and no result is made.
    #[error("interrupted")]
    Interrupted,
    /// The plan or the command line is not valid for this trainer.
    #[error("{0}")]
    Plan(String),
    /// The packs do not fit the plan.
    #[error("{0}")]
    Data(String),
    /// The base model's weights do not fit its architecture.
    #[error("{0}")]
    Weights(String),
    /// The base model's weights are finite, but what they compute is not.
    #[error(
        "the base model computes features that are not finite: its weights are damaged, or not of this architecture; import others"
    )]
    Features,
    /// A checkpoint is incomplete or altered; an older one may be usable.
    #[error("checkpoint `{folder}` cannot be used: {reason}; resume from an older checkpoint")]
    Checkpoint { folder: String, reason: String },
    /// A checkpoint belongs to other data, weights or options than the plan.
    #[error(
        "checkpoint `{folder}` belongs to another run: its {what} differs from this job's; resume from a checkpoint of this job"
    )]
    OtherRun { folder: String, what: &'static str },
    /// The exported bundle, loaded again, is not the network that was trained.
    #[error("{0}")]
    ExportMismatch(String),
    /// The model does not fit into a file of the format.
    #[error("{0}")]
    ExportTooLarge(String),
    /// Loss or weights are no longer finite.
    #[error(
        "training diverged at step {step}: the loss is no longer finite; lower `learning_rate`, or set `gradient_clip`"
    )]
    Diverged { step: u64 },
    /// Even the smallest batch does not fit.
    #[error(
        "out of memory, even for the smallest batch: {0}; freeze more of the backbone, or choose a smaller base model"
    )]
    OutOfMemory(String),
    /// The device is missing or faulty.
    #[error("{0}")]
    Device(String),
    #[error("{context}: {source}")]
    Io { context: String, source: io::Error },
    /// Any other error of libtorch.
    #[error("torch: {0}")]
    Torch(String),
}

impl TrainError {
    /// Adds the operation that failed to an I/O error.
    pub fn io(context: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let context = context.into();
        move |source| Self::Io { context, source }
    }

    /// The error of weights that cannot be read: `wrong` where the file itself is at fault, not
    /// memory or the disk.
    pub fn of_weights(error: WeightsError, wrong: impl FnOnce(String) -> Self) -> Self {
        match error {
            error if error.lacks_memory() => Self::OutOfMemory(error.to_string()),
            WeightsError::Io { path, source } => {
                Self::io(format!("cannot read {}", path.display()))(source)
            }
            other => wrong(other.to_string()),
        }
    }

    /// The line for the parent: the stable code, as listed in docs/errors.md, and whether the same
    /// plan may succeed in another attempt, here or on another machine.
    pub fn failure(&self) -> Failure {
        let (code, retryable) = match self {
            Self::Interrupted => ("interrupted", true),
            Self::Plan(_) => ("invalid_plan", false),
            Self::Data(_) => ("invalid_data", false),
            Self::Weights(_) | Self::Features => ("invalid_weights", false),
            Self::Checkpoint { .. } => ("checkpoint_corrupt", true),
            Self::OtherRun { .. } => ("checkpoint_of_another_run", false),
            Self::ExportMismatch(_) => ("export_mismatch", false),
            Self::ExportTooLarge(_) => ("export_too_large", false),
            Self::Diverged { .. } => ("diverged", false),
            Self::OutOfMemory(_) => ("out_of_memory", true),
            Self::Device(_) => ("device_unavailable", true),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                ("storage_full", true)
            }
            Self::Io { .. } => ("io_error", true),
            Self::Torch(_) => ("torch_error", true),
        };
        Failure {
            code: code.to_owned(),
            message: self.to_string(),
            retryable,
        }
    }

    /// The error of a panic. `tch` panics with the text of a C++ exception, which becomes a value
    /// here.
    pub fn from_panic(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied());
        Self::from_torch(text.unwrap_or("panicked without a message"))
    }

    fn from_torch(text: &str) -> Self {
        let first = text.lines().next().unwrap_or_default();
        if is_out_of_memory(text) {
            Self::OutOfMemory(first.to_owned())
        } else {
            Self::Torch(first.to_owned())
        }
    }
}

/// For what is written, where nothing but the disk can fail.
impl From<WeightsError> for io::Error {
    fn from(error: WeightsError) -> Self {
        match error {
            WeightsError::Io { source, .. } => source,
            other => Self::other(other),
        }
    }
}

impl From<BatchError> for TrainError {
    fn from(error: BatchError) -> Self {
        Self::Data(error.to_string())
    }
}

impl From<UnsupportedModality> for TrainError {
    fn from(error: UnsupportedModality) -> Self {
        Self::Plan(error.to_string())
    }
}

impl From<tch::TchError> for TrainError {
    fn from(error: tch::TchError) -> Self {
        Self::from_torch(&error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_something_is_told_apart() {
        let text = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes";
        let code = |error: TrainError| error.failure().code;
        assert_eq!(code(TrainError::from_torch(text)), "out_of_memory");
        assert_eq!(
            code(TrainError::from_torch("CUDA out of memory. Tried")),
            "out_of_memory"
        );
        let primitive = "called `Result::unwrap()`: Torch(\"could not create a primitive\")";
        assert_eq!(code(TrainError::from_torch(primitive)), "out_of_memory");
        let textless = "called `Result::unwrap()`: Torch(\"<Error computing Error::what()>\")";
        assert_eq!(code(TrainError::from_torch(textless)), "out_of_memory");
        let unknown = "could not create a primitive descriptor for a convolution";
        assert_eq!(code(TrainError::from_torch(unknown)), "torch_error");
        assert_eq!(
            TrainError::from_torch("shape mismatch\nat frame 0").to_string(),
            "torch: shape mismatch"
        );
        let full = TrainError::io("cannot write x")(io::ErrorKind::StorageFull.into());
        assert!(full.failure().retryable && code(full) == "storage_full");
    }

    #[test]
    fn docs_errors_md_says_what_is_tried_again() {
        let page = include_str!("../../../../docs/errors.md");
        let (_, rows) = page.split_once("When a job fails:").unwrap();
        let text = String::new;
        for error in [
            TrainError::Plan(text()),
            TrainError::Data(text()),
            TrainError::Weights(text()),
            TrainError::Checkpoint {
                folder: text(),
                reason: text(),
            },
            TrainError::OtherRun {
                folder: text(),
                what: "data",
            },
            TrainError::ExportMismatch(text()),
            TrainError::Diverged { step: 1 },
            TrainError::OutOfMemory(text()),
            TrainError::Device(text()),
            TrainError::io("")(io::ErrorKind::StorageFull.into()),
            TrainError::io("")(io::ErrorKind::NotFound.into()),
            TrainError::Torch(text()),
        ] {
            let failure = error.failure();
            let start = format!("| `{}` |", failure.code);
            let row = rows.lines().find(|row| row.starts_with(&start));
            let row = row.unwrap_or_else(|| panic!("no row {start}"));
            assert_eq!(!row.ends_with("| no |"), failure.retryable, "{row}");
        }
    }
}
