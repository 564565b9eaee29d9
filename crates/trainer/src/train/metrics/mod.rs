//! What outputs say about targets: plain arithmetic in f64 on the host, the same for any batch size.

/// Any number of labels a sample.
pub mod multi;
/// Curves over all thresholds.
pub mod ranking;
/// A number a sample.
pub mod regression;
/// One class a sample.
pub mod single;

pub use self::{multi::MultiLabel, regression::Regression, single::SingleLabel};
use crate::domain::{
    checkpoint::Metrics,
    file::Split,
    recipe::Metric,
    report::{Calibration, Report, Scores},
};

/// A network's outputs for some samples beside their targets: all that is measured follows from it.
#[derive(Debug, Clone)]
pub enum Scored {
    SingleLabel(SingleLabel),
    MultiLabel(MultiLabel),
    Regression(Regression),
}

/// Where and when a report was measured.
#[derive(Debug, Clone, Copy)]
pub struct EvalPoint {
    pub split: Split,
    pub step: u64,
    pub epoch: u32,
}

/// What a report needs besides the scored samples.
#[derive(Debug)]
pub struct ReportContext<'a> {
    /// In label order.
    pub classes: &'a [String],
    pub reading: &'a OutputDecoding,
    /// The commonest label of the training split.
    pub majority_label: usize,
    /// Mean of the numbers of the training split.
    pub mean: f64,
}

/// How outputs become answers: fitted on the validation split, never on the test split.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputDecoding {
    /// Softmax of the logits divided by this.
    Temperature(f64),
    /// A label's least probability, for each class.
    Thresholds(Vec<f64>),
    /// As they are.
    Plain,
}

impl Scored {
    /// Puts what an evaluation measures into `metrics`; the loss is not finite when the outputs are not. The area under the
    /// curves, which takes a sort for each class, is measured only where it is what `chooses`.
    pub fn measure(&self, metrics: &mut Metrics, chooses: Metric) {
        match self {
            Self::SingleLabel(scored) => scored.measure(metrics),
            Self::MultiLabel(scored) => scored.measure(metrics),
            Self::Regression(scored) => scored.measure(metrics),
        }
        if chooses == Metric::ValidRocAuc {
            metrics.valid_roc_auc = match self {
                Self::SingleLabel(scored) => scored.mean_roc_auc(),
                Self::MultiLabel(scored) => scored.mean_roc_auc(),
                Self::Regression(_) => None,
            };
        }
    }

    pub fn report(&self, known: &ReportContext<'_>, occasion: EvalPoint) -> Report {
        let (samples, scores) = match self {
            Self::SingleLabel(scored) => (
                scored.labels.len(),
                Scores::SingleLabelClassification(scored.report(known)),
            ),
            Self::MultiLabel(scored) => (
                scored.labels.len(),
                Scores::MultiLabelClassification(scored.report(known)),
            ),
            Self::Regression(scored) => (
                scored.values.len(),
                Scores::Regression(scored.report(known.mean)),
            ),
        };
        Report {
            split: occasion.split,
            samples: samples as u64,
            step: occasion.step,
            epoch: occasion.epoch,
            scores,
        }
    }
}

/// What `reading`'s temperature does to these samples, where it has one.
pub(super) fn calibration(scored: &SingleLabel, reading: &OutputDecoding) -> Option<Calibration> {
    match *reading {
        OutputDecoding::Temperature(temperature) => {
            Some(super::calibration::measure(scored, temperature))
        }
        _ => None,
    }
}

pub(super) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// `None` of none.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}
