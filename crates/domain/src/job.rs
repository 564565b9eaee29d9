//! Jobs: their states, phases, and the legal moves between them.

use crate::{id::JobId, words};

words! {
    pub enum JobStatus {
        /// Waits for its data set's validation; the recipe is settled after it.
        ValidatingFiles = "validating_files",
        Queued = "queued",
        Running = "running",
        /// A pause is asked for; the trainer saves its state and stops.
        Pausing = "pausing",
        /// Waits for its user. Nothing is held but its checkpoints.
        Paused = "paused",
        Succeeded = "succeeded",
        Failed = "failed",
        Cancelled = "cancelled",
    }
}

impl JobStatus {
    /// Terminal rows never change.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Whether a worker has it: exactly then the job has a lease.
    pub fn is_leased(self) -> bool {
        matches!(self, Self::Running | Self::Pausing)
    }

    /// Where a job may go from here. The database holds the same table (`migrations`), docs/state-machine.md draws it, and
    /// tests compare them.
    pub fn next(self) -> &'static [Self] {
        match self {
            Self::ValidatingFiles => &[Self::Queued, Self::Paused, Self::Failed, Self::Cancelled],
            Self::Queued => &[Self::Running, Self::Paused, Self::Cancelled],
            // Back to the queue by a drain, by a failure with budget left, or when its worker is gone.
            Self::Running => &[
                Self::Queued,
                Self::Pausing,
                Self::Succeeded,
                Self::Failed,
                Self::Cancelled,
            ],
            // However its attempt ends, a job that was to pause does not wait for a worker again.
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
    /// What a job is doing.
    pub enum Phase {
        Waiting = "waiting",
        Preparing = "preparing",
        CachingFeatures = "caching_features",
        Training = "training",
        Evaluating = "evaluating",
        Exporting = "exporting",
    }
}

/// What a user may ask of a job that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// End without a result.
    Cancel,
    /// Save the state and free the device, until `Resume`.
    Pause,
    /// Go on after a pause, exactly where it was.
    Resume,
    /// Train no further: end as a success, with the best model so far.
    Stop,
}

words! {
    /// Why a queued job does not run: the first of these that holds.
    pub enum WaitReason {
        /// Its tenant's jobs are held back.
        TenantPaused = "tenant_paused",
        /// It waits after an attempt that failed or crashed, until the time beside this.
        Backoff = "backoff",
        /// No worker was heard of lately.
        NoWorker = "no_worker",
        /// As many jobs of its tenant run as may.
        TenantAtCap = "tenant_at_cap",
        /// Every worker has a job.
        SlotsBusy = "slots_busy",
        /// No worker that has a slot left has as much device memory free as it needs.
        Memory = "memory",
        /// No worker could have as much device memory as it needs, even if it ran nothing else.
        TooLarge = "too_large",
        /// Where it would fit, room is kept for a job that needs more memory and has waited long.
        Reserved = "reserved",
        /// Nothing is in its way: a worker takes it, or one of those ahead, in a moment.
        Starting = "starting",
    }
}

/// How an attempt ended, from the worker's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Handed back with its state saved: drain, shutdown or pause. Costs no budget.
    Yielded,
    /// Trained and exported.
    Succeeded,
    /// The trainer returned an error. `retryable` ones go back to the queue while `failures` lasts.
    Failed {
        code: String,
        message: String,
        retryable: bool,
    },
    /// The trainer ended without a word (a signal, an abort); counts as a crash.
    Crashed { message: String },
    /// The user asked for it.
    Cancelled,
}

/// The name of the model that a job makes: `ft:<base>:<suffix>:<short id>`. The suffix may be empty, as OpenAI's.
///
/// The short id is the end of the job's id: its start is a time, and the same for jobs of one minute.
pub fn result_model(base: &str, suffix: Option<&str>, job: JobId) -> String {
    let id = job.0.simple().to_string();
    format!("ft:{base}:{}:{}", suffix.unwrap_or_default(), &id[24..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_named_after_what_it_came_from() {
        let job: JobId = "ftjob-0193a5c0000070008000123456789abc".parse().unwrap();
        assert_eq!(
            result_model("resnet18", Some("cats"), job),
            "ft:resnet18:cats:56789abc"
        );
        assert_eq!(result_model("resnet18", None, job), "ft:resnet18::56789abc");
    }

    #[test]
    fn exactly_the_terminal_states_lead_nowhere() {
        for status in JobStatus::ALL {
            assert_eq!(status.is_terminal(), status.next().is_empty(), "{status:?}");
            assert_eq!(status.as_str().parse(), Ok(status));
        }
    }
}
