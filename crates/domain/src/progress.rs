//! The output of child processes: one JSON object a line on standard output.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use super::job::Failure;
use super::{checkpoint::Metrics, job::Phase, problem::Problem, ranking::Scores};

/// The work of a child so far. It comes every second or so where there is some, between its other
/// lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Working {
    /// Finished units of work.
    pub units: u64,
    /// CPU time of the process.
    pub cpu_ms: u64,
}

/// The line of a child about its work so far, which every long-running child may write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum WorkReport {
    Working(Working),
}

/// A line of a child that answers once.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Line<T> {
    Report(WorkReport),
    Answer(T),
}

/// A line of a trainer (`rehead-trainer train`).
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
    /// Progress of a long phase without steps (feature caching).
    Fraction {
        done: u64,
        total: u64,
        samples_per_second: f64,
    },
    /// The steps since the last such line. Losses of many steps are fetched from the device
    /// together.
    Steps {
        n_steps: u64,
        n_epochs: u32,
        steps: Vec<Step>,
    },
    /// The recipe's features are in bfloat16, and this processor computes them in float32.
    FeaturesInFloat32,
    /// Memory ran out. From here on training computes activations again instead of keeping them;
    /// the interrupted step is repeated.
    Recomputes,
    /// Memory ran out. From here on fewer samples run together; the interrupted work is repeated.
    BatchSizeReduced {
        what: BatchSizePart,
        /// Samples that run together now.
        batch_size: u32,
    },
    /// Time and memory of the run, sent once before `Finished`.
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
        /// How long training was blocked by saving.
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
    Working(Working),
}

/// Time and memory of a run, from reading its plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Peak memory of the process, on a CPU; `null` on other devices.
    pub peak_bytes: Option<u64>,
    /// Samples that were decoded and run through a frozen backbone; cache hits are not counted.
    pub prepared_samples: u64,
    pub preparing_seconds: f64,
    /// Samples of optimizer steps.
    pub trained_samples: u64,
    /// Including evaluations and checkpoints.
    pub training_seconds: f64,
}

/// The kind of work whose batch size was reduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchSizePart {
    /// Batches of an optimizer step; more of them add up to the same step.
    Training,
    Evaluation,
    /// Batches that run through a frozen backbone for the feature cache.
    Features,
}

/// One optimizer step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// From 1.
    pub step: u64,
    /// From 1.
    pub epoch: u32,
    /// Mean over the batch, in nats. Not finite only in the line before `diverged`; then it is
    /// `null` in JSON.
    pub train_loss: Option<f64>,
    pub learning_rate: f64,
    pub samples_per_second: f64,
}

/// A line of a validation process (`rehead-trainer validate`). Its results are files in its folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Validated {
    /// The input is usable; the output files of its plan are complete.
    Accepted,
    /// The input is not usable; all its problems are listed.
    Refused {
        problems: Vec<Problem>,
    },
    Failed(Failure),
}

/// The line of a check of a bundle (`rehead-trainer verify`, `rehead-trainer script`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Verified {
    /// The golden logits were reproduced; `error` is the largest difference divided by the largest
    /// logit.
    Same {
        error: f64,
    },
    Failed(Failure),
}

/// The line of a scoring process (`rehead-trainer score`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ScoreAnswer {
    Scores(Scores),
    Failed(Failure),
}

/// Exit codes of child processes.
pub mod exit {
    /// Finished, accepted, or refused with a reason.
    pub const DONE: i32 = 0;
    /// Permanent failure: another attempt with the same input would fail the same way.
    pub const PERMANENT: i32 = 64;
    /// Interrupted, with the state saved.
    pub const YIELDED: i32 = 75;
}
