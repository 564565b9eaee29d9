//! What training has done to the classes that its start knew already.

use super::{metrics::SingleLabel, samples::Samples};
use crate::domain::{
    recipe::Inherited,
    report::{Forgetting, KnownClass},
};

/// Compares with the start on the validation split: `right_at_start` counts each label's right answers there before the
/// first step, `after` is of the tensors that are exported.
pub fn measure(
    inherited: &Inherited,
    samples: &Samples,
    right_at_start: &[u64],
    after: &SingleLabel,
) -> Forgetting {
    let known = inherited.known as usize;
    let (right_after, supports) = after.right_and_support();
    let (right_after, supports) = (&right_after[..known], &supports[..known]);
    let share = |right: u64, of: u64| (of > 0).then(|| right as f64 / of as f64);
    let class = |label: usize| KnownClass {
        name: samples.classes[label].clone(),
        support: supports[label],
        recall_before: share(right_at_start[label], supports[label]),
        recall_after: share(right_after[label], supports[label]),
    };
    let all = supports.iter().sum();
    Forgetting {
        samples: all,
        accuracy_before: share(right_at_start[..known].iter().sum(), all),
        accuracy_after: share(right_after.iter().sum(), all),
        classes: (0..known).map(class).collect(),
    }
}
