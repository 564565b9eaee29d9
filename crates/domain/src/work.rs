//! What a child process is given: one `plan.json` in its folder. Paths are absolute; the folder is the child's to write.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    base_model::{AskedPreprocessing, Preprocessing, SourceTask},
    id::JobId,
    recipe::Recipe,
};

/// The name of the plan in every child's folder.
pub const PLAN: &str = "plan.json";

/// One line on the standard input of a warm trainer: what to become.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum Assignment {
    Train { folder: PathBuf },
    Validate { folder: PathBuf },
}

/// The first line of a warm trainer: the device that it computed on, or why it cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfTested {
    pub outcome: Result<String, super::progress::Failure>,
}

/// A line on the standard input of a running trainer. Closing the input interrupts it: it saves its state and exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "control", rename_all = "snake_case")]
pub enum TrainerControl {
    /// Stop training early: evaluate what there is, and finish with the best checkpoint.
    StopEarly,
}

/// The plan of `rehead train FOLDER`.
///
/// The trainer writes into its folder: `checkpoints/<step>/` (`model.safetensors`, `optimizer.safetensors`,
/// `state.json`, `manifest.json`), `bundle/` (see `train::output::bundle`) and `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainPlan {
    pub job: JobId,
    pub recipe: Recipe,
    pub base_model: PlanModel,
    /// The name the result will have, for its model card.
    pub fine_tuned_model: String,
    /// The training file's pack, a safetensors file (see `data::pack`).
    pub pack: PathBuf,
    /// Its SHA-256, lower-case hex; part of every feature's key.
    pub pack_sha256: String,
    /// A second data set that is the validation split, where the user gave one.
    pub validation_pack: Option<PathBuf>,
    pub validation_pack_sha256: Option<String>,
    /// The checkpoint folder to go on from.
    pub resume: Option<PathBuf>,
    /// Samples that run through the network together in training, where the recipe's `batch_size` was found to be too many.
    #[serde(default)]
    pub micro_batch: Option<u32>,
    /// A folder shared with other jobs, for features; entries are named by content.
    pub cache: PathBuf,
    /// `auto` (a GPU where there is one), `cpu` or `cuda:0`.
    pub device: String,
    /// Threads of torch and of decoding. Part of what makes a result repeatable.
    pub threads: u32,
}

/// The base model, as a plan carries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanModel {
    pub id: String,
    pub architecture: String,
    pub source_task: SourceTask,
    pub preprocessing: Preprocessing,
    /// safetensors with timm's names.
    pub weights: PathBuf,
    /// Lower-case hex.
    pub weights_sha256: String,
    /// What lies over these weights, lowest first, where the job goes on from a model or a checkpoint; otherwise empty.
    #[serde(default)]
    pub over: Vec<PlanWeights>,
}

/// Weights of a model or a checkpoint that a job goes on from: safetensors with timm's names, the head's among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanWeights {
    pub weights: PathBuf,
    /// Lower-case hex.
    pub sha256: String,
    /// Whether every tensor of the network is there, or only those that training changed.
    pub whole: bool,
}

/// The plan of `rehead validate FOLDER`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ValidatePlan {
    /// Validates a data set. Writes `report.json` (a `domain::file::FileReport`, also when refused) and, when
    /// accepted, `pack.safetensors`.
    Dataset {
        input: PathBuf,
        limits: DatasetLimits,
        threads: u32,
    },
    /// Validates and converts weights. Writes, when accepted, `model.safetensors` and `imported.json` (an `Imported`).
    Weights {
        input: PathBuf,
        architecture: String,
        max_bytes: u64,
        preprocessing: Option<AskedPreprocessing>,
    },
}

/// What importing weights found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Imported {
    pub architecture: String,
    pub layers: super::base_model::Layers,
    /// As asked for; what was not, as the weights tell, and as is usual for the architecture.
    pub preprocessing: Preprocessing,
    /// Trainable numbers of backbone and original head.
    pub parameters: u64,
    /// Classes of the original head; `null` when the file has none.
    pub classes: Option<u32>,
}

/// Bounds on an uploaded data set, all counted on what is really read or written, never on what a header claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetLimits {
    pub entries: u64,
    /// Bytes after decompression, over all entries.
    pub unpacked_bytes: u64,
    /// Bytes after decompression, of one entry.
    pub entry_bytes: u64,
    /// Unpacked bytes for each packed byte, past the first MiB.
    pub ratio: u64,
    /// Width times height.
    pub pixels: u64,
    /// Problems listed in a report.
    pub report_problems: u64,
}

/// A line to an inference process (`rehead-trainer serve`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predict {
    /// Chosen by the caller, repeated in the answer.
    pub id: u64,
    /// The bundle folder of the model. Loaded on first use, kept while it is among the most recently used.
    pub bundle: PathBuf,
    /// Image files.
    pub images: Vec<PathBuf>,
}

/// The line that answers a `Predict`, in any order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    pub id: u64,
    /// One for each image, in order.
    pub outcome: Result<Vec<ImageOutcome>, super::progress::Failure>,
}

/// What became of one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageOutcome {
    /// Probability of each class, in label order; they sum to 1.
    Probabilities(Vec<f32>),
    /// Probability of each label by itself, in label order, and those that reach their thresholds.
    Labels {
        probabilities: Vec<f32>,
        /// Ascending.
        chosen: Vec<usize>,
    },
    /// The predicted number, in the target's unit.
    Value(f64),
    /// The image cannot be read, and why.
    Unreadable(String),
}
