//! Outputs beside their targets.

use super::{
    calibration,
    context::{EvalPoint, OutputDecoding, ReportContext},
    multi::MultiLabel,
    regression::Regression,
    single::SingleLabel,
};
use crate::domain::{
    checkpoint::Metrics,
    recipe::Metric,
    report::{Report, Scores},
};

/// A network's outputs for some samples beside their targets: all that is measured follows from it.
#[derive(Debug, Clone)]
pub enum Scored {
    SingleLabel(SingleLabel),
    MultiLabel(MultiLabel),
    Regression(Regression),
}

impl Scored {
    /// Puts what an evaluation measures into `metrics`; the loss is not finite when the outputs are
    /// not. The area under the curves, which takes a sort for each class, is measured only where it
    /// is what `chooses`.
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

    pub fn report(&self, context: &ReportContext<'_>, point: EvalPoint) -> Report {
        let (samples, scores) = match self {
            Self::SingleLabel(scored) => {
                let mut scores = scored.report(context);
                if let OutputDecoding::Temperature(temperature) = *context.decoding {
                    scores.calibration = Some(calibration::measure(scored, temperature));
                }
                (
                    scored.labels.len(),
                    Scores::SingleLabelClassification(scores),
                )
            }
            Self::MultiLabel(scored) => (
                scored.labels.len(),
                Scores::MultiLabelClassification(scored.report(context)),
            ),
            Self::Regression(scored) => (
                scored.values.len(),
                Scores::Regression(scored.report(context.mean)),
            ),
        };
        Report {
            split: point.split,
            samples: samples as u64,
            step: point.step,
            epoch: point.epoch,
            scores,
        }
    }
}
