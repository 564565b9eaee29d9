//! Splits samples by the hash of their bytes: the same image is always on the same side, in every
//! upload and beside any other images. Pure.

use std::collections::BTreeMap;

use crate::domain::file::Split;

/// The share of validation samples.
const VALIDATION_SHARE: f64 = 0.2;
/// Bounds of a class's share, to which small classes are brought back.
const VALIDATION_SHARE_MIN: f64 = 0.1;
const VALIDATION_SHARE_MAX: f64 = 0.3;

/// Splits samples, given each one's SHA-256 and label, into train and validation.
///
/// A hash below a fifth of all hashes is validation, so that files added later move none of the
/// others. In a class where chance leaves fewer than a tenth or more than three tenths of the
/// different images on that side (which happens to small classes only), the ones with the smallest
/// hashes make up a tenth or three tenths. Each class with two or more different images has some on
/// both sides; a single one is for training. Copies follow the first.
pub fn by_hash(samples: &[([u8; 32], usize)]) -> Vec<Split> {
    let mut label_of: BTreeMap<[u8; 32], usize> = BTreeMap::new();
    for &(hash, label) in samples {
        label_of.entry(hash).or_insert(label);
    }
    // Ascending hashes of each class.
    let mut classes: BTreeMap<usize, Vec<[u8; 32]>> = BTreeMap::new();
    for (hash, label) in label_of {
        classes.entry(label).or_default().push(hash);
    }
    let mut validation: Vec<[u8; 32]> = classes
        .values()
        .flat_map(|hashes| &hashes[..validation_count(hashes)])
        .copied()
        .collect();
    validation.sort_unstable();
    let side = |hash| {
        if validation.binary_search(hash).is_ok() {
            Split::Validation
        } else {
            Split::Train
        }
    };
    samples.iter().map(|(hash, _)| side(hash)).collect()
}

/// How many of a class's ascending hashes are for validation.
fn validation_count(hashes: &[[u8; 32]]) -> usize {
    if hashes.len() < 2 {
        return 0;
    }
    let below = hashes.partition_point(|hash| fraction(hash) < VALIDATION_SHARE);
    let share = |share: f64| share * hashes.len() as f64;
    let most = (share(VALIDATION_SHARE_MAX).floor() as usize).max(1);
    let least = (share(VALIDATION_SHARE_MIN).ceil() as usize).min(most);
    below.clamp(least, most)
}

/// A hash as a number from 0 to 1, by its first eight bytes.
fn fraction(hash: &[u8; 32]) -> f64 {
    let first = hash
        .first_chunk::<8>()
        .expect("a hash has 32 bytes: this is a bug");
    u64::from_be_bytes(*first) as f64 / 2_f64.powi(64)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn samples(count: usize, classes: usize) -> Vec<([u8; 32], usize)> {
        (0..count)
            .map(|sample| {
                (
                    Sha256::digest(sample.to_le_bytes()).into(),
                    sample % classes,
                )
            })
            .collect()
    }

    #[test]
    fn a_fifth_of_every_class_is_validation() {
        let samples = samples(5_000, 5);
        let splits = by_hash(&samples);
        for label in 0..5 {
            let of_class = samples
                .iter()
                .zip(&splits)
                .filter(|((_, other), _)| *other == label);
            let validation = of_class
                .filter(|(_, split)| **split == Split::Validation)
                .count();
            assert!((160..=240).contains(&validation), "{validation}");
        }
    }

    #[test]
    fn added_files_move_no_others() {
        let all = samples(2_000, 4);
        let before = by_hash(&all[..1_000]);
        assert_eq!(by_hash(&all)[..1_000], before);
    }

    #[test]
    fn small_classes_are_on_both_sides() {
        for count in 2..40 {
            for start in 0..20 {
                let few: Vec<_> = samples(start + count, 1)[start..].to_vec();
                let validation = by_hash(&few)
                    .iter()
                    .filter(|split| **split == Split::Validation)
                    .count();
                assert!(
                    validation >= 1 && validation <= 1.max(count * 3 / 10),
                    "{validation} of {count}"
                );
            }
        }
        assert_eq!(by_hash(&samples(1, 1)), [Split::Train]);
    }

    #[test]
    fn copies_stay_together_even_under_two_labels() {
        let mut doubled = samples(100, 2);
        doubled.extend(
            samples(100, 2)
                .into_iter()
                .map(|(hash, label)| (hash, 1 - label)),
        );
        let splits = by_hash(&doubled);
        assert_eq!(splits[..100], splits[100..]);
    }
}
