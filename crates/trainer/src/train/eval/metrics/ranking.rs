//! Ranking metrics over all thresholds, as scikit-learn computes them.

/// Area under the receiver operating characteristic: the chance that a positive has the higher
/// score of a pair, equal scores counting half (Mann & Whitney 1947). `None` without a positive or
/// without a negative.
pub(super) fn roc_auc(scores: &[f64], positive: impl Fn(usize) -> bool) -> Option<f64> {
    let (mut below, mut pairs) = (0u64, 0.0);
    let mut positives = 0u64;
    for group in ascending(scores) {
        let hits = group.iter().filter(|&&sample| positive(sample)).count() as u64;
        let misses = group.len() as u64 - hits;
        pairs += hits as f64 * (below as f64 + misses as f64 / 2.0);
        below += misses;
        positives += hits;
    }
    (positives > 0 && below > 0).then(|| pairs / (positives as f64 * below as f64))
}

/// Average precision: the sum over the thresholds, from the highest down, of the precision there
/// times what it gains in recall; equal scores are one threshold. `None` without a positive.
pub(super) fn average_precision(scores: &[f64], positive: impl Fn(usize) -> bool) -> Option<f64> {
    let (mut hits, mut called, mut sum) = (0u64, 0u64, 0.0);
    for group in ascending(scores).iter().rev() {
        let more = group.iter().filter(|&&sample| positive(sample)).count() as u64;
        hits += more;
        called += group.len() as u64;
        sum += more as f64 * hits as f64 / called as f64;
    }
    (hits > 0).then(|| sum / hits as f64)
}

/// Places of samples in groups of equal score, from the lowest score up.
pub(super) fn ascending(scores: &[f64]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    order
        .chunk_by(|&a, &b| scores[a] == scores[b])
        .map(<[usize]>::to_vec)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_count_half_and_one_side_alone_has_no_curve() {
        let positive = |sample: usize| sample >= 2;
        assert_eq!(roc_auc(&[0.1, 0.2, 0.3, 0.4], positive), Some(1.0));
        assert_eq!(roc_auc(&[0.5; 4], positive), Some(0.5));
        assert_eq!(roc_auc(&[0.1, 0.3, 0.3, 0.2], positive), Some(0.625));
        assert_eq!(roc_auc(&[0.1, 0.2], |_| true), None);
        assert_eq!(roc_auc(&[0.1, 0.2], |_| false), None);
        assert_eq!(average_precision(&[0.5; 4], positive), Some(0.5));
        assert_eq!(average_precision(&[0.1, 0.2], |_| false), None);
        assert_eq!(average_precision(&[0.1, 0.2], |_| true), Some(1.0));
    }
}
