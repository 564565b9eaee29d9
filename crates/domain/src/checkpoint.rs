//! Checkpoints: saved states of a training, from which another process resumes exactly.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::recipe::Metric;

/// The files of a checkpoint folder. `manifest.json`, written last, contains this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout; a reader refuses later ones.
    pub version: u32,
    pub step: u64,
    pub files: BTreeMap<String, ManifestEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestEntry {
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// The results of an evaluation on the validation split; shares are from 0 to 1. Metrics that the
/// task does not have are absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Metrics {
    pub step: u64,
    pub epoch: u32,
    /// Mean over the samples trained on since the evaluation before, with label smoothing as in
    /// training. `null` before the first step.
    pub train_loss: Option<f64>,
    /// The loss without smoothing, mixing and weights: in nats, or in squared standard deviations
    /// of the training split.
    pub valid_loss: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_accuracy: Option<f64>,
    /// Mean recall over the classes in the validation split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_balanced_accuracy: Option<f64>,
    /// Mean F1 over the classes that are in the validation split or were predicted. With several
    /// labels a sample, those with a probability of one half or more count as predicted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_macro_f1: Option<f64>,
    /// F1 over all labels of all samples, at a threshold of one half.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_micro_f1: Option<f64>,
    /// Mean average precision over the classes in the validation split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_mean_average_precision: Option<f64>,
    /// Mean area under the ROC curve of each class against all others. Measured only if
    /// `early_stopping.metric` asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_roc_auc: Option<f64>,
    /// Share of the variance that is explained; absent if all numbers of the validation split are
    /// equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_r2: Option<f64>,
    /// Mean absolute error, in the target's unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_mae: Option<f64>,
    /// Root mean square error, in the target's unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_rmse: Option<f64>,
}

impl Metrics {
    pub fn get(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::ValidLoss => Some(self.valid_loss),
            Metric::ValidAccuracy => self.valid_accuracy,
            Metric::ValidBalancedAccuracy => self.valid_balanced_accuracy,
            Metric::ValidMacroF1 => self.valid_macro_f1,
            Metric::ValidMicroF1 => self.valid_micro_f1,
            Metric::ValidMeanAveragePrecision => self.valid_mean_average_precision,
            Metric::ValidRocAuc => self.valid_roc_auc,
            Metric::ValidR2 => self.valid_r2,
            Metric::ValidMae => self.valid_mae,
            Metric::ValidRmse => self.valid_rmse,
        }
    }

    pub fn set(&mut self, metric: Metric, value: f64) {
        let place = match metric {
            Metric::ValidLoss => {
                self.valid_loss = value;
                return;
            }
            Metric::ValidAccuracy => &mut self.valid_accuracy,
            Metric::ValidBalancedAccuracy => &mut self.valid_balanced_accuracy,
            Metric::ValidMacroF1 => &mut self.valid_macro_f1,
            Metric::ValidMicroF1 => &mut self.valid_micro_f1,
            Metric::ValidMeanAveragePrecision => &mut self.valid_mean_average_precision,
            Metric::ValidRocAuc => &mut self.valid_roc_auc,
            Metric::ValidR2 => &mut self.valid_r2,
            Metric::ValidMae => &mut self.valid_mae,
            Metric::ValidRmse => &mut self.valid_rmse,
        };
        *place = Some(value);
    }

    /// The most telling metric of the task.
    pub fn headline(&self) -> (Metric, f64) {
        let of_tasks = [
            Metric::ValidAccuracy,
            Metric::ValidMeanAveragePrecision,
            Metric::ValidRmse,
        ];
        let found = of_tasks
            .into_iter()
            .find_map(|metric| Some((metric, self.get(metric)?)));
        found.unwrap_or((Metric::ValidLoss, self.valid_loss))
    }

    /// The most telling metric as text: `validation accuracy 0.8125`.
    pub fn headline_text(&self) -> String {
        let (metric, value) = self.headline();
        let name = match metric {
            Metric::ValidAccuracy => "accuracy",
            Metric::ValidMeanAveragePrecision => "mean average precision",
            Metric::ValidRmse => "RMSE",
            _ => "loss",
        };
        format!("validation {name} {value:.4}")
    }
}
