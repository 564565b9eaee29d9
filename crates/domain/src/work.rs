//! The inputs of child processes: a `plan.json` in the child's folder, and lines on its standard
//! input. Paths are absolute; only the child writes to its folder.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    base_model::{AskedPreprocessing, SourceTask},
    corrections::Corrections,
    id::JobId,
    input::Input,
    recipe::{HeadLayer, Recipe, Task},
};

/// File name of the plan in a child's folder.
pub const PLAN: &str = "plan.json";
/// File name of the archive of a corrected data set.
pub const CORRECTED: &str = "corrected.tar";
/// File name of a `CheckpointModel` in a folder to predict with.
pub const CHECKPOINT_MODEL: &str = "checkpoint.json";

/// A line on the standard input of a warm trainer: the work that it starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum Assignment {
    Train { folder: PathBuf },
    Validate { folder: PathBuf },
}

/// The first line of a warm trainer: the device that passed its self-test, or why none did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfTested {
    pub outcome: Result<String, super::progress::Failure>,
}

/// A line on the standard input of a running trainer. Closing the input interrupts it: it saves its
/// state and exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "control", rename_all = "snake_case")]
pub enum TrainerControl {
    /// Stop training early: evaluate what there is, and finish with the best checkpoint.
    StopEarly,
}

/// The plan of `rehead-trainer train FOLDER`.
///
/// The trainer writes into its folder: `checkpoints/<step>/` (`model.safetensors`,
/// `optimizer.safetensors`, `state.json`, `manifest.json`), `bundle/` (see `train::output::bundle`)
/// and `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainPlan {
    pub job: JobId,
    pub recipe: Recipe,
    pub base_model: PlanModel,
    /// Name of the resulting model, for its model card.
    pub fine_tuned_model: String,
    /// The training file's pack, a safetensors file (see `data::pack`).
    pub pack: PathBuf,
    /// SHA-256 of the pack, lower-case hex; part of every feature's cache key.
    pub pack_sha256: String,
    /// Pack of the validation file, if the job has one.
    pub validation_pack: Option<PathBuf>,
    pub validation_pack_sha256: Option<String>,
    /// Folder of the checkpoint to resume from.
    pub resume: Option<PathBuf>,
    /// Samples that run through the network together in training, if the recipe's `batch_size` did
    /// not fit into memory.
    #[serde(default)]
    pub micro_batch: Option<u32>,
    /// Folder of the feature cache; entries are named by content. Later jobs find them.
    pub cache: PathBuf,
    /// `auto` (a GPU where there is one), `cpu` or `cuda:0`.
    pub device: String,
    /// Threads of torch and of decoding. Results are repeatable only with the same number.
    pub threads: u32,
}

/// The base model of a training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanModel {
    pub id: String,
    pub architecture: String,
    pub source_task: SourceTask,
    pub input: Input,
    /// safetensors with timm's names.
    pub weights: PathBuf,
    /// Lower-case hex.
    pub weights_sha256: String,
    /// Weights that replace some of these, in order, if the job starts from a model or a
    /// checkpoint.
    #[serde(default)]
    pub over: Vec<PlanWeights>,
}

/// Weights of a model or a checkpoint that a job starts from: safetensors with timm's names,
/// including the head's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanWeights {
    pub weights: PathBuf,
    /// Lower-case hex.
    pub sha256: String,
    /// True when every tensor of the network is there; false when only those that training changed
    /// are.
    pub whole: bool,
}

/// A checkpoint to predict with. Its folder has this in place of a bundle's files, and the weights
/// of the network that its job started from, which the checkpoint's replace in part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointModel {
    /// Paths of weights are relative to the folder; the checkpoint's own come last.
    pub base_model: PlanModel,
    pub task: Task,
    pub cut: String,
    /// Layers of the head before its last linear one.
    pub head: Vec<HeadLayer>,
    /// In label order; empty in regression.
    pub labels: Vec<String>,
}

/// The plan of `rehead-trainer score FOLDER`: how well a base model's features fit a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScorePlan {
    pub base_model: PlanModel,
    /// The data set's.
    pub task: Task,
    /// The data set's pack.
    pub pack: PathBuf,
    /// Lower-case hex.
    pub pack_sha256: String,
    /// Training samples to score, at most.
    pub samples: u64,
    /// Those that a race scores before, ascending: their features are computed once.
    pub earlier: Vec<u64>,
    /// Folder of the feature cache; see `TrainPlan`.
    pub cache: PathBuf,
    /// As in `TrainPlan`.
    pub device: String,
    pub threads: u32,
}

/// The plan of `rehead-trainer validate FOLDER`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ValidatePlan {
    /// Validates a data set. Writes `report.json` (a `domain::file::FileReport`, also when refused)
    /// and, when accepted, `pack.safetensors` and `thumbnails` (see `domain::sample_index`).
    Dataset {
        input: PathBuf,
        limits: DatasetLimits,
        threads: u32,
    },
    /// Makes a data set of the pack of another, `input`. Writes `corrected.tar`, an archive of it,
    /// and what `Dataset` writes of that.
    Corrected {
        input: PathBuf,
        corrections: Corrections,
        limits: DatasetLimits,
        threads: u32,
    },
    /// Makes the thumbnails of a data set's pack, `input`. Writes `thumbnails`.
    Thumbnails {
        input: PathBuf,
        limits: DatasetLimits,
        threads: u32,
    },
    /// Validates and converts weights. Writes, when accepted, `model.safetensors` and
    /// `imported.json` (an `Imported`).
    Weights {
        input: PathBuf,
        architecture: String,
        max_bytes: u64,
        preprocessing: Option<AskedPreprocessing>,
    },
}

/// The result of importing weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Imported {
    pub architecture: String,
    pub layers: super::base_model::Layers,
    /// The requested values; for the others, those that the weights imply or the architecture's
    /// usual ones.
    pub input: Input,
    /// Number of trainable values in the backbone and the original head.
    pub parameters: u64,
    /// Number of classes of the original head; `null` when the file has no head.
    pub classes: Option<u32>,
}

/// Limits on an uploaded data set. All count what is really read or written, never what a header
/// claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetLimits {
    /// Number of entries in an archive.
    pub entries: u64,
    /// Bytes after decompression, of all entries together.
    pub unpacked_bytes: u64,
    /// Bytes after decompression, of one entry.
    pub entry_bytes: u64,
    /// Unpacked bytes for each packed byte, past the first MiB.
    pub ratio: u64,
    /// Bytes after decompression, of one page of a Parquet file.
    pub page_bytes: u64,
    /// Width times height of an image.
    pub pixels: u64,
    /// Number of problems listed in a report.
    pub report_problems: u64,
    /// Entries of a data set for which thumbnails are made.
    pub thumbnails: u64,
}

/// A line to an inference process (`rehead-trainer serve`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predict {
    /// Chosen by the caller, repeated in the answer.
    pub id: u64,
    /// The folder of a bundle, or of a `CheckpointModel`. Loaded on first use, kept while it is
    /// among the most recently used.
    pub bundle: PathBuf,
    /// Image files.
    pub images: Vec<PathBuf>,
}

/// The line that answers a `Predict`, in any order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    pub id: u64,
    pub outcome: Result<Predictions, super::progress::Failure>,
}

/// Predictions of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    /// The bundle's `labels.json`, which outcomes refer to.
    pub labels: Vec<String>,
    /// An outcome per image, in order.
    pub images: Vec<ImageOutcome>,
}

/// The prediction for an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageOutcome {
    /// Probabilities of the classes, in label order; they sum to 1.
    Probabilities(Vec<f32>),
    /// Probability of each label by itself, in label order, and the labels that reach their
    /// thresholds.
    Labels {
        probabilities: Vec<f32>,
        /// Indices of labels, ascending.
        chosen: Vec<usize>,
    },
    /// The predicted number, in the target's unit.
    Value(f64),
    /// The reason why the image cannot be read.
    Unreadable(String),
}
