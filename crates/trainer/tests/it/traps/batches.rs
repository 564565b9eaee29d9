//! Batches of any size add up alike.

use rehead_domain::recipe::{BatchNorm, Head, HeadInit, HeadLayer, Precision, Recipe};
use rehead_trainer::{
    models::{pass::Statistics, registry},
    train::{
        network::{Network, Shard},
        step::optimizer,
    },
};
use serde_json::json;
use tch::{Kind, Tensor};

use super::{SIDE, build_of, copies, evaluations, train_head};
use crate::support::{
    data::{clipart_subset, unzip, zip},
    numbers,
    training::{Material, adapter, parameters, recipe},
};

/// With less memory than activations take, a step is the same: statistics and dropout included.
#[test]
fn recomputed_gradients_are_those_of_kept_activations() {
    let layers = vec![HeadLayer::Dropout(0.5), HeadLayer::BatchNorm];
    let head = Head {
        layers,
        init: HeadInit::Normal,
    };
    let vit = "vit_tiny_patch16_224";
    let lora = adapter(vit, json!({"rank": 4, "alpha": 6, "dropout": 0.3}));
    let adapted = Recipe {
        trainable: lora.tensors(),
        adapter: Some(lora),
        ..recipe()
    };
    let mut tried = vec![(vit, adapted)];
    for (name, parts) in [
        ("resnet18", vec!["layer2.", "layer3.", "layer4."]),
        ("tf_efficientnet_lite0", vec![""]),
        ("mobilenetv3_large_100", vec![""]),
        ("convnext_tiny", vec!["stages.2.", "stages.3."]),
        ("squeezenet1_1", vec![""]),
    ] {
        for precision in [Precision::Float32, Precision::Bfloat16] {
            let whole = Recipe {
                trainable: parameters(name, &parts),
                batch_norm: BatchNorm::Update,
                shards: 2,
                precision,
                ..recipe()
            };
            tried.push((name, whole));
        }
    }
    for (architecture, recipe) in tried {
        assert!(registry::find(architecture).is_some(), "{architecture}");
        let recipe = Recipe {
            head: head.clone(),
            ..recipe
        };
        let network = build_of(architecture, SIDE, &recipe);
        for parameter in &network.parameters {
            if parameter.name.contains("lora_B") {
                let size = parameter.tensor.size();
                let noise = numbers::images(&parameter.name, &size) * 0.1;
                tch::no_grad(|| parameter.tensor.shallow_clone().copy_(&noise));
            }
        }
        let side = i64::from(SIDE);
        let images = numbers::images("input", &[4, 3, side, side]);
        let loss = |network: &Network, features: &Tensor, shard: &Shard| {
            let logits = network.logits_train(features, shard);
            logits.square().mean(Kind::Float)
        };
        let start = copies(&network);
        let shard = || Shard {
            step: 3,
            first: 2,
            ..Shard::default()
        };
        let kept = shard();
        let of_kept = loss(&network, &network.features_train(&images, &kept), &kept);
        let gradients = optimizer::gradients(&of_kept, &network.parameters).unwrap();
        Statistics::keep([kept.statistics]);
        let after_kept = copies(&network);

        for (name, tensor) in network.tensors() {
            tch::no_grad(|| tensor.shallow_clone().copy_(&start[&name]));
        }
        let again = shard();
        let recomputed =
            network.recompute(&images, &again, |features| loss(&network, features, &again));
        let (of_again, again_gradients) = recomputed.unwrap();
        Statistics::keep([again.statistics]);
        let what = format!("{architecture} {:?}", recipe.precision);
        assert_eq!(of_again, of_kept.detach(), "{what}");
        assert_eq!(again_gradients.len(), gradients.len(), "{what}");
        let pairs = gradients.iter().zip(&again_gradients);
        for ((one, other), parameter) in pairs.zip(&network.parameters) {
            assert_eq!(one, other, "{what} {}", parameter.name);
            assert!(
                one.abs().max().double_value(&[]) > 0.0,
                "{what} {}",
                parameter.name
            );
        }
        assert!(copies(&network) == after_kept, "{what}: statistics");
        let moved = after_kept
            .iter()
            .filter(|(name, tensor)| start[*name] != **tensor);
        assert!(moved.count() >= 2, "{what}: the head's statistics move");
    }
}

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
