//! The evaluation report of a model: `GET /v1/fine_tuning/jobs/{id}/report`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::file::{Split, TargetStatistics};

/// How the best checkpoint does on the split it was chosen by (or on the test split, where the data has one).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    pub split: Split,
    pub samples: u64,
    pub step: u64,
    pub epoch: u32,
    #[serde(flatten)]
    pub scores: Scores,
}

/// What was measured, by task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Scores {
    SingleLabelClassification(SingleLabelScores),
    MultiLabelClassification(MultiLabelScores),
    Regression(RegressionScores),
}

/// One class a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SingleLabelScores {
    pub accuracy: f64,
    /// Wilson's 95 % interval (Wilson 1927), low then high.
    pub accuracy_interval: [f64; 2],
    /// What always answering the commonest training class would get.
    pub majority_baseline: f64,
    pub balanced_accuracy: f64,
    pub macro_f1: f64,
    /// Mean over the classes of `classes[].roc_auc`, those without one left out; `null` where none has one.
    #[serde(default)]
    pub roc_auc: Option<f64>,
    /// Mean negative log-likelihood, in nats, before any temperature.
    pub log_loss: f64,
    /// Probabilities before and after the temperature that predictions are made with.
    #[serde(default)]
    pub calibration: Option<Calibration>,
    /// In label order.
    pub classes: Vec<ClassReport>,
    /// `confusion[true label][predicted label]`, counts; `null` beyond 1,000 classes.
    pub confusion: Option<Vec<Vec<u64>>>,
    /// Of a job that went on from a model with its head: what became of the classes that it knew. `null` for other jobs.
    #[serde(default)]
    pub forgetting: Option<Forgetting>,
    /// How well the features of the model that the job started from fit this data. `null` where its backbone trains and its head did not
    /// begin at a probe.
    #[serde(default)]
    pub transferability: Option<Transferability>,
}

/// Scores that rank the models a job could start from, on the same data: higher is better in all. They are not expected
/// accuracies: nothing is said of other data, and little of a training that changes the backbone. Of the backbone's features of
/// training samples alone, before any head; a score of each sample comes from the others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Transferability {
    /// Training samples scored: all, or 2,000, of each class in proportion; the same ones for all jobs on the same data.
    pub samples: u64,
    /// Numbers that the backbone gives for a sample.
    pub features: u64,
    /// Share of the samples whose class most of their 5 nearest others have.
    pub knn_accuracy: f64,
    /// Share of the samples whose class a ridge regression on all others tells. Rank by this.
    pub ridge_accuracy: f64,
    /// Of `ridge_accuracy`. Models closer than this are tied: compare their `log_me`.
    pub ridge_standard_error: f64,
    /// LogME (You et al. 2021): maximum log evidence per sample of linear models of the classes, in nats.
    pub log_me: f64,
    /// H-score with a shrunk covariance (Ibrahim et al. 2021): spread of the class means in units of the features' own, from 0.
    pub h_score: f64,
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

/// How the labels that a model knew fare before the first step of a training that went on from it, and after the last: how
/// well their probabilities rank all samples of this data's validation split, which needs no threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LabelForgetting {
    pub samples: u64,
    /// Mean over the labels that have one; `null` where none has.
    pub mean_average_precision_before: Option<f64>,
    pub mean_average_precision_after: Option<f64>,
    /// In label order. A label that no sample has cannot be ranked: what it lost cannot be told from this data.
    pub classes: Vec<KnownLabel>,
}

/// A label that the model knew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KnownLabel {
    pub name: String,
    /// Samples that have it.
    pub support: u64,
    pub average_precision_before: Option<f64>,
    pub average_precision_after: Option<f64>,
}

/// One class's row. A share is `null` where it would divide by zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClassReport {
    pub name: String,
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    pub f1: Option<f64>,
    /// Area under the curve of this class against all others, by its probability before any temperature; equal
    /// probabilities count half. `null` where all samples are of the class, or none is.
    #[serde(default)]
    pub roc_auc: Option<f64>,
    /// Samples of this class.
    pub support: u64,
}

/// What dividing logits by `temperature` does to the probabilities of a split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Calibration {
    pub temperature: f64,
    /// Mean negative log-likelihood, in nats.
    pub log_loss_before: f64,
    pub log_loss_after: f64,
    /// Expected calibration error over 15 bins of equal width, 0 to 1 (Naeini, Cooper & Hauskrecht 2015).
    pub ece_before: f64,
    pub ece_after: f64,
}

/// Any number of labels a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MultiLabelScores {
    /// Share of the samples whose labels are all right and complete.
    pub subset_accuracy: f64,
    /// Over all labels of all samples; `null` where none is true or predicted.
    pub micro_f1: Option<f64>,
    /// Mean over the classes that have samples or were predicted.
    pub macro_f1: Option<f64>,
    /// Mean over the classes of `classes[].average_precision`, those without one left out.
    pub mean_average_precision: Option<f64>,
    /// Mean over the classes of `classes[].roc_auc`, those without one left out.
    pub roc_auc: Option<f64>,
    /// Binary cross-entropy, mean over samples and classes, in nats.
    pub log_loss: f64,
    /// In label order.
    pub classes: Vec<LabelReport>,
    /// Of a job that went on from a model with its head: what became of the labels that it knew. `null` for other jobs.
    #[serde(default)]
    pub forgetting: Option<LabelForgetting>,
}

/// One label's row. A share is `null` where it would divide by zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LabelReport {
    pub name: String,
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    pub f1: Option<f64>,
    /// The least probability that is a prediction: the one of the best F1 on the validation split.
    pub threshold: f64,
    /// `null` where all samples have the label, or none has.
    pub roc_auc: Option<f64>,
    /// Sum over the thresholds of precision times the gain in recall; `null` where no sample has the label.
    pub average_precision: Option<f64>,
    /// Samples that have it.
    pub support: u64,
}

/// A number a sample; all in the target's unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RegressionScores {
    /// Share of the variance that is explained; `null` where all numbers of the split are the same.
    pub r2: Option<f64>,
    /// Mean absolute error.
    pub mae: f64,
    /// Its 95 % interval, low then high: 1.96 standard errors to both sides, not below 0. `null` of fewer than two samples.
    pub mae_interval: Option<[f64; 2]>,
    /// Root mean square error.
    pub rmse: f64,
    /// What always answering the training split's mean would get.
    pub baseline: Baseline,
    /// How the true numbers of the split are spread.
    pub target: TargetStatistics,
}

/// The errors of one answer for all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Baseline {
    pub mae: f64,
    pub rmse: f64,
}
