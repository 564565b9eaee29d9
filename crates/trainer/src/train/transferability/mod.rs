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
/// Ridge regression, leaving one out.
mod ridge;
/// The singular value decomposition that the others share.
mod spectrum;
/// Labels as the scores take them.
mod targets;

use std::collections::HashMap;

use tch::{Device, Kind, Tensor};

use self::{spectrum::Spectrum, targets::Targets};
use super::{
    input::samples::{Samples, Targets as Labels},
    rng::{Stream, key},
};
use crate::{
    data::random::Random,
    domain::{limits, report::Transferability},
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
    let features = features.to_device(Device::Cpu).to_kind(Kind::Double);
    let (samples, width) = features.size2().ok()?;
    if samples < 2 || features.isfinite().all().int64_value(&[]) == 0 {
        return None;
    }
    let spectrum = Spectrum::of(&features);
    let targets = Targets::of(&spectrum, labels);
    let variance = features
        .var_dim([0i64].as_slice(), false, false)
        .mean(Kind::Double);
    let ridge_accuracy = ridge::accuracy(&spectrum, &targets, variance.double_value(&[]));
    Some(Transferability {
        samples: samples as u64,
        features: width as u64,
        knn_accuracy: neighbors::accuracy(&features, labels, NEIGHBORS),
        ridge_accuracy,
        ridge_standard_error: (ridge_accuracy * (1.0 - ridge_accuracy) / samples as f64).sqrt(),
        log_me: log_me::score(&spectrum, &targets),
        h_score: h_score::score(&features, &targets.one_hot),
    })
}

#[cfg(test)]
mod tests;
