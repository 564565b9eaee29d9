//! Nearest neighbors: the classifier with nothing to fit.

use tch::{Kind, Tensor};

use crate::ticks::tick;

/// Samples whose distances are held at once.
const BLOCK: i64 = 256;

/// The share of samples whose class is the commonest among their `k` nearest others, by Euclidean
/// distance between features [N, D] f64. Of equally near the first sample counts, of equally common
/// classes the lowest.
pub(super) fn accuracy(features: &Tensor, labels: &[usize], k: usize) -> f64 {
    let lengths = features
        .square()
        .sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
    let mut right = 0;
    for (block, rows) in features.split(BLOCK, 0).iter().enumerate() {
        // A sample's own length adds the same to all its distances.
        tick();
        let distances = &lengths - rows.matmul(&features.tr()) * 2.0;
        for row in 0..rows.size()[0] {
            let sample = (block as i64 * BLOCK + row) as usize;
            let distances = Vec::<f64>::try_from(&distances.get(row));
            let distances = distances.expect("a vector of f64: this is a bug");
            right += usize::from(vote(&distances, sample, labels, k) == Some(labels[sample]));
        }
    }
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
    // The first of the longest runs: from the end, the last one found.
    runs.rev().max_by_key(|run| run.len()).map(|run| run[0])
}
