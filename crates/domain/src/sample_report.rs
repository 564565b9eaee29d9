//! The sample report: a finished model's predictions for single samples, to find wrong labels and
//! leaks between splits.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::file::Split;

/// File name of the sample report in the job folder: one `SampleRecord` a line.
pub const SAMPLES: &str = "samples.jsonl";

/// A sample's label, or a prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "must be the name of a class, a list of names, or a number"
)]
pub enum Answer {
    /// The name of a class.
    Class(String),
    /// The names of several classes, in label order.
    Classes(Vec<String>),
    /// A number, in the data's unit.
    Value(f64),
}

/// One sample of a job's data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SampleRecord {
    /// Its number, counted over the training file, then the validation file, each sorted by path.
    pub sample: u32,
    pub split: Split,
    /// Its path in the uploaded archive.
    pub path: String,
    pub label: Answer,
    pub prediction: Answer,
    /// Calibrated probability of the predicted class; `null` if the task has no single one.
    pub probability: Option<f64>,
    /// The sample's loss: in nats, or the regression's own loss on standardized numbers.
    pub loss: f64,
    /// The label's probability minus the largest other one, from -1 (surely wrong) to 1 (surely
    /// right); `null` if the task has no single class.
    pub margin: Option<f64>,
    /// True when the model is as sure of another class as it is of that class's own samples
    /// (confident learning, Northcutt et al. 2021). Fewer wrong labels are found among samples that
    /// trained the model.
    pub likely_wrong_label: bool,
    /// For a sample outside the training split: the path of a training sample with nearly the same
    /// features.
    pub near_duplicate_of: Option<String>,
}
