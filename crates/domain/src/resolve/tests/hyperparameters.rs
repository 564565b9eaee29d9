//! Batches, rates, decay, norms and mixing.

use serde_json::Value;

use super::*;
use crate::{
    base_model::StageCost,
    recipe::{BatchNorm, Recipe},
};

#[test]
fn a_batch_may_hold_all_samples_but_not_one_more() {
    let data = dataset(&["a", "b"], 40, 10);
    let asked = |n: u64| request(json!({"hyperparameters": {"batch_size": n}}));
    assert!(resolved(&asked(80), base(&layers()), &data).is_ok());
    assert!(resolved(&asked(81), base(&layers()), &data).is_err());
    // A validation file of its own frees the training file's validation split to train.
    assert!(
        resolve(
            &asked(81),
            base(&layers()),
            Data {
                training: &data,
                validation: Some(&data)
            },
            7
        )
        .is_ok()
    );
}

#[test]
fn accumulation_takes_no_more_batches_than_there_are() {
    let data = dataset(&["a", "b"], 40, 10);
    let asked = |n: u64| request(json!({"hyperparameters": {"batch_size": 16, "accumulate": n}}));
    let most = resolved(&asked(5), base(&layers()), &data).unwrap();
    assert_eq!(most.recipe.accumulate, 5);
    let problems = resolved(&asked(6), base(&layers()), &data).unwrap_err();
    assert_eq!(problems[0].code, BATCH_TOO_LARGE);
}

/// Two shards for two threads, and more where a sample takes long beside the sums of gradients.
#[test]
fn shards_follow_from_the_batch_the_network_and_batch_norm() {
    let data = dataset(&["a", "b"], 400, 100);
    let mut layers = layers();
    layers.costs = vec![StageCost::default(); layers.stages.len()];
    let mut shards = |macs: u64, batch_size: u64, beside: Value| {
        // 100 weights train.
        layers.costs[0].macs = macs * 100;
        let mut asked = json!({"freeze": "none", "head": {"init": "zero"},
            "hyperparameters": {"batch_size": batch_size}});
        for (name, value) in beside.as_object().unwrap() {
            asked["hyperparameters"][name] = value.clone();
        }
        let recipe = resolved(&request(asked), base(&layers), &data)
            .unwrap()
            .recipe;
        (recipe.shards, recipe.batch_norm)
    };
    let frozen = || json!({"batch_norm": "frozen"});
    let plain = |shards: u32| (shards, BatchNorm::Frozen);
    assert_eq!(shards(0, 7, frozen()), plain(1));
    assert_eq!(shards(0, 8, frozen()), plain(2));
    assert_eq!(shards(0, 512, frozen()), plain(2));
    // 400 multiplications of a shard for each weight.
    assert_eq!(shards(49, 32, frozen()), plain(2));
    assert_eq!(shards(50, 32, frozen()), plain(4));
    assert_eq!(shards(100, 32, frozen()), plain(8));
    assert_eq!(shards(10_000, 512, frozen()), plain(16));
    // Statistics of 16 samples.
    let updated = |shards: u32| (shards, BatchNorm::Update);
    assert_eq!(shards(10_000, 31, json!({})), updated(1));
    assert_eq!(shards(10_000, 32, json!({})), updated(2));
    assert_eq!(shards(10_000, 64, json!({})), updated(4));
    assert_eq!(shards(0, 32, json!({"shards": 4})), plain(4));
}

#[test]
fn an_uneven_batch_has_all_its_shards_and_a_smaller_one_fewer() {
    let of = |batch_size, shards, samples: [usize; 4]| {
        let recipe = Recipe {
            batch_size,
            shards,
            ..Recipe::base(Task::SingleLabelClassification)
        };
        samples.map(|samples| recipe.shards_of(samples))
    };
    assert_eq!(of(33, 2, [33, 32, 31, 1]), [2, 2, 1, 1]);
    assert_eq!(of(40, 3, [40, 39, 38, 12]), [3, 3, 2, 1]);
    assert_eq!(of(5, 4, [6, 5, 3, 1]), [4, 4, 3, 1]);
    assert_eq!(of(8, 1, [9, 8, 7, 1]), [1; 4]);
}

#[test]
fn shards_without_samples_or_statistics_are_refused() {
    let data = dataset(&["a", "b"], 40, 10);
    let refused = |freeze: &str, batch_norm: &str, shards: u64| {
        let asked = json!({"batch_size": 32, "batch_norm": batch_norm, "shards": shards});
        let asked = request(json!({"freeze": freeze, "hyperparameters": asked}));
        match resolved(&asked, base(&layers()), &data) {
            Ok(_) => None,
            Err(problems) => Some((problems[0].code.clone(), problems[0].message.clone())),
        }
    };
    assert_eq!(refused("none", "frozen", 32), None);
    assert_eq!(refused("none", "update", 4), None);
    for (freeze, batch_norm, shards, says) in [
        ("none", "frozen", 33, "give at most 32"),
        ("none", "update", 5, "give at most 4"),
        ("all", "frozen", 2, "freeze less"),
    ] {
        let (code, message) = refused(freeze, batch_norm, shards).unwrap();
        assert!(code == CONTRADICTION && message.contains(says), "{message}");
    }
    assert_eq!(refused("all", "frozen", 1), None);
}

#[test]
fn a_batch_of_one_has_no_statistics() {
    let data = dataset(&["a", "b"], 40, 10);
    let asked = |n: u64| {
        request(
            json!({"head": {"layers": [{"batch_norm": true}]}, "hyperparameters": {"batch_size": n}}),
        )
    };
    assert!(resolved(&asked(2), base(&layers()), &data).is_ok());
    let problems = resolved(&asked(1), base(&layers()), &data).unwrap_err();
    assert_eq!(problems[0].code, CONTRADICTION);
}

#[test]
fn a_network_without_batch_norm_updates_none() {
    let data = dataset(&["a", "b"], 40, 10);
    let mut layers = layers();
    let update =
        |freeze: &str| json!({"freeze": freeze, "hyperparameters": {"batch_norm": "update"}});
    assert!(resolved(&request(update("none")), base(&layers), &data).is_ok());
    layers.tensors.retain(|tensor| tensor.trainable);
    for freeze in ["none", "all"] {
        let problems = resolved(&request(update(freeze)), base(&layers), &data).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].code, CONTRADICTION);
        assert!(problems[0].message.contains("no BatchNorm"), "{problems:?}");
    }
    // Nor does it where that is left to us, and says why.
    let zero = request(json!({"freeze": "none", "head": {"init": "zero"}}));
    let resolution = resolved(&zero, base(&layers), &data).unwrap();
    assert_eq!(resolution.recipe.batch_norm, BatchNorm::Frozen);
    let mut resolved = resolution.resolved.into_iter();
    let norm = resolved.find(|one| one.option == "hyperparameters.batch_norm");
    assert_eq!(norm.unwrap().reason, "the network has no BatchNorm");
}

/// A outcome option's value and its reason.
fn default_of(transfer: serde_json::Value, option: &str) -> (serde_json::Value, String) {
    let data = dataset(&["a", "b"], 40, 10);
    let resolution = resolved(&request(transfer), base(&layers()), &data).unwrap();
    let mut resolved = resolution.resolved.into_iter();
    let one = resolved.find(|one| one.option == format!("hyperparameters.{option}"));
    one.map(|one| (one.value, one.reason)).unwrap()
}

#[test]
fn the_backbones_rate_follows_the_heads_that_is_chosen() {
    for (optimizer, rate, share) in [
        ("adamw", 1e-5, 2.0),
        ("adamw", 0.5, 2.0),
        ("sgd", 0.5, 10.0),
    ] {
        let transfer = json!({"freeze": "none", "hyperparameters": {
            "optimizer": optimizer, "learning_rate": rate, "learning_rate_multiplier": 4}});
        let (outcome, _) = default_of(transfer.clone(), "backbone_learning_rate");
        assert_eq!(outcome, json!(rate / share), "{optimizer}");
        let data = dataset(&["a", "b"], 40, 10);
        let recipe = resolved(&request(transfer), base(&layers()), &data)
            .unwrap()
            .recipe;
        assert_eq!(recipe.learning_rate, 4.0 * rate);
        assert_eq!(recipe.backbone_learning_rate, 4.0 * (rate / share));
    }
}

#[test]
fn a_frozen_backbone_has_no_rate() {
    let frozen = json!({"freeze": "all"});
    let (rate, why) = default_of(frozen, "backbone_learning_rate");
    assert_eq!(
        (rate, why.as_str()),
        (json!(0.0), "the whole backbone is frozen")
    );
}

#[test]
fn weights_decay_under_adamw_and_not_under_sgd() {
    for (optimizer, decay, words) in [
        ("adamw", 0.01, "AdamW"),
        ("sgd", 0.0, "SGD"),
        ("nesterov", 0.0, "SGD"),
    ] {
        let transfer = json!({"freeze": "none", "hyperparameters": {"optimizer": optimizer}});
        let (outcome, why) = default_of(transfer, "weight_decay");
        assert_eq!(outcome, json!(decay), "{optimizer}");
        assert!(why.contains(words), "{why}");
    }
}

#[test]
fn one_cycle_warms_up_by_itself() {
    let data = dataset(&["a", "b"], 40, 10);
    let asked = |warmup: serde_json::Value| {
        request(
            json!({"freeze": "none", "hyperparameters": {"schedule": "one_cycle", "warmup_fraction": warmup}}),
        )
    };
    let outcome = resolved(&asked(json!("auto")), base(&layers()), &data).unwrap();
    assert_eq!(outcome.recipe.warmup_fraction, 0.0);
    let problems = resolved(&asked(json!(0.1)), base(&layers()), &data).unwrap_err();
    assert_eq!(problems[0].code, CONTRADICTION);
}

#[test]
fn only_samples_of_one_class_each_are_mixed() {
    let of = |task: Task| Dataset {
        task,
        ..dataset(&["a", "b"], 10_000, 10)
    };
    let outcome = |task, transfer| resolved(&request(transfer), base(&layers()), &of(task));
    let single = Task::SingleLabelClassification;
    for (task, words) in [
        (Task::MultiLabelClassification, "threshold"),
        (Task::Regression, "not numbers"),
    ] {
        for option in ["mixup", "cutmix"] {
            let asked = |alpha: f64| json!({"freeze": "none", "hyperparameters": {option: alpha}});
            let problems = outcome(task, asked(0.2)).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(
                problems[0].path,
                format!("method.transfer.hyperparameters.{option}")
            );
            assert_eq!(problems[0].code, CONTRADICTION);
            assert!(problems[0].message.contains(words), "{problems:?}");
            assert!(outcome(task, asked(0.0)).is_ok(), "{option}");
            assert!(outcome(single, asked(0.2)).is_ok(), "{option}");
        }
        assert_eq!(outcome(task, json!({})).unwrap().recipe.mixup, 0.0);
    }
    assert_eq!(outcome(single, json!({})).unwrap().recipe.mixup, 0.1);
}
