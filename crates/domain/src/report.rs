//! The evaluation report of a model: `GET /v1/fine_tuning/jobs/{id}/report`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::file::{Split, TargetStatistics};

/// Evaluation of the best checkpoint on the test split or, if there is none, on the validation
/// split, which chose it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    pub split: Split,
    pub samples: u64,
    pub step: u64,
    pub epoch: u32,
    #[serde(flatten)]
    pub scores: Scores,
}

/// The scores of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Scores {
    SingleLabelClassification(SingleLabelScores),
    MultiLabelClassification(MultiLabelScores),
    Regression(RegressionScores),
}

/// Scores with one class a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SingleLabelScores {
    pub accuracy: f64,
    /// Wilson's 95 % interval (Wilson 1927), low then high.
    pub accuracy_interval: [f64; 2],
    /// Accuracy of always answering the most frequent training class.
    pub majority_baseline: f64,
    pub balanced_accuracy: f64,
    pub macro_f1: f64,
    /// Mean of `classes[].roc_auc` over the classes that have one; `null` if none has.
    #[serde(default)]
    pub roc_auc: Option<f64>,
    /// Mean negative log-likelihood, in nats, before any temperature.
    pub log_loss: f64,
    /// Quality of the probabilities before and after the temperature that predictions use.
    #[serde(default)]
    pub calibration: Option<Calibration>,
    /// Scores of each class, in label order.
    pub classes: Vec<ClassReport>,
    /// `confusion[true label][predicted label]`, counts; `null` beyond 1,000 classes.
    pub confusion: Option<Vec<Vec<u64>>>,
    /// How the classes that the parent's head knew changed; `null` for jobs that did not keep a
    /// head.
    #[serde(default)]
    pub forgetting: Option<Forgetting>,
    /// How well the features of the model that the job started from fit this data. `null` if the
    /// backbone trained and the head did not start from a probe.
    #[serde(default)]
    pub transferability: Option<Transferability>,
}

/// Scores that rank the models that a job could start from, on the same data: higher is better in
/// all. They are no expected accuracies: they say nothing about other data, and little about a
/// training that changes the backbone. They are computed from the backbone's features of training
/// samples alone, before any head; each sample is scored by the others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Transferability {
    /// Number of training samples scored: all, or 2,000 with the classes in proportion; the same
    /// ones for all jobs on the same data.
    pub samples: u64,
    /// Number of features of a sample.
    pub features: u64,
    /// Accuracy of a 5-nearest-neighbors classifier.
    pub knn_accuracy: f64,
    /// Leave-one-out accuracy of a ridge regression. Rank by this.
    pub ridge_accuracy: f64,
    /// Standard error of `ridge_accuracy`.
    pub ridge_standard_error: f64,
    /// LogME (You et al. 2021): maximum log evidence per sample of linear models of the classes, in
    /// nats.
    pub log_me: f64,
    /// H-score with a shrunk covariance (Ibrahim et al. 2021): the spread of the class means
    /// relative to that of the features; 0 or more.
    pub h_score: f64,
}

/// Accuracy on the classes that the parent knew, before the first step of the training and after
/// the last: on samples of those classes in this data's validation split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Forgetting {
    pub samples: u64,
    /// `null` if the split has no sample of them.
    pub accuracy_before: Option<f64>,
    pub accuracy_after: Option<f64>,
    /// The known classes in label order. A class without a sample has no recall to compare.
    pub classes: Vec<KnownClass>,
}

/// A class that the parent knew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KnownClass {
    pub name: String,
    /// Number of samples of this class.
    pub support: u64,
    pub recall_before: Option<f64>,
    pub recall_after: Option<f64>,
}

/// Average precision on the labels that the parent knew, before the first step of the training and
/// after the last: how well their probabilities rank this data's validation split, which needs no
/// threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LabelForgetting {
    pub samples: u64,
    /// Mean over the labels that have one; `null` if none has.
    pub mean_average_precision_before: Option<f64>,
    pub mean_average_precision_after: Option<f64>,
    /// The known labels in label order. A label that no sample has cannot be ranked.
    pub classes: Vec<KnownLabel>,
}

/// A label that the parent knew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KnownLabel {
    pub name: String,
    /// Number of samples that have it.
    pub support: u64,
    pub average_precision_before: Option<f64>,
    pub average_precision_after: Option<f64>,
}

/// The scores of one class. A share is `null` if it would divide by zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClassReport {
    pub name: String,
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    pub f1: Option<f64>,
    /// Area under the ROC curve of this class against all others, by its probability before any
    /// temperature; equal probabilities count half. `null` if all samples are of the class, or none
    /// is.
    #[serde(default)]
    pub roc_auc: Option<f64>,
    /// Number of samples of this class.
    pub support: u64,
}

/// The effect of dividing logits by `temperature` on the probabilities of a split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Calibration {
    pub temperature: f64,
    /// Mean negative log-likelihood, in nats.
    pub log_loss_before: f64,
    pub log_loss_after: f64,
    /// Expected calibration error over 15 bins of equal width, 0 to 1 (Naeini, Cooper & Hauskrecht
    /// 2015).
    pub ece_before: f64,
    pub ece_after: f64,
}

/// Scores with any number of labels a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MultiLabelScores {
    /// Share of the samples whose labels are predicted exactly.
    pub subset_accuracy: f64,
    /// F1 over all labels of all samples; `null` if none is true or predicted.
    pub micro_f1: Option<f64>,
    /// Mean F1 over the classes that have samples or were predicted.
    pub macro_f1: Option<f64>,
    /// Mean of `classes[].average_precision` over the classes that have one.
    pub mean_average_precision: Option<f64>,
    /// Mean of `classes[].roc_auc` over the classes that have one.
    pub roc_auc: Option<f64>,
    /// Binary cross-entropy, mean over samples and classes, in nats.
    pub log_loss: f64,
    /// Scores of each label, in label order.
    pub classes: Vec<LabelReport>,
    /// How the labels that the parent's head knew changed; `null` for jobs that did not keep a
    /// head.
    #[serde(default)]
    pub forgetting: Option<LabelForgetting>,
}

/// The scores of one label. A share is `null` if it would divide by zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LabelReport {
    pub name: String,
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    pub f1: Option<f64>,
    /// The least probability that counts as predicted: the one with the best F1 on the validation
    /// split.
    pub threshold: f64,
    /// `null` if all samples have the label, or none has.
    pub roc_auc: Option<f64>,
    /// Sum over the thresholds of precision times the gain in recall; `null` if no sample has the
    /// label.
    pub average_precision: Option<f64>,
    /// Number of samples that have it.
    pub support: u64,
}

/// Scores with a number a sample; all in the target's unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RegressionScores {
    /// Share of the variance that is explained; `null` if all numbers of the split are equal.
    pub r2: Option<f64>,
    /// Mean absolute error.
    pub mae: f64,
    /// 95 % interval of `mae`, low then high: 1.96 standard errors to both sides, not below 0.
    /// `null` with fewer than two samples.
    pub mae_interval: Option<[f64; 2]>,
    /// Root mean square error.
    pub rmse: f64,
    /// Errors of always answering the training split's mean.
    pub baseline: Baseline,
    /// Distribution of the true numbers of the split.
    pub target: TargetStatistics,
}

/// The errors of a constant answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Baseline {
    pub mae: f64,
    pub rmse: f64,
}

/// Wilson's 95 % score interval of a share (Wilson 1927); all of 0..1 when there is nothing to go
/// by.
pub fn wilson(hits: u64, trials: u64) -> [f64; 2] {
    const Z: f64 = 1.959_963_984_540_054;
    if trials == 0 {
        return [0.0, 1.0];
    }
    let (n, p) = (trials as f64, hits as f64 / trials as f64);
    let center = p + Z * Z / (2.0 * n);
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    [
        ((center - spread) / scale).max(0.0),
        ((center + spread) / scale).min(1.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilsons_interval_matches_published_values() {
        // statsmodels.stats.proportion.proportion_confint(method="wilson")
        for (hits, trials, low, high) in [
            (0, 10, 0.0, 0.277_532_8),
            (8, 10, 0.490_162_5, 0.943_317_8),
            (10, 10, 0.722_467_2, 1.0),
        ] {
            let [found_low, found_high] = wilson(hits, trials);
            assert!(
                (found_low - low).abs() < 1e-6 && (found_high - high).abs() < 1e-6,
                "{hits}/{trials}: {found_low} {found_high}"
            );
        }
        assert_eq!(wilson(0, 0), [0.0, 1.0]);
    }
}
