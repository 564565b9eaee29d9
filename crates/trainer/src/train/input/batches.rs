//! The batches of an epoch.

use crate::domain::recipe::steps_per_epoch;

/// The batches of each epoch, as many as `steps_per_epoch` gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batches {
    samples: usize,
    batch_size: usize,
}

impl Batches {
    pub fn new(samples: usize, batch_size: usize) -> Self {
        Self {
            samples,
            batch_size: batch_size.max(1),
        }
    }

    pub fn per_epoch(self) -> u64 {
        steps_per_epoch(self.samples as u64, self.batch_size as u64)
    }

    /// The epoch (from 1) of step `step` (from 1), and its batch's place in the epoch's order.
    pub fn locate(self, step: u64) -> (u32, std::ops::Range<usize>) {
        let (epoch, batch) = (
            (step - 1) / self.per_epoch(),
            ((step - 1) % self.per_epoch()) as usize,
        );
        let start = batch * self.batch_size;
        let end = if self.is_last(step) {
            self.samples
        } else {
            start + self.batch_size
        };
        (epoch as u32 + 1, start..end)
    }

    /// True when step `step` is the last of its epoch.
    pub fn is_last(self, step: u64) -> bool {
        step.is_multiple_of(self.per_epoch())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_cover_an_epoch_and_none_has_one_sample() {
        let cases = [
            (10, 4, vec![4, 4, 2]),
            (8, 4, vec![4, 4]),
            (9, 4, vec![4, 5]),
            (3, 8, vec![3]),
            (3, 1, vec![1, 1, 1]),
        ];
        for (samples, batch_size, sizes) in cases {
            let batches = Batches::new(samples, batch_size);
            let steps = batches.per_epoch();
            let ranges: Vec<_> = (1..=2 * steps).map(|step| batches.locate(step)).collect();
            let found: Vec<usize> = ranges[..steps as usize]
                .iter()
                .map(|(_, range)| range.len())
                .collect();
            assert_eq!(found, sizes, "{samples} by {batch_size}");
            assert_eq!(ranges[0], (1, 0..sizes[0]));
            assert_eq!(ranges[steps as usize], (2, 0..sizes[0]));
            assert!(batches.is_last(steps) && (steps == 1 || !batches.is_last(1)));
        }
    }
}
