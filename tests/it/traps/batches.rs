//! Batches of any size add up alike.

use rehead_domain::recipe::{Head, HeadInit, Recipe};

use super::{evaluations, train_head};
use crate::support::training::{Material, recipe};

#[test]
fn trap_15_small_batches_add_up_to_the_large_one() {
    let large = Recipe {
        batch_size: 32,
        class_weights: Some(vec![0.5, 1.0, 4.0]),
        label_smoothing: 0.1,
        mixup: 1.0,
        head: Head {
            layers: vec![],
            init: HeadInit::Normal,
        },
        ..recipe()
    };
    let difference = |batch_size, accumulate| {
        let small = Recipe {
            batch_size,
            accumulate,
            ..large.clone()
        };
        let (large, small) = (train_head(&large, 3), train_head(&small, 3));
        let apart = |name: &String| (&large[name] - &small[name]).abs().max().double_value(&[]);
        large.keys().map(apart).fold(0.0, f64::max)
    };
    // The last is a window of three batches of 12, 12 and 8 samples: unequal ones weigh as their samples do.
    for (batch_size, accumulate) in [(8, 4), (1, 32), (12, 3)] {
        let apart = difference(batch_size, accumulate);
        assert!(apart < 1e-6, "{batch_size} x {accumulate}: {apart}");
    }
    assert!(difference(8, 1) > 1e-4);
}

#[test]
fn trap_20_the_mean_loss_counts_samples_not_batches() {
    let material = Material::new(20);
    let still = |batch_size, accumulate| Recipe {
        learning_rate: 0.0,
        batch_size,
        accumulate,
        head: Head {
            layers: vec![],
            init: HeadInit::Normal,
        },
        ..recipe()
    };
    let whole = evaluations(&material, "whole", still(1_000, 1));
    for (name, batch_size, accumulate) in [("seven", 7, 1), ("five-by-three", 5, 3)] {
        let parts = evaluations(&material, name, still(batch_size, accumulate));
        assert!(
            (parts[0].0 - whole[0].0).abs() < 1e-4,
            "{parts:?} {whole:?}"
        );
        assert!(
            (parts[0].1 - whole[0].1).abs() < 1e-4,
            "{parts:?} {whole:?}"
        );
    }
}
