//! The states and phases of jobs, and the legal moves between them.

use serde::{Deserialize, Serialize};

use crate::{id::JobId, problem::without_paths, words};

words! {
    /// The state of a job.
    pub enum JobStatus {
        /// Waits for the validation of its data set; the recipe is resolved afterwards.
        ValidatingFiles = "validating_files",
        Queued = "queued",
        Running = "running",
        /// A pause was requested; the trainer saves a checkpoint and exits.
        Pausing = "pausing",
        /// Waits for its user. It holds nothing but its checkpoints.
        Paused = "paused",
        Succeeded = "succeeded",
        Failed = "failed",
        Cancelled = "cancelled",
    }
}

impl JobStatus {
    /// True for final states. The row of a terminal job never changes.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// True when a worker holds the job's lease.
    pub fn is_leased(self) -> bool {
        matches!(self, Self::Running | Self::Pausing)
    }

    /// The states that may follow. The database has the same table (`migrations`),
    /// docs/state-machine.md draws it, and tests compare them.
    pub fn next(self) -> &'static [Self] {
        match self {
            Self::ValidatingFiles => &[Self::Queued, Self::Paused, Self::Failed, Self::Cancelled],
            Self::Queued => &[Self::Running, Self::Paused, Self::Cancelled],
            // A drain, a retryable failure, or the loss of its worker puts it back into the queue.
            Self::Running => &[
                Self::Queued,
                Self::Pausing,
                Self::Succeeded,
                Self::Failed,
                Self::Cancelled,
            ],
            // A job that was to pause never returns to the queue, however its attempt ends.
            Self::Pausing => &[
                Self::Running,
                Self::Paused,
                Self::Succeeded,
                Self::Failed,
                Self::Cancelled,
            ],
            Self::Paused => &[Self::ValidatingFiles, Self::Queued, Self::Cancelled],
            Self::Succeeded | Self::Failed | Self::Cancelled => &[],
        }
    }
}

words! {
    /// The present activity of a job.
    pub enum Phase {
        Waiting = "waiting",
        /// A worker ranks base models, of which the job takes the first.
        Choosing = "choosing",
        Preparing = "preparing",
        CachingFeatures = "caching_features",
        /// Fitting the linear probe that the head starts from.
        Probing = "probing",
        Training = "training",
        Evaluating = "evaluating",
        Exporting = "exporting",
    }
}

words! {
    /// A control request: what a user may ask of a job that has not ended.
    pub enum Control {
        /// End without a result.
        Cancel = "cancel",
        /// Save a checkpoint and free the device, until `Resume`.
        Pause = "pause",
        /// Continue after a pause, exactly at its checkpoint.
        Resume = "resume",
        /// Stop training early: succeed with the best model so far.
        Stop = "stop",
    }
}

words! {
    /// Why a queued job does not run: the first of these that applies.
    pub enum WaitReason {
        /// Its tenant is paused.
        TenantPaused = "tenant_paused",
        /// It waits after a failed or crashed attempt, until the time in `until`.
        Backoff = "backoff",
        /// No worker has sent a heartbeat lately.
        NoWorker = "no_worker",
        /// No worker has enough device memory, even when idle.
        TooLarge = "too_large",
        /// Its tenant runs as many jobs as it may.
        TenantAtCap = "tenant_at_cap",
        /// Every slot of every worker is busy.
        SlotsBusy = "slots_busy",
        /// The memory that it would fit into is reserved for a larger job that has waited long.
        Reserved = "reserved",
        /// No worker with a free slot has enough free device memory.
        Memory = "memory",
        /// Nothing blocks it: a worker is about to claim it, or a job ahead of it.
        Starting = "starting",
    }
}

/// Why a child process ended without a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A code of docs/errors.md.
    pub code: String,
    pub message: String,
    /// True when the same plan may succeed on another attempt.
    pub retryable: bool,
}

impl Failure {
    /// A failure that another attempt may not have.
    pub fn retryable(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            retryable: true,
        }
    }

    /// A failure that every attempt would have.
    pub fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self {
            retryable: false,
            ..Self::retryable(code, message)
        }
    }
}

/// How an attempt ended, as the worker sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Released with its state saved: drain, shutdown or pause. Costs no retry budget.
    Yielded,
    /// The model is trained and exported.
    Succeeded,
    /// The trainer reported an error. A `retryable` one returns to the queue while the retry budget
    /// lasts.
    Failed(Failure),
    /// The trainer exited without a message (a signal, an abort).
    Crashed { message: String },
    /// The user cancelled the job.
    Cancelled,
}

impl Outcome {
    /// The word of `attempts.outcome`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Yielded => "yielded",
            Self::Succeeded => "succeeded",
            Self::Failed(_) => "failed",
            Self::Crashed { .. } => "crashed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The outcome for the job's user, who must not know the folders of the worker.
    pub fn without_paths(self) -> Self {
        match self {
            Self::Failed(failure) => Self::Failed(Failure {
                message: without_paths(&failure.message),
                ..failure
            }),
            Self::Crashed { message } => Self::Crashed {
                message: without_paths(&message),
            },
            other => other,
        }
    }
}

/// The name of a job's model: `ft:<base>:<suffix>:<short id>`. The suffix may be empty, as
/// OpenAI's.
///
/// The short id is the end of the job's id; its start is a time, which jobs of one minute share.
pub fn result_model(base: &str, suffix: Option<&str>, job: JobId) -> String {
    let id = job.0.simple().to_string();
    format!("ft:{base}:{}:{}", suffix.unwrap_or_default(), &id[24..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_after_its_base_and_job() {
        let job: JobId = "ftjob-0193a5c0000070008000123456789abc".parse().unwrap();
        assert_eq!(
            result_model("resnet18", Some("cats"), job),
            "ft:resnet18:cats:56789abc"
        );
        assert_eq!(result_model("resnet18", None, job), "ft:resnet18::56789abc");
    }

    #[test]
    fn only_terminal_states_have_no_next_state() {
        for status in JobStatus::ALL {
            assert_eq!(status.is_terminal(), status.next().is_empty(), "{status:?}");
            assert_eq!(status.as_str().parse(), Ok(status));
        }
    }
}
