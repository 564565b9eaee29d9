//! Batches of any size add up alike.

use rehead_domain::recipe::{Head, HeadInit, Recipe};

use super::{evaluations, train_head};
use crate::support::{
    data::{clipart_subset, unzip, zip},
    training::{Material, parameters, recipe},
};

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
    // The last is a window of three batches of 12, 12 and 8 samples: unequal ones weigh as their
    // samples do.
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

/// Over pixels 38 samples are evaluated in batches of 32 and 6, over features together.
#[test]
fn trap_20_the_validation_loss_is_the_same_by_any_batches() {
    let files = unzip(&clipart_subset(&["animals", "food"], 22)).into_iter();
    let entries = files.map(|(name, bytes)| {
        let number: u32 = name.split(['/', '.']).nth(1).unwrap().parse().unwrap();
        let split = if number < 3 { "train" } else { "val" };
        (format!("{split}/{name}"), bytes)
    });
    let archive = zip(&entries.collect::<Vec<_>>());
    let material = Material::of_archive("resnet18", &archive);
    let loss = |name: &str, trainable: Vec<String>| {
        let still = Recipe {
            trainable,
            learning_rate: 0.0,
            backbone_learning_rate: 0.0,
            head: Head {
                layers: vec![],
                init: HeadInit::Normal,
            },
            ..recipe()
        };
        evaluations(&material, name, still)[0].1
    };
    let together = loss("features", vec![]);
    let batched = loss("pixels", parameters("resnet18", &["layer4."]));
    assert!(
        (batched - together).abs() < 1e-4 * together,
        "{batched} {together}"
    );
}
