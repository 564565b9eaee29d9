//! Outputs beside their targets.

use super::{
    calibration,
    context::{OutputDecoding, ReportContext},
    labelled::{MultiLabel, SingleLabel},
    regression::Regression,
};
use crate::domain::{checkpoint::Metrics, recipe::Metric, report::Scores};

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

    pub fn scores(&self, context: &ReportContext<'_>) -> Scores {
        match self {
            Self::SingleLabel(scored) => {
                let mut scores = scored.report(context);
                if let OutputDecoding::Temperature(temperature) = *context.decoding {
                    scores.calibration = Some(calibration::measure(scored, temperature));
                }
                Scores::SingleLabelClassification(scores)
            }
            Self::MultiLabel(scored) => Scores::MultiLabelClassification(scored.report(context)),
            Self::Regression(scored) => Scores::Regression(scored.report(context.mean)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_the_calibration_of_its_temperature() {
        let scored = Scored::SingleLabel(SingleLabel {
            logits: vec![2.0, 0.0, 0.0, 3.0],
            labels: vec![0, 1],
            classes: 2,
        });
        let classes = ["a", "b"].map(str::to_owned);
        let context = ReportContext {
            classes: &classes,
            decoding: &OutputDecoding::Temperature(2.0),
            majority_label: 0,
            mean: 0.0,
        };
        let Scores::SingleLabelClassification(scores) = scored.scores(&context) else {
            panic!("the report is of another task");
        };
        assert_eq!(scores.calibration.unwrap().temperature, 2.0);
    }
}
