//! The state of a run besides its tensors: what a checkpoint saves in `state.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::domain::{checkpoint::Metrics, recipe::Metric, report::Transferability};

/// An f64 that survives JSON bit for bit: written as text, because a JSON number may be read with
/// the last bit off.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Exact(pub f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:?}", self.0))
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map(Self)
            .map_err(D::Error::custom)
    }
}

/// `Metrics`, to the bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExactMetrics {
    step: u64,
    epoch: u32,
    train_loss: Option<Exact>,
    /// All that was measured on the validation split.
    #[serde(flatten)]
    measured: BTreeMap<Metric, Exact>,
}

impl From<Metrics> for ExactMetrics {
    fn from(metrics: Metrics) -> Self {
        let all = Metric::ALL.into_iter();
        Self {
            step: metrics.step,
            epoch: metrics.epoch,
            train_loss: metrics.train_loss.map(Exact),
            measured: all
                .filter_map(|metric| Some((metric, Exact(metrics.get(metric)?))))
                .collect(),
        }
    }
}

impl From<&ExactMetrics> for Metrics {
    fn from(exact: &ExactMetrics) -> Self {
        let mut metrics = Self {
            step: exact.step,
            epoch: exact.epoch,
            train_loss: exact.train_loss.map(|Exact(loss)| loss),
            ..Self::default()
        };
        for (&metric, &Exact(value)) in &exact.measured {
            metrics.set(metric, value);
        }
        metrics
    }
}

/// Metrics before the first step, label by label, on the validation split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtStart {
    /// Right answers.
    Right(Vec<u64>),
    AveragePrecision(Vec<Option<Exact>>),
}

/// The position of a run, and everything measured so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Optimizer steps taken.
    pub step: u64,
    /// The epoch of the last step, from 1.
    pub epoch: u32,
    /// Training is over; only evaluation and export are left, and `model.safetensors` holds the
    /// best tensors.
    pub finished: bool,
    pub stopped_early: bool,
    /// Sum over the samples trained on since the last evaluation.
    #[serde(alias = "epoch_loss")]
    pub loss: Exact,
    #[serde(alias = "epoch_samples")]
    pub loss_samples: u64,
    pub best: Option<ExactMetrics>,
    /// The metric value that the next improvement is measured from.
    pub gain_from: Option<Exact>,
    pub evaluations_without_gain: u32,
    /// Samples that run together in training, since memory ran out with the recipe's `batch_size`.
    #[serde(default)]
    pub micro_batch: Option<u32>,
    /// Metrics before the first step, where that was evaluated.
    #[serde(default)]
    pub at_start: Option<AtStart>,
    /// Scores of the features before the first step, where all of them were computed.
    #[serde(default)]
    pub transferability: Option<Transferability>,
}

impl Counters {
    /// True when the best evaluation is that of the present step.
    pub fn is_at_best(&self) -> bool {
        self.best
            .as_ref()
            .is_some_and(|best| best.step == self.step)
    }

    /// True when there is a step to take, of `n_steps` in all.
    pub fn is_training(&self, n_steps: u64) -> bool {
        !self.finished && !self.stopped_early && self.step < n_steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_come_back_bit_for_bit() {
        for value in [
            0.1 + 0.2,
            1.0 / 3.0,
            f64::MIN_POSITIVE,
            5e-324,
            -0.0,
            1.797_693_134_862_315_7e308,
        ] {
            let text = serde_json::to_string(&Exact(value)).unwrap();
            let back: Exact = serde_json::from_str(&text).unwrap();
            assert_eq!(back.0.to_bits(), value.to_bits(), "{text}");
        }
    }

    #[test]
    fn metrics_of_every_task_come_back() {
        let mut metrics = Metrics {
            step: 3,
            epoch: 2,
            train_loss: Some(0.1 + 0.2),
            valid_loss: 1.0 / 3.0,
            ..Metrics::default()
        };
        metrics.set(Metric::ValidRmse, 0.1);
        let text = serde_json::to_string(&ExactMetrics::from(metrics)).unwrap();
        let back: ExactMetrics = serde_json::from_str(&text).unwrap();
        assert_eq!(Metrics::from(&back), metrics, "{text}");
    }
}
