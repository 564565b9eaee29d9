//! Every random choice of a run, as a function of the seed and of where it is made: nothing but counters needs saving,
//! and a resumed run goes on with exactly the choices of the uninterrupted one.

use crate::{
    data::random::{Random, finalize},
    domain::recipe::steps_per_epoch,
};

/// What a random choice is for. Choices of different streams never share numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The order of samples, by epoch.
    Order = 1,
    /// What dropout drops, by step.
    Dropout = 2,
    /// The new head's first weights.
    Init = 3,
    /// What is mixed with what, by step.
    Mix = 4,
    /// How an image is altered, by epoch and sample.
    Augment = 5,
    /// Adapters' first weights.
    Adapter = 6,
    /// What adapters' dropout drops, by step.
    AdapterDropout = 7,
    /// Which samples features are scored on; of no seed.
    Transferability = 8,
}

/// A number for (seed, stream, index): SplitMix64's finalizer over each part in turn (Steele et al. 2014).
pub fn key(seed: u64, stream: Stream, index: u64) -> u64 {
    finalize(finalize(finalize(seed) ^ stream as u64) ^ index)
}

/// A number for (seed, stream, epoch, sample).
pub fn sample_key(seed: u64, stream: Stream, epoch: u32, sample: usize) -> u64 {
    finalize(key(seed, stream, u64::from(epoch)) ^ sample as u64)
}

/// The order in which epoch `epoch` (from 1) visits `samples` samples.
pub fn permutation(seed: u64, epoch: u32, samples: usize) -> Vec<usize> {
    Random::new(key(seed, Stream::Order, u64::from(epoch))).order(samples)
}

/// How the samples of an epoch fall into batches; see `steps_per_epoch`.
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

    /// Whether step `step` is its epoch's last.
    pub fn is_last(self, step: u64) -> bool {
        step.is_multiple_of(self.per_epoch())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_epoch_visits_every_sample_once_in_its_own_order() {
        let first = permutation(7, 1, 100);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..100));
        assert_eq!(first, permutation(7, 1, 100));
        assert_ne!(first, permutation(7, 2, 100));
        assert_ne!(first, permutation(8, 1, 100));
        assert!(permutation(7, 1, 0).is_empty());
    }

    #[test]
    fn every_place_is_about_equally_likely() {
        let mut counts = [[0u32; 5]; 5];
        for epoch in 0..10_000 {
            for (place, sample) in permutation(1, epoch, 5).into_iter().enumerate() {
                counts[place][sample] += 1;
            }
        }
        assert!(
            counts
                .iter()
                .flatten()
                .all(|&count| (1_850..2_150).contains(&count)),
            "{counts:?}"
        );
    }

    #[test]
    fn streams_and_places_have_their_own_numbers() {
        let streams = [
            Stream::Order,
            Stream::Dropout,
            Stream::Init,
            Stream::Mix,
            Stream::Augment,
            Stream::Adapter,
            Stream::AdapterDropout,
            Stream::Transferability,
        ];
        let keys: std::collections::BTreeSet<u64> = streams
            .into_iter()
            .flat_map(|stream| (0..100).map(move |index| key(1, stream, index)))
            .collect();
        assert_eq!(keys.len(), 800);
    }

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
