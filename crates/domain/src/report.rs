//! The evaluation report of a model: `GET /v1/fine_tuning/jobs/{id}/report`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How the best checkpoint does on the split it was chosen by (or on the test split, where the data has one).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    pub split: super::file::Split,
    pub samples: u64,
    pub step: u64,
    pub epoch: u32,
    pub accuracy: f64,
    /// Wilson's 95 % interval (Wilson 1927), low then high.
    pub accuracy_interval: [f64; 2],
    /// What always answering the commonest training class would get.
    pub majority_baseline: f64,
    pub balanced_accuracy: f64,
    pub macro_f1: f64,
    /// Mean negative log-likelihood, in nats.
    pub log_loss: f64,
    /// In label order.
    pub classes: Vec<ClassReport>,
    /// `confusion[true label][predicted label]`, counts.
    pub confusion: Vec<Vec<u64>>,
    /// Of a job that went on from a model with its head: what became of the classes that it knew. `null` for other jobs.
    #[serde(default)]
    pub forgetting: Option<Forgetting>,
}

/// How the classes that a model knew fare before the first step of a training that went on from it, and after the last. On
/// this data's validation split, samples of those classes alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Forgetting {
    pub samples: u64,
    /// `null` where the split has no sample of them.
    pub accuracy_before: Option<f64>,
    pub accuracy_after: Option<f64>,
    /// In label order. A class without a sample has no recall to compare: what it lost cannot be told from this data.
    pub classes: Vec<KnownClass>,
}

/// A class that the model knew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KnownClass {
    pub name: String,
    /// Samples of this class.
    pub support: u64,
    pub recall_before: Option<f64>,
    pub recall_after: Option<f64>,
}

/// One class's row. A share is `null` where it would divide by zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClassReport {
    pub name: String,
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    pub f1: Option<f64>,
    /// Samples of this class.
    pub support: u64,
}
