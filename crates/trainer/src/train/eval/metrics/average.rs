//! Shares and means that may be of nothing.

pub(crate) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// `None` of none.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// Counts of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples that have it and were predicted to.
    pub hits: u64,
    /// Samples that were predicted to have it.
    pub predicted: u64,
    /// Samples that have it.
    pub support: u64,
}

impl Counts {
    pub(super) fn precision(self) -> Option<f64> {
        share(self.hits, self.predicted)
    }

    pub(crate) fn recall(self) -> Option<f64> {
        share(self.hits, self.support)
    }

    pub(super) fn f1(self) -> Option<f64> {
        share(2 * self.hits, self.predicted + self.support)
    }
}

/// Mean F1 over the classes that have samples or were predicted.
pub(super) fn macro_f1(counts: &[Counts]) -> Option<f64> {
    mean(counts.iter().filter_map(|counts| counts.f1()))
}
