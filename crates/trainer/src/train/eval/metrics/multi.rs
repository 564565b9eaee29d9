//! Several labels a sample: each by itself, and all together.

use super::{
    average::{Counts, macro_f1, mean, share},
    context::{OutputDecoding, ReportContext},
    labelled::MultiLabel,
    ranking,
};
use crate::domain::{
    checkpoint::Metrics,
    report::{LabelReport, MultiLabelScores},
};

/// The least probability of a prediction where none was chosen.
const EVEN: f64 = 0.5;

impl MultiLabel {
    pub(super) fn measure(&self, metrics: &mut Metrics) {
        let counts = self.counts(&vec![EVEN; self.classes]);
        let precision = |class| self.average_precision(class);
        metrics.valid_loss = self.log_loss();
        metrics.valid_macro_f1 = macro_f1(&counts);
        metrics.valid_micro_f1 = micro_f1(&counts);
        metrics.valid_mean_average_precision = mean((0..self.classes).filter_map(precision));
    }

    /// For each class the least probability that is a prediction: of the best F1 on these samples,
    /// halfway between two neighboring probabilities (or below the lowest); of equals the one
    /// nearest to one half, then the lower. One half for a class that no sample has.
    pub fn thresholds(&self) -> Vec<f64> {
        (0..self.classes)
            .map(|class| self.threshold(class))
            .collect()
    }

    fn threshold(&self, class: usize) -> f64 {
        let scores = self.probabilities(class);
        let support = self.support(class);
        let groups = ranking::ascending(&scores);
        let (mut hits, mut called) = (0, 0);
        let mut best: Option<(f64, f64)> = None;
        for (place, group) in groups.iter().enumerate().rev() {
            let has = |&&sample: &&usize| self.has(sample, class);
            hits += group.iter().filter(has).count() as u64;
            called += group.len() as u64;
            let counts = Counts {
                hits,
                predicted: called,
                support,
            };
            let below = place
                .checked_sub(1)
                .map_or(0.0, |place| scores[groups[place][0]]);
            let threshold = f64::midpoint(below, scores[group[0]]);
            let f1 = counts.f1().unwrap_or(0.0);
            let is_better = |&(best_f1, best): &(f64, f64)| {
                let nearer = (threshold - EVEN).abs() <= (best - EVEN).abs();
                f1 > best_f1 || (f1 == best_f1 && nearer)
            };
            if best.as_ref().is_none_or(is_better) {
                best = Some((f1, threshold));
            }
        }
        match best {
            Some((_, threshold)) if support > 0 => threshold,
            _ => EVEN,
        }
    }

    /// The thresholds that outputs are decoded by, for each class.
    pub fn thresholds_of(&self, decoding: &OutputDecoding) -> Vec<f64> {
        match decoding {
            OutputDecoding::Thresholds(thresholds) => thresholds.clone(),
            _ => vec![EVEN; self.classes],
        }
    }

    pub(super) fn report(&self, context: &ReportContext<'_>) -> MultiLabelScores {
        let thresholds = self.thresholds_of(context.decoding);
        let counts = self.counts(&thresholds);
        let class = |(class, name): (usize, &String)| {
            let counts = counts[class];
            LabelReport {
                name: name.clone(),
                precision: counts.precision(),
                recall: counts.recall(),
                f1: counts.f1(),
                threshold: thresholds[class],
                roc_auc: self.roc_auc(class),
                average_precision: self.average_precision(class),
                support: counts.support,
            }
        };
        let classes: Vec<LabelReport> = context.classes.iter().enumerate().map(class).collect();
        let exact = (0..self.labels.len()).filter(|&sample| self.is_exact(sample, &thresholds));
        MultiLabelScores {
            subset_accuracy: share(exact.count() as u64, self.labels.len() as u64).unwrap_or(0.0),
            micro_f1: micro_f1(&counts),
            macro_f1: macro_f1(&counts),
            mean_average_precision: mean(
                classes.iter().filter_map(|class| class.average_precision),
            ),
            roc_auc: mean(classes.iter().filter_map(|class| class.roc_auc)),
            log_loss: self.log_loss(),
            classes,
            forgetting: None,
        }
    }

    fn is_exact(&self, sample: usize, thresholds: &[f64]) -> bool {
        let row = &self.logits[sample * self.classes..][..self.classes];
        let mut places = row.iter().zip(thresholds).enumerate();
        places.all(|(class, (&logit, &threshold))| {
            (sigmoid(logit) >= threshold) == self.has(sample, class)
        })
    }

    fn has(&self, sample: usize, class: usize) -> bool {
        self.labels[sample].binary_search(&class).is_ok()
    }

    /// Samples that have the label.
    pub fn support(&self, class: usize) -> u64 {
        let samples = 0..self.labels.len();
        samples.filter(|&sample| self.has(sample, class)).count() as u64
    }

    /// Counts of each class at its threshold.
    fn counts(&self, thresholds: &[f64]) -> Vec<Counts> {
        let count = |(class, &threshold): (usize, &f64)| {
            let mut counts = Counts::default();
            for (sample, score) in self.probabilities(class).into_iter().enumerate() {
                let (has, called) = (self.has(sample, class), score >= threshold);
                counts.hits += u64::from(has && called);
                counts.predicted += u64::from(called);
                counts.support += u64::from(has);
            }
            counts
        };
        thresholds.iter().enumerate().map(count).collect()
    }

    /// Scores of one class, for each sample.
    pub fn probabilities(&self, class: usize) -> Vec<f64> {
        let logits = self.logits.iter().skip(class).step_by(self.classes);
        logits.map(|&logit| sigmoid(logit)).collect()
    }

    /// Mean over the classes that have a curve.
    pub(super) fn mean_roc_auc(&self) -> Option<f64> {
        mean((0..self.classes).filter_map(|class| self.roc_auc(class)))
    }

    fn roc_auc(&self, class: usize) -> Option<f64> {
        ranking::roc_auc(&self.probabilities(class), |sample| self.has(sample, class))
    }

    /// Average precision of one class; `None` where no sample has it.
    pub fn average_precision(&self, class: usize) -> Option<f64> {
        ranking::average_precision(&self.probabilities(class), |sample| self.has(sample, class))
    }

    /// Mean over samples and classes; `NaN` over none.
    fn log_loss(&self) -> f64 {
        let losses = self.rows().map(|(row, labels)| {
            // ln(1 + e^x), less x where the label is there; without overflow.
            let absent = row.iter().map(|&logit| {
                let logit = f64::from(logit);
                logit.max(0.0) + (-logit.abs()).exp().ln_1p()
            });
            let present = labels.iter().map(|&label| f64::from(row[label]));
            absent.sum::<f64>() - present.sum::<f64>()
        });
        losses.sum::<f64>() / self.logits.len() as f64
    }
}

/// The probability of a label.
pub fn sigmoid(logit: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(logit)).exp())
}

fn micro_f1(counts: &[Counts]) -> Option<f64> {
    let sum = |value: fn(&Counts) -> u64| counts.iter().map(value).sum();
    let all = Counts {
        hits: sum(|counts| counts.hits),
        predicted: sum(|counts| counts.predicted),
        support: sum(|counts| counts.support),
    };
    all.f1()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One class, with these logits; `true` has the label.
    fn scored(samples: &[(f32, bool)]) -> MultiLabel {
        let label = |&(_, has): &(f32, bool)| Vec::from_iter(has.then_some(0));
        MultiLabel {
            logits: samples.iter().map(|sample| sample.0).collect(),
            labels: samples.iter().map(label).collect(),
            classes: 1,
        }
    }

    #[test]
    fn thresholds_lie_between_samples_and_ties_go_to_the_middle() {
        let found =
            scored(&[(-3.0, false), (-2.0, true), (-1.0, true), (-4.0, false)]).thresholds();
        assert_eq!(found, [f64::midpoint(sigmoid(-3.0), sigmoid(-2.0))]);
        // All have it: below the lowest is as good as nowhere else.
        let all = scored(&[(1.0, true), (2.0, true)]).thresholds();
        assert_eq!(all, [sigmoid(1.0) / 2.0]);
        assert_eq!(scored(&[(5.0, false)]).thresholds(), [0.5]);
        // Calling the highest alone has F1 2/3, and so has calling all four.
        let tied = scored(&[(-3.0, true), (-2.0, false), (-1.0, false), (2.0, true)]).thresholds();
        assert_eq!(tied, [f64::midpoint(sigmoid(-1.0), sigmoid(2.0))]);
    }

    #[test]
    fn a_log_loss_is_the_closed_form_and_does_not_overflow() {
        let found = scored(&[(0.0, true), (2.0, false)]).log_loss();
        let wanted = (2f64.ln() - (1.0 - sigmoid(2.0)).ln()) / 2.0;
        assert!((found - wanted).abs() < 1e-12);
        assert!((scored(&[(-1e4, true)]).log_loss() - 1e4).abs() < 1e-9);
        assert!(!scored(&[(f32::NAN, true)]).log_loss().is_finite());
    }
}
