//! Why training ends without a result: one value for each thing that can be told apart by whoever reads it.
//! The parent needs only a stable code, a sentence, and whether another try may help.

use std::io;

use crate::{
    domain::progress::Failure,
    models::{torch_error::is_out_of_memory, weights::WeightsError},
};

/// What stops a trainer or an inference child.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The plan or the command line does not fit this trainer.
    #[error("{0}")]
    Plan(String),
    /// The packs do not fit the plan.
    #[error("{0}")]
    Data(String),
    /// The base model's weights do not fit its architecture.
    #[error("{0}")]
    Weights(String),
    /// A checkpoint is incomplete or altered: an older one may do.
    #[error("checkpoint {folder}: {reason}")]
    Checkpoint { folder: String, reason: String },
    /// A checkpoint belongs to other data, weights or choices than the plan's.
    #[error("checkpoint {folder} is of another run: its {what} is not this job's")]
    OtherRun { folder: String, what: &'static str },
    /// What was exported, loaded again, is not the network that was trained.
    #[error("{0}")]
    ExportMismatch(String),
    /// Loss or weights are no longer finite.
    #[error(
        "training diverged at step {step}: the loss is no longer finite; lower `learning_rate`, or set `gradient_clip`"
    )]
    Diverged { step: u64 },
    /// Even the smallest batch is too much.
    #[error(
        "out of memory, even for the smallest batch: {0}; freeze more of the backbone, or take a smaller base model"
    )]
    OutOfMemory(String),
    /// The device is not there.
    #[error("{0}")]
    Device(String),
    #[error("{context}: {source}")]
    Io { context: String, source: io::Error },
    /// Anything else that libtorch refuses.
    #[error("torch: {0}")]
    Torch(String),
}

impl TrainError {
    /// Says what was being done when the operating system refused.
    pub fn io(context: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let context = context.into();
        move |source| Self::Io { context, source }
    }

    /// Why weights were not read: `wrong` where their file is not what it should be. What memory or a disk refuses says nothing
    /// of the file.
    pub fn of_weights(error: WeightsError, wrong: impl FnOnce(String) -> Self) -> Self {
        match error {
            error if error.lacks_memory() => Self::OutOfMemory(error.to_string()),
            WeightsError::Io { path, source } => {
                Self::io(format!("cannot read {}", path.display()))(source)
            }
            other => wrong(other.to_string()),
        }
    }

    /// The stable word for it, listed in docs/errors.md.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Plan(_) => "invalid_plan",
            Self::Data(_) => "invalid_data",
            Self::Weights(_) => "invalid_weights",
            Self::Checkpoint { .. } => "checkpoint_corrupt",
            Self::OtherRun { .. } => "checkpoint_of_another_run",
            Self::ExportMismatch(_) => "export_mismatch",
            Self::Diverged { .. } => "diverged",
            Self::OutOfMemory(_) => "out_of_memory",
            Self::Device(_) => "device_unavailable",
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "storage_full"
            }
            Self::Io { .. } => "io_error",
            Self::Torch(_) => "torch_error",
        }
    }

    /// Whether the same plan may succeed on another try, here or on another machine.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Plan(_)
            | Self::Data(_)
            | Self::Weights(_)
            | Self::OtherRun { .. }
            | Self::ExportMismatch(_)
            | Self::Diverged { .. } => false,
            Self::Checkpoint { .. }
            | Self::OutOfMemory(_)
            | Self::Device(_)
            | Self::Io { .. }
            | Self::Torch(_) => true,
        }
    }

    pub fn failure(&self) -> Failure {
        Failure {
            code: self.code().to_owned(),
            message: self.to_string(),
            retryable: self.retryable(),
        }
    }

    /// What a panic was about. `tch` panics with the text of the C++ exception, so this is where one becomes a value.
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
        assert_eq!(TrainError::from_torch(text).code(), "out_of_memory");
        assert_eq!(
            TrainError::from_torch("CUDA out of memory. Tried").code(),
            "out_of_memory"
        );
        let primitive = "called `Result::unwrap()`: Torch(\"could not create a primitive\")";
        assert_eq!(TrainError::from_torch(primitive).code(), "out_of_memory");
        let unknown = "could not create a primitive descriptor for a convolution";
        assert_eq!(TrainError::from_torch(unknown).code(), "torch_error");
        assert_eq!(
            TrainError::from_torch("shape mismatch\nat frame 0").to_string(),
            "torch: shape mismatch"
        );
        let full = TrainError::io("cannot write x")(io::ErrorKind::StorageFull.into());
        assert!(full.retryable() && full.code() == "storage_full");
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
            let start = format!("| `{}` |", error.code());
            let row = rows.lines().find(|row| row.starts_with(&start));
            let row = row.unwrap_or_else(|| panic!("no row {start}"));
            assert_eq!(!row.ends_with("| no |"), error.retryable(), "{row}");
        }
    }
}
