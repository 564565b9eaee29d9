//! Labels as the scores take them.

use tch::{Kind, Tensor};

use super::spectrum::Spectrum;

/// Labels as columns.
pub(super) struct Targets {
    /// [N, C] f64: of single labels, 1 for the sample's class and else 0, for each class that has a
    /// sample; of several labels likewise; of numbers, the number.
    pub(super) columns: Tensor,
    /// [rank, C]: along the features' left singular vectors.
    pub(super) projected: Tensor,
}

impl Targets {
    /// Single labels.
    pub(super) fn of(spectrum: &Spectrum, labels: &[usize]) -> Self {
        let mut classes = labels.to_vec();
        classes.sort_unstable();
        classes.dedup();
        let column = |label: &usize| classes.binary_search(label).unwrap_or_default() as i64;
        let columns: Vec<i64> = labels.iter().map(column).collect();
        let one_hot = Tensor::from_slice(&columns)
            .one_hot(classes.len() as i64)
            .to_kind(Kind::Double);
        Self::new(spectrum, one_hot)
    }

    /// Columns [N, C] f64.
    pub(super) fn new(spectrum: &Spectrum, columns: Tensor) -> Self {
        Self {
            projected: spectrum.left.tr().matmul(&columns),
            columns,
        }
    }

    pub(super) fn classes(&self) -> i64 {
        self.columns.size()[1]
    }
}
