//! What logits say about labels: plain arithmetic in f64 on the host, the same for any batch size.

use crate::domain::{
    file::Split,
    report::{ClassReport, Report},
};

/// Logits of some samples beside their labels.
#[derive(Debug, Clone)]
pub struct Scored {
    /// Row after row, `labels.len() * classes` values.
    pub logits: Vec<f32>,
    pub labels: Vec<usize>,
    pub classes: usize,
}

/// Counts and losses of scored samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Tally {
    /// `confusion[true label][predicted label]`.
    pub confusion: Vec<Vec<u64>>,
    /// Mean negative log-likelihood, in nats; `NaN` over no samples.
    pub log_loss: f64,
}

/// Where and when a report was measured.
#[derive(Debug, Clone, Copy)]
pub struct Occasion {
    pub split: Split,
    pub step: u64,
    pub epoch: u32,
    /// The commonest label of the training split.
    pub majority_label: usize,
}

impl Tally {
    /// Counts `scored`. Of equal logits the first label wins, as `argmax` has it.
    pub fn of(scored: &Scored) -> Self {
        let mut confusion = vec![vec![0u64; scored.classes]; scored.classes];
        let mut loss = 0.0;
        for (row, &label) in scored
            .logits
            .chunks_exact(scored.classes)
            .zip(&scored.labels)
        {
            confusion[label][argmax(row)] += 1;
            let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|&logit| f64::from(logit - top).exp()).sum();
            loss += sum.ln() - f64::from(row[label] - top);
        }
        Self {
            confusion,
            log_loss: loss / scored.labels.len() as f64,
        }
    }

    pub fn samples(&self) -> u64 {
        self.confusion.iter().flatten().sum()
    }

    /// Samples of a class.
    fn support(&self, label: usize) -> u64 {
        self.confusion[label].iter().sum()
    }

    fn correct(&self) -> u64 {
        (0..self.confusion.len())
            .map(|label| self.confusion[label][label])
            .sum()
    }

    fn predicted(&self, label: usize) -> u64 {
        self.confusion.iter().map(|row| row[label]).sum()
    }

    pub fn accuracy(&self) -> f64 {
        share(self.correct(), self.samples()).unwrap_or(0.0)
    }

    /// Mean recall over the classes that have samples.
    pub fn balanced_accuracy(&self) -> f64 {
        mean(
            (0..self.confusion.len())
                .filter_map(|label| share(self.confusion[label][label], self.support(label))),
        )
    }

    /// Mean F1 over the classes that have samples or were predicted.
    pub fn macro_f1(&self) -> f64 {
        mean((0..self.confusion.len()).filter_map(|label| self.f1(label)))
    }

    fn f1(&self, label: usize) -> Option<f64> {
        share(
            2 * self.confusion[label][label],
            self.support(label) + self.predicted(label),
        )
    }

    /// The whole report, with `names` in label order.
    pub fn report(&self, names: &[String], occasion: Occasion) -> Report {
        let samples = self.samples();
        let class = |(label, name): (usize, &String)| ClassReport {
            name: name.clone(),
            precision: share(self.confusion[label][label], self.predicted(label)),
            recall: share(self.confusion[label][label], self.support(label)),
            f1: self.f1(label),
            support: self.support(label),
        };
        Report {
            split: occasion.split,
            samples,
            step: occasion.step,
            epoch: occasion.epoch,
            accuracy: self.accuracy(),
            accuracy_interval: wilson(self.correct(), samples),
            majority_baseline: share(self.support(occasion.majority_label), samples).unwrap_or(0.0),
            balanced_accuracy: self.balanced_accuracy(),
            macro_f1: self.macro_f1(),
            log_loss: self.log_loss,
            classes: names.iter().enumerate().map(class).collect(),
            confusion: self.confusion.clone(),
            forgetting: None,
        }
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

/// Wilson's 95 % score interval of a share (Wilson 1927); all of 0..1 when there is nothing to go by.
pub fn wilson(hits: u64, trials: u64) -> [f64; 2] {
    const Z: f64 = 1.959_963_984_540_054;
    if trials == 0 {
        return [0.0, 1.0];
    }
    let (n, p) = (trials as f64, hits as f64 / trials as f64);
    let centre = p + Z * Z / (2.0 * n);
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    [
        ((centre - spread) / scale).max(0.0),
        ((centre + spread) / scale).min(1.0),
    ]
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    if count == 0 {
        0.0
    } else {
        sum / f64::from(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored() -> Scored {
        // True 0: predicted 0, 0, 1. True 1: predicted 1. Nothing is, or is called, 2.
        let logits = vec![2.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 4.0, 0.0];
        Scored {
            logits,
            labels: vec![0, 0, 0, 1],
            classes: 3,
        }
    }

    #[test]
    fn counts_and_shares() {
        let tally = Tally::of(&scored());
        assert_eq!(tally.confusion, [[2, 1, 0], [0, 1, 0], [0, 0, 0]]);
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
        let occasion = Occasion {
            split: Split::Test,
            step: 7,
            epoch: 2,
            majority_label: 1,
        };
        let report = Tally::of(&scored()).report(&names, occasion);
        assert_eq!((report.samples, report.majority_baseline), (4, 0.25));
        assert_eq!(report.classes[0].recall, Some(2.0 / 3.0));
        assert_eq!(report.classes[1].precision, Some(0.5));
        let last = &report.classes[2];
        assert_eq!(
            (last.precision, last.recall, last.f1, last.support),
            (None, None, None, 0)
        );
    }

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

    #[test]
    fn the_loss_of_great_logits_is_finite() {
        let scored = Scored {
            logits: vec![1e4, -1e4],
            labels: vec![1],
            classes: 2,
        };
        assert_eq!(Tally::of(&scored).log_loss, 2e4);
    }
}
