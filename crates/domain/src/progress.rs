//! What a child process says, one JSON object a line on its standard output.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{checkpoint::Metrics, job::Phase, problem::Problem};

/// A line of a trainer (`rehead train`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Progress {
    /// torch is loaded and the plan is read.
    Ready {
        device: String,
        threads: u32,
        pid: u32,
    },
    Phase {
        phase: Phase,
    },
    /// Share of the phase that is done, where a phase is long and has no steps (feature caching).
    Fraction {
        done: u64,
        total: u64,
        samples_per_second: f64,
    },
    /// The steps since the last such line. A line may hold many steps: losses are fetched from the device together.
    Steps {
        n_steps: u64,
        n_epochs: u32,
        steps: Vec<Step>,
    },
    /// Memory ran out; from here on fewer samples run together, and the same work is done again that way.
    BatchSizeReduced {
        what: BatchSizePart,
        /// Samples that run together now.
        batch_size: u32,
    },
    /// What the run cost, said once before `Finished`.
    Used(Usage),
    Evaluated {
        metrics: Metrics,
        best: bool,
    },
    /// A checkpoint folder is complete and durable. `folder` is relative to the job folder.
    Saved {
        step: u64,
        epoch: u32,
        folder: PathBuf,
        bytes: u64,
        manifest_sha256: String,
        metrics: Option<Metrics>,
        best: bool,
        /// How long training stood still for it.
        #[serde(default)]
        stall_ms: u64,
    },
    /// Standard input was closed: the state is saved (see the last `Saved`), and no line follows.
    Interrupted {
        step: u64,
    },
    /// Trained, evaluated, exported: `bundle/` and `report.json` in the job folder are complete.
    Finished {
        best_step: u64,
        stopped_early: bool,
    },
    Failed(Failure),
}

/// Time and memory of a run that began at its plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Most memory that the process held, on a CPU; `null` elsewhere.
    pub peak_bytes: Option<u64>,
    /// Samples that were decoded, and run through a frozen backbone; what was found in the cache is not among them.
    pub prepared_samples: u64,
    pub preparing_seconds: f64,
    /// Samples of optimizer steps.
    pub trained_samples: u64,
    /// With evaluations and checkpoints.
    pub training_seconds: f64,
}

/// The work whose batch size a trainer reduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchSizePart {
    /// Of the samples of an optimizer step, which stay as many: more batches add up to it.
    Training,
    Evaluation,
    /// Of a frozen backbone, whose features are kept.
    Features,
}

/// One optimizer step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// From 1.
    pub step: u64,
    /// From 1.
    pub epoch: u32,
    /// Mean over the batch, in nats. Not finite only in the line before `diverged`; then it is `null` in JSON.
    pub train_loss: Option<f64>,
    pub learning_rate: f64,
    pub samples_per_second: f64,
}

/// Why a child ended without a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// From the list in docs/errors.md.
    pub code: String,
    pub message: String,
    /// Whether the same plan may succeed on another try.
    pub retryable: bool,
}

/// A line of a validation process (`rehead validate`). Its results are files in its folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Validated {
    /// The input is usable: the outputs that `domain::work` names are complete.
    Accepted,
    /// The input is not usable, and this is everything that is wrong with it.
    Refused {
        problems: Vec<Problem>,
    },
    Failed(Failure),
}

/// The line of a check (`rehead-trainer verify`, `rehead-trainer script`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Verified {
    /// The golden logits came out; `error` is the largest difference, as a share of the largest of them.
    Same {
        error: f64,
    },
    Failed(Failure),
}

/// How a child process ends, as its exit code.
pub mod exit {
    /// Finished, accepted, or refused with a reason.
    pub const DONE: i32 = 0;
    /// The user's input cannot work; another try would fail the same way.
    pub const PERMANENT: i32 = 64;
    /// Interrupted, with the state saved.
    pub const YIELDED: i32 = 75;
}
