//! One class a sample.

use super::{
    average::{Counts, macro_f1, mean, share},
    context::ReportContext,
    labelled::SingleLabel,
    ranking,
};
use crate::domain::{
    checkpoint::Metrics,
    limits,
    report::{ClassReport, SingleLabelScores, wilson},
};

impl SingleLabel {
    pub(super) fn measure(&self, metrics: &mut Metrics) {
        let tally = Tally::of(self);
        metrics.valid_loss = tally.log_loss;
        metrics.valid_accuracy = Some(tally.accuracy());
        metrics.valid_balanced_accuracy = Some(tally.balanced_accuracy());
        metrics.valid_macro_f1 = Some(tally.macro_f1());
    }

    pub(super) fn report(&self, context: &ReportContext<'_>) -> SingleLabelScores {
        let tally = Tally::of(self);
        let samples = self.labels.len() as u64;
        let normalizers = self.normalizers();
        let class = |(label, name): (usize, &String)| {
            let counts = tally.counts[label];
            ClassReport {
                name: name.clone(),
                precision: counts.precision(),
                recall: counts.recall(),
                f1: counts.f1(),
                roc_auc: self.roc_auc(label, &normalizers),
                support: counts.support,
            }
        };
        let classes: Vec<ClassReport> = context.classes.iter().enumerate().map(class).collect();
        let majority = tally.counts[context.majority_label].support;
        SingleLabelScores {
            accuracy: tally.accuracy(),
            accuracy_interval: wilson(tally.correct(), samples),
            majority_baseline: share(majority, samples).unwrap_or(0.0),
            balanced_accuracy: tally.balanced_accuracy(),
            macro_f1: tally.macro_f1(),
            roc_auc: mean(classes.iter().filter_map(|class| class.roc_auc)),
            log_loss: tally.log_loss,
            calibration: None,
            classes,
            confusion: self.confusion(),
            forgetting: None,
            transferability: None,
        }
    }

    /// Counts of each class.
    pub fn counts(&self) -> Vec<Counts> {
        Tally::of(self).counts
    }

    /// The logarithm of the sum of each row's exponentials.
    fn normalizers(&self) -> Vec<f64> {
        let sums = self.rows().map(|(row, _)| exponentials(row));
        sums.map(|(top, sum)| f64::from(top) + sum.ln()).collect()
    }

    /// Mean over the classes that have a curve.
    pub(super) fn mean_roc_auc(&self) -> Option<f64> {
        let normalizers = self.normalizers();
        mean((0..self.classes).filter_map(|label| self.roc_auc(label, &normalizers)))
    }

    /// ROC-AUC of a class against all others.
    fn roc_auc(&self, label: usize, normalizers: &[f64]) -> Option<f64> {
        let rows = self.rows().zip(normalizers);
        let scores: Vec<f64> = rows
            .map(|((row, _), log_sum)| (f64::from(row[label]) - log_sum).exp())
            .collect();
        ranking::roc_auc(&scores, |sample| self.labels[sample] == label)
    }

    /// `[true label][predicted label]`, while it is not too large.
    fn confusion(&self) -> Option<Vec<Vec<u64>>> {
        if self.classes > limits::CONFUSION_CLASSES {
            return None;
        }
        let mut confusion = vec![vec![0; self.classes]; self.classes];
        for (row, &label) in self.rows() {
            confusion[label][argmax(row)] += 1;
        }
        Some(confusion)
    }
}

/// The largest logit, and the sum of all exponentials over its own.
fn exponentials(row: &[f32]) -> (f32, f64) {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers = row.iter().map(|&logit| f64::from(logit - top).exp());
    (top, powers.sum())
}

/// Counts and losses of scored samples.
#[derive(Debug, Clone, PartialEq)]
struct Tally {
    /// One entry a class.
    counts: Vec<Counts>,
    /// Mean negative log-likelihood, in nats; `NaN` over no samples.
    log_loss: f64,
}

impl Tally {
    /// Counts `scored`. Of equal logits the first label wins, as `argmax` has it.
    fn of(scored: &SingleLabel) -> Self {
        let mut counts = vec![Counts::default(); scored.classes];
        let mut loss = 0.0;
        for (row, &label) in scored.rows() {
            let chosen = argmax(row);
            counts[label].support += 1;
            counts[chosen].predicted += 1;
            counts[label].hits += u64::from(chosen == label);
            let (top, sum) = exponentials(row);
            loss += sum.ln() - f64::from(row[label] - top);
        }
        Self {
            counts,
            log_loss: loss / scored.labels.len() as f64,
        }
    }

    fn correct(&self) -> u64 {
        self.counts.iter().map(|counts| counts.hits).sum()
    }

    fn accuracy(&self) -> f64 {
        let samples = self.counts.iter().map(|counts| counts.support).sum();
        share(self.correct(), samples).unwrap_or(0.0)
    }

    /// Mean recall over the classes that have samples.
    fn balanced_accuracy(&self) -> f64 {
        mean(self.counts.iter().filter_map(|counts| counts.recall())).unwrap_or(0.0)
    }

    fn macro_f1(&self) -> f64 {
        macro_f1(&self.counts).unwrap_or(0.0)
    }
}

/// The place of the largest value; of equals the first.
pub fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (index, &value) in row.iter().enumerate() {
        if value > row[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::eval::metrics::OutputDecoding;

    fn scored() -> SingleLabel {
        // True 0: predicted 0, 0, 1. True 1: predicted 1. Nothing is, or is called, 2.
        let logits = vec![2.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 4.0, 0.0];
        SingleLabel {
            logits,
            labels: vec![0, 0, 0, 1],
            classes: 3,
        }
    }

    #[test]
    fn counts_and_shares() {
        let tally = Tally::of(&scored());
        let confusion = [[2, 1, 0], [0, 1, 0], [0, 0, 0]].map(Vec::from);
        assert_eq!(scored().confusion().unwrap(), confusion);
        assert_eq!(tally.accuracy(), 0.75);
        assert!((tally.balanced_accuracy() - (2.0 / 3.0 + 1.0) / 2.0).abs() < 1e-15);
        assert!((tally.macro_f1() - (0.8 + 2.0 / 3.0) / 2.0).abs() < 1e-15);
        let loss =
            |own: f64, others: [f64; 2]| (own.exp() + others[0].exp() + others[1].exp()).ln() - own;
        let expected = (loss(2.0, [0.0; 2])
            + loss(3.0, [0.0; 2])
            + loss(0.0, [1.0, 0.0])
            + loss(4.0, [0.0; 2]))
            / 4.0;
        assert!((tally.log_loss - expected).abs() < 1e-12);
    }

    #[test]
    fn a_report_says_null_where_there_is_nothing_to_divide_by() {
        let names = ["a", "b", "c"].map(str::to_owned);
        let known = ReportContext {
            classes: &names,
            decoding: &OutputDecoding::Temperature(2.0),
            majority_label: 1,
            mean: 0.0,
        };
        let report = scored().report(&known);
        assert_eq!(report.majority_baseline, 0.25);
        assert_eq!(report.classes[0].recall, Some(2.0 / 3.0));
        assert_eq!(report.classes[1].precision, Some(0.5));
        let last = &report.classes[2];
        assert_eq!(
            (last.precision, last.recall, last.f1, last.support),
            (None, None, None, 0)
        );
        assert_eq!(last.roc_auc, None);
    }

    #[test]
    fn the_loss_of_great_logits_is_finite() {
        let scored = SingleLabel {
            logits: vec![1e4, -1e4],
            labels: vec![1],
            classes: 2,
        };
        assert_eq!(Tally::of(&scored).log_loss, 2e4);
    }

    #[test]
    fn a_confusion_matrix_has_a_limit() {
        let of = |classes: usize| SingleLabel {
            logits: vec![0.0; classes],
            labels: vec![0],
            classes,
        };
        assert!(of(limits::CONFUSION_CLASSES).confusion().is_some());
        assert!(of(limits::CONFUSION_CLASSES + 1).confusion().is_none());
    }
}
