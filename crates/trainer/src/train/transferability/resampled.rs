//! Predictions beside their targets: one score of all samples, and the same score of resamples,
//! which its standard error follows from (Efron 1979).

use tch::{Kind, Tensor};

use super::{
    super::rng::{Stream, key},
    spectrum::numbers,
};
use crate::{data::random::Random, ticks::tick};

/// Predictions and targets, as a score compares them.
pub(super) enum Fit {
    /// Accuracy: 1 for each sample that is right, else 0.
    Accuracy(Vec<f64>),
    /// Mean average precision, over the classes.
    Precision(Vec<Ordered>),
    /// Share of the variance that is explained.
    Variance { squares: Vec<f64>, values: Vec<f64> },
}

/// Samples of a class from the highest prediction down.
pub(super) struct Ordered {
    /// Place of each sample, and how many places the samples of one prediction take.
    order: Vec<usize>,
    /// Ends of the groups of equal predictions, in `order`.
    ends: Vec<usize>,
    /// True for samples that have the label.
    positive: Vec<bool>,
}

impl Fit {
    /// Highest of predictions [N, C] beside the 1 of one-hot labels [N, C].
    pub(super) fn accuracy(predicted: &Tensor, one_hot: &Tensor) -> Self {
        let right = predicted
            .argmax(1, false)
            .eq_tensor(&one_hot.argmax(1, false));
        Self::Accuracy(numbers(&right.to_kind(Kind::Double)))
    }

    /// Predictions [N, C] of labels [N, C], 0 or 1 each.
    pub(super) fn precision(predicted: &Tensor, labels: &Tensor) -> Self {
        let class = |class| {
            let scores = numbers(&predicted.select(1, class));
            let has = numbers(&labels.select(1, class));
            Ordered::new(&scores, has.iter().map(|&one| one > 0.5).collect())
        };
        Self::Precision((0..labels.size()[1]).map(class).collect())
    }

    /// Predictions [N, 1] of numbers [N, 1].
    pub(super) fn variance(predicted: &Tensor, values: &Tensor) -> Self {
        Self::Variance {
            squares: numbers(&(predicted - values).square().view(-1)),
            values: numbers(&values.view(-1)),
        }
    }

    fn samples(&self) -> usize {
        match self {
            Self::Accuracy(right) => right.len(),
            Self::Precision(classes) => classes.first().map_or(0, |class| class.order.len()),
            Self::Variance { values, .. } => values.len(),
        }
    }

    /// The score of all samples.
    pub(super) fn score(&self) -> f64 {
        self.weighted(&vec![1.0; self.samples()])
    }

    /// The score of `count` resamples, the same ones for as many samples.
    pub(super) fn resampled(&self, count: usize) -> Vec<f32> {
        let samples = self.samples();
        let score = |number| {
            tick();
            let mut random = Random::new(key(0, Stream::Resample, number as u64));
            let mut weights = vec![0.0; samples];
            for _ in 0..samples {
                weights[random.below(samples)] += 1.0;
            }
            self.weighted(&weights) as f32
        };
        (0..count).map(score).collect()
    }

    /// The score where each sample counts as often as its weight says.
    fn weighted(&self, weights: &[f64]) -> f64 {
        let total: f64 = weights.iter().sum();
        let mean = |of: &[f64]| {
            let terms = of.iter().zip(weights).map(|(one, weight)| one * weight);
            terms.sum::<f64>() / total
        };
        match self {
            Self::Accuracy(right) => mean(right),
            Self::Precision(classes) => {
                let found = classes.iter().filter_map(|class| class.precision(weights));
                let found: Vec<f64> = found.collect();
                found.iter().sum::<f64>() / found.len().max(1) as f64
            }
            Self::Variance { squares, values } => {
                let level = mean(values);
                let spread: Vec<f64> = values.iter().map(|value| (value - level).powi(2)).collect();
                let spread = mean(&spread);
                // Equal numbers have nothing to explain.
                if spread > 0.0 {
                    1.0 - mean(squares) / spread
                } else {
                    0.0
                }
            }
        }
    }
}

impl Ordered {
    fn new(scores: &[f64], positive: Vec<bool>) -> Self {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&one, &other| scores[other].total_cmp(&scores[one]));
        let mut ends = Vec::new();
        for group in order.chunk_by(|&one, &other| scores[one] == scores[other]) {
            ends.push(ends.last().unwrap_or(&0) + group.len());
        }
        Self {
            order,
            ends,
            positive,
        }
    }

    /// Average precision, as scikit-learn defines it; `None` where no sample has the label.
    fn precision(&self, weights: &[f64]) -> Option<f64> {
        let (mut hits, mut called, mut sum, mut start) = (0.0, 0.0, 0.0, 0);
        for &end in &self.ends {
            let mut more = 0.0;
            for &sample in &self.order[start..end] {
                called += weights[sample];
                more += if self.positive[sample] {
                    weights[sample]
                } else {
                    0.0
                };
            }
            hits += more;
            // A group that no resample has leaves both as they were.
            sum += if more > 0.0 {
                more * hits / called
            } else {
                0.0
            };
            start = end;
        }
        (hits > 0.0).then(|| sum / hits)
    }
}
