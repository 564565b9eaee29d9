//! The sample report: what a finished model says of each sample, so that people find wrong labels and leaks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::file::Split;

/// The sample report's file in the job folder: one `SampleRecord` a line.
pub const SAMPLES: &str = "samples.jsonl";

/// What a sample is, or is taken for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Answer {
    /// A class, by name.
    Class(String),
    /// Several classes, in label order.
    Classes(Vec<String>),
    /// A number, in the data's unit.
    Value(f64),
}

/// One sample of a job's data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SampleRecord {
    /// Its number: through the training file, then the validation file, each sorted by path.
    pub sample: u32,
    pub split: Split,
    /// In the uploaded archive.
    pub path: String,
    pub label: Answer,
    pub prediction: Answer,
    /// Of the predicted class, calibrated; `null` where a task has no single one.
    pub probability: Option<f64>,
    /// In nats; of a regression its own loss on standardised numbers.
    pub loss: f64,
    /// The label's probability less the largest other one, from -1 (surely wrong) to 1 (surely right); `null` as above.
    pub margin: Option<f64>,
    /// Whether the model is as sure of another class as it is of that class's own samples (confident learning, Northcutt et
    /// al. 2021). Samples that trained the model are judged more mildly than they deserve.
    pub likely_wrong_label: bool,
    /// Of a sample outside the training split: the path of a training sample whose features are nearly the same.
    pub near_duplicate_of: Option<String>,
}
