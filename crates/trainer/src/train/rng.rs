//! Every random choice of a run, as a function of the seed and of where it is made: nothing but
//! counters needs saving, and a resumed run goes on with exactly the choices of the uninterrupted
//! one.

use crate::data::random::{Random, finalize};

/// The use of a random choice. Choices of different streams never share numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The order of samples, by epoch.
    Order = 1,
    /// Dropout masks, by step.
    Dropout = 2,
    /// The new head's first weights.
    Init = 3,
    /// Partners of mixup and CutMix, by step.
    Mix = 4,
    /// Augmentation of an image, by epoch and sample.
    Augment = 5,
    /// Adapters' first weights.
    Adapter = 6,
    /// Dropout masks of adapters, by step.
    AdapterDropout = 7,
    /// Samples that transferability is scored on; independent of the seed.
    Transferability = 8,
    /// Resamples that standard errors are measured on; independent of the seed.
    Resample = 9,
}

/// A number for (seed, stream, index): SplitMix64's finalizer over each part in turn (Steele et al.
/// 2014).
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
}
