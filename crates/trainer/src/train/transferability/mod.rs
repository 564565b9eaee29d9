//! Transferability: scores of how well a frozen backbone's features fit a task, without training.
//! They rank base models on the same data, and do not predict the accuracy after training.
//!
//! LEEP and NCE, which need the head of the source task, are missing because an import keeps no
//! head.

/// Separation of classes.
mod h_score;
/// Evidence.
mod log_me;
/// Nearest neighbors.
mod neighbors;
/// Predictions beside their targets, on all samples and on resamples.
mod resampled;
/// Ridge regression, leaving one out.
mod ridge;
/// The singular value decomposition that the others share.
mod spectrum;
/// Labels as the scores take them.
mod targets;

use std::{collections::HashMap, time::Instant};

use tch::{Device, Kind, Tensor};

use self::{resampled::Fit, spectrum::Spectrum, targets::Targets};
use super::{
    input::samples::{Samples, Targets as Labels},
    rng::{Stream, key},
};
use crate::{
    data::random::Random,
    domain::{
        limits,
        ranking::{RESAMPLES, Scores},
        report::Transferability,
    },
    process::error::TrainError,
};

/// Neighbors that vote.
const NEIGHBORS: usize = 5;

/// Scores the features of training samples: of all, or of as many as
/// `limits::TRANSFERABILITY_SAMPLES` allows. These are the same for all jobs on the same data,
/// whatever their seeds, so that scores can be compared. No other split is looked at. `features`
/// gives [N, D] of samples in evaluation. `None` where samples have no single label or are fewer
/// than two, and where features are not finite.
pub fn measure(
    samples: &Samples,
    features: impl FnOnce(&[usize]) -> Tensor,
) -> Option<Transferability> {
    let Labels::Class(labels) = &samples.targets else {
        return None;
    };
    let members = chosen(&samples.train, labels, limits::TRANSFERABILITY_SAMPLES);
    let features = features(&members);
    let labels: Vec<usize> = members.iter().map(|&sample| labels[sample]).collect();
    of_features(&features, &labels)
}

/// `limit` of the samples `all`, of each label in proportion, in ascending order.
fn chosen(all: &[usize], labels: &[usize], limit: usize) -> Vec<usize> {
    let mut counts = HashMap::new();
    for &sample in all {
        *counts.entry(labels[sample]).or_insert(0u32) += 1;
    }
    // Each label's samples lie evenly between 0 and 1, in random order: up to any place, there are
    // as many as is proportionate.
    let order = Random::new(key(0, Stream::Transferability, 0)).order(all.len());
    let mut seen = HashMap::new();
    let mut places: Vec<(f64, usize)> = order
        .into_iter()
        .map(|place| {
            let label = labels[all[place]];
            let number = seen.entry(label).or_insert(0u32);
            *number += 1;
            let place_of_label = (f64::from(*number) - 0.5) / f64::from(counts[&label]);
            (place_of_label, all[place])
        })
        .collect();
    places.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let mut chosen: Vec<usize> = places
        .into_iter()
        .take(limit)
        .map(|(_, sample)| sample)
        .collect();
    chosen.sort_unstable();
    chosen
}

/// Scores features [N, D].
fn of_features(features: &Tensor, labels: &[usize]) -> Option<Transferability> {
    let fitted = Fitted::of(features, |spectrum| Targets::of(spectrum, labels))?;
    let ridge_accuracy = ridge::share_right(&fitted.predicted, &fitted.targets);
    let samples = labels.len() as f64;
    let SingleScores {
        knn_accuracy,
        log_me,
        h_score,
    } = fitted.single_scores(labels);
    Some(Transferability {
        samples: labels.len() as u64,
        features: fitted.width(),
        knn_accuracy,
        ridge_accuracy,
        ridge_standard_error: (ridge_accuracy * (1.0 - ridge_accuracy) / samples).sqrt(),
        log_me,
        h_score,
    })
}

/// Features, targets, and a ridge regression of these on those.
struct Fitted {
    /// [N, D] f64
    features: Tensor,
    spectrum: Spectrum,
    targets: Targets,
    /// Each sample by a fit on all others, as the targets' columns.
    predicted: Tensor,
}

/// Scores that only single labels have.
#[derive(Clone, Copy)]
struct SingleScores {
    knn_accuracy: f64,
    log_me: f64,
    h_score: f64,
}

impl Fitted {
    /// `None` for fewer than two samples, or features that are not finite.
    fn of(features: &Tensor, targets: impl FnOnce(&Spectrum) -> Targets) -> Option<Self> {
        let features = features.to_device(Device::Cpu).to_kind(Kind::Double);
        let (samples, _) = features.size2().ok()?;
        if samples < 2 || features.isfinite().all().int64_value(&[]) == 0 {
            return None;
        }
        let spectrum = Spectrum::of(&features);
        let targets = targets(&spectrum);
        Some(Self {
            predicted: ridge::predictions(&spectrum, &targets, mean_variance(&features)),
            features,
            spectrum,
            targets,
        })
    }

    /// Number of features of a sample.
    fn width(&self) -> u64 {
        self.features.size()[1] as u64
    }

    fn single_scores(&self, labels: &[usize]) -> SingleScores {
        SingleScores {
            knn_accuracy: neighbors::accuracy(&self.features, labels, NEIGHBORS),
            log_me: log_me::score(&self.spectrum, &self.targets),
            h_score: h_score::score(&self.features, &self.targets.columns),
        }
    }
}

/// Scores features of training samples for a ranking of base models: of the same samples for every
/// model, `samples` at most. `features` gives [N, D] of samples in evaluation.
///
/// # Errors
/// Those of `features`; `Features` where any is not finite, `Data` for fewer than two samples.
pub fn rank(
    samples: &Samples,
    most: usize,
    features: impl FnOnce(&[usize]) -> Result<Tensor, TrainError>,
) -> Result<Scores, TrainError> {
    let since = Instant::now();
    let members = members(samples, most);
    if members.len() < 2 {
        return Err(TrainError::Data(
            "a ranking needs two training samples or more; add samples".to_owned(),
        ));
    }
    let targets = |spectrum: &Spectrum| match &samples.targets {
        Labels::Class(labels) => Targets::of(spectrum, &of(&members, labels)),
        Labels::Classes(labels) => {
            let labels = of(&members, labels);
            Targets::new(spectrum, several(&labels, samples.outputs()))
        }
        Labels::Value(values) => {
            let values = Tensor::from_slice(&of(&members, values));
            Targets::new(spectrum, values.unsqueeze(1))
        }
    };
    let fitted = Fitted::of(&features(&members)?, targets).ok_or(TrainError::Features)?;
    let (predicted, columns) = (&fitted.predicted, &fitted.targets.columns);
    let (fit, single) = match &samples.targets {
        Labels::Class(labels) => (
            Fit::accuracy(predicted, columns),
            Some(fitted.single_scores(&of(&members, labels))),
        ),
        Labels::Classes(_) => (Fit::precision(predicted, columns), None),
        Labels::Value(_) => (Fit::variance(predicted, columns), None),
    };
    Ok(Scores {
        samples: members.len() as u64,
        features: fitted.width(),
        score: fit.score(),
        resampled: fit.resampled(RESAMPLES),
        knn_accuracy: single.map(|scores| scores.knn_accuracy),
        log_me: single.map(|scores| scores.log_me),
        h_score: single.map(|scores| scores.h_score),
        seconds: since.elapsed().as_secs_f64(),
    })
}

/// The training samples that are scored, ascending: `most` of them, those of a label in proportion.
/// Those of a smaller number are among those of a larger one.
pub fn members(samples: &Samples, most: usize) -> Vec<usize> {
    match &samples.targets {
        Labels::Class(labels) => chosen(&samples.train, labels, most),
        _ => chosen(&samples.train, &vec![0; samples.count()], most),
    }
}

fn of<T: Clone>(members: &[usize], all: &[T]) -> Vec<T> {
    members.iter().map(|&sample| all[sample].clone()).collect()
}

/// Columns [N, C] of labels, for each that a sample has.
fn several(labels: &[Vec<usize>], classes: usize) -> Tensor {
    let mut columns = vec![0.0; labels.len() * classes];
    for (sample, labels) in labels.iter().enumerate() {
        for label in labels {
            columns[sample * classes + label] = 1.0;
        }
    }
    let columns = Tensor::from_slice(&columns).view([labels.len() as i64, classes as i64]);
    let has = columns
        .sum_dim_intlist([0i64].as_slice(), false, Kind::Double)
        .gt(0.0);
    columns.index_select(1, &has.nonzero().view(-1))
}

/// Mean variance of features [N, D].
fn mean_variance(features: &Tensor) -> f64 {
    let variance = features.var_dim([0i64].as_slice(), false, false);
    variance.mean(Kind::Double).double_value(&[])
}

#[cfg(test)]
mod tests;
