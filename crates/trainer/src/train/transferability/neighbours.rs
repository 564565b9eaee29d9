//! Nearest neighbours: the classifier with nothing to fit.

use tch::{Kind, Tensor};

/// The share of samples whose class is the commonest among their `k` nearest others, by Euclidean distance between features
/// [N, D] f64. Of equally near the first sample counts, of equally common classes the lowest.
pub(super) fn accuracy(features: &Tensor, labels: &[usize], k: usize) -> f64 {
    let lengths = features
        .square()
        .sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
    // A sample's own length adds the same to all its distances.
    let distances = lengths - features.matmul(&features.tr()) * 2.0;
    let right = |(sample, label): (usize, &usize)| {
        let row = distances.get(sample as i64);
        let row = Vec::<f64>::try_from(&row).expect("a vector of f64: this is a bug");
        vote(&row, sample, labels, k) == Some(*label)
    };
    let right = labels.iter().enumerate().filter(|&one| right(one)).count();
    right as f64 / labels.len() as f64
}

/// The class that most of the `k` nearest others have; `None` where there is no other.
fn vote(distances: &[f64], sample: usize, labels: &[usize], k: usize) -> Option<usize> {
    let mut others: Vec<usize> = (0..labels.len()).filter(|&other| other != sample).collect();
    let nearer = |one: &usize, other: &usize| {
        let (one, other) = (*one, *other);
        distances[one]
            .total_cmp(&distances[other])
            .then(one.cmp(&other))
    };
    if k < others.len() {
        others.select_nth_unstable_by(k, nearer);
        others.truncate(k);
    }
    let mut classes: Vec<usize> = others.into_iter().map(|other| labels[other]).collect();
    classes.sort_unstable();
    let runs = classes.chunk_by(|one, other| one == other);
    // Of the longest runs the first: from the end, the last one that is met.
    runs.rev().max_by_key(|run| run.len()).map(|run| run[0])
}
