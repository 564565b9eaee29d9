//! Labels as the scores take them.

use tch::{Kind, Tensor};

use super::spectrum::Spectrum;

/// Labels as columns, one for each class that has a sample.
pub(super) struct Targets {
    /// [N, C] f64: 1 for the sample's class, else 0.
    pub(super) one_hot: Tensor,
    /// [rank, C]: along the features' left singular vectors.
    pub(super) projected: Tensor,
}

impl Targets {
    pub(super) fn of(spectrum: &Spectrum, labels: &[usize]) -> Self {
        let mut classes = labels.to_vec();
        classes.sort_unstable();
        classes.dedup();
        let column = |label: &usize| classes.binary_search(label).unwrap_or_default() as i64;
        let columns: Vec<i64> = labels.iter().map(column).collect();
        let one_hot = Tensor::from_slice(&columns)
            .one_hot(classes.len() as i64)
            .to_kind(Kind::Double);
        Self {
            projected: spectrum.left.tr().matmul(&one_hot),
            one_hot,
        }
    }

    pub(super) fn classes(&self) -> i64 {
        self.one_hot.size()[1]
    }
}
