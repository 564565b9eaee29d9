//! Freeze policies, and options that are refused under a frozen backbone.

use super::*;
use crate::recipe::Precision;

#[test]
fn the_number_of_samples_decides_what_trains() {
    let outcome = |samples: u64| {
        let data = dataset(&["a", "b", "c"], samples, 10);
        let resolution = resolved(&request(json!({})), base(&layers()), &data).unwrap();
        let freeze = resolution
            .resolved
            .into_iter()
            .find(|one| one.option == "freeze");
        (freeze.unwrap().value, resolution.recipe)
    };
    let (freeze, recipe) = outcome(9);
    assert_eq!(freeze, json!("all"));
    assert!(recipe.trainable.is_empty());
    let (freeze, recipe) = outcome(10);
    assert_eq!(freeze, json!("none"));
    assert!(!recipe.trainable.is_empty());
    // The head starts at the probe either way.
    assert_eq!(recipe.head.init, HeadInit::Probe);
}

#[test]
fn a_freeze_schedule_becomes_phases_that_begin_before_the_end() {
    let data = dataset(&["a", "b"], 40, 10);
    let asked = |n_epochs: serde_json::Value, block: &str| {
        let schedule = json!([{"at_epoch": 0, "freeze": "all"}, {"at_epoch": 3, "freeze": {"blocks": [block]}}]);
        let transfer = json!({"freeze": {"schedule": schedule}, "hyperparameters": {"n_epochs": n_epochs, "layer_decay": 0.5}});
        resolved(&request(transfer), base(&layers()), &data)
    };
    let recipe = asked(json!(4), "stem").unwrap().recipe;
    assert!(recipe.trainable.is_empty() && recipe.backbone_learning_rate > 0.0);
    assert_eq!(recipe.later_phases[0].at_epoch, 3);
    assert_eq!(recipe.later_phases[0].trainable.len(), 4);
    let phases: Vec<usize> = (1..=5).map(|epoch| recipe.phase_of(epoch)).collect();
    assert_eq!(phases, [0, 0, 0, 1, 1]);
    assert_eq!(asked(json!("auto"), "stem").unwrap().recipe.n_epochs, 10);
    assert_eq!(asked(json!(3), "stem").unwrap_err()[0].code, CONTRADICTION);
    assert_eq!(asked(json!(4), "stemm").unwrap_err()[0].code, UNKNOWN_LAYER);
}

#[test]
fn layers_after_the_cut_do_not_train() {
    let data = dataset(&["a", "b"], 40, 10);
    let outcome =
        |transfer: serde_json::Value| resolved(&request(transfer), base(&layers()), &data);
    let recipe = outcome(json!({"cut": "layer1", "freeze": {"all_but_last_stages": 1}}))
        .unwrap()
        .recipe;
    assert_eq!(recipe.cut, "layer1");
    assert_eq!(
        recipe.trainable,
        ["layer1.0.conv.weight", "layer1.1.conv.weight"]
    );
    for (transfer, words) in [
        (json!({"cut": "layr1"}), "did you mean `layer1`"),
        (
            json!({"cut": "layer1", "freeze": {"all_but_last_stages": 3}}),
            "has 2 stages",
        ),
        (
            json!({"cut": "layer1", "freeze": {"blocks": ["layer2"]}}),
            "is cut away",
        ),
        (
            json!({"cut": "layer1", "freeze": {"names": ["layer2.0.conv.weight"]}}),
            "is cut away",
        ),
        (
            json!({"cut": "layer1", "freeze": {"regex": "^layer2"}}),
            "is cut away",
        ),
        (
            json!({"cut": "layer1", "freeze": {"schedule": [
                {"at_epoch": 0, "freeze": "all"}, {"at_epoch": 3, "freeze": {"blocks": ["layer2"]}}]}}),
            "is cut away",
        ),
    ] {
        let problems = outcome(transfer.clone()).unwrap_err();
        assert!(
            problems.len() == 1 && problems[0].message.contains(words),
            "{transfer}: {problems:?}"
        );
    }
}

#[test]
fn options_without_effect_are_refused() {
    let data = dataset(&["a", "b"], 40, 10);
    for option in [
        json!({"backbone_learning_rate": 1e-4}),
        json!({"batch_norm": "update"}),
        json!({"precision": "bfloat16"}),
        json!({"cutmix": 1.0}),
    ] {
        let frozen = request(json!({"freeze": "all", "hyperparameters": option}));
        assert_eq!(
            resolved(&frozen, base(&layers()), &data).unwrap_err()[0].code,
            CONTRADICTION
        );
        let unfrozen = request(json!({"freeze": "none", "hyperparameters": option}));
        assert!(resolved(&unfrozen, base(&layers()), &data).is_ok());
        // Who says how the backbone trains wants it to train, however few samples there are.
        let implied = request(json!({"hyperparameters": option}));
        let few = dataset(&["a", "b"], 16, 10);
        let recipe = resolved(&implied, base(&layers()), &few).unwrap().recipe;
        assert!(!recipe.trainable.is_empty());
    }
    let coarse = |freeze: &str| {
        let option = json!({"features_precision": "bfloat16"});
        let asked = request(json!({"freeze": freeze, "hyperparameters": option}));
        resolved(&asked, base(&layers()), &data)
    };
    assert_eq!(coarse("none").unwrap_err()[0].code, CONTRADICTION);
    assert_eq!(
        coarse("all").unwrap().recipe.features_precision,
        Precision::Bfloat16
    );
}

#[test]
fn options_without_effect_on_a_frozen_backbone_say_so() {
    let data = dataset(&["a", "b"], 40, 10);
    let asked =
        |share: f64| request(json!({"freeze": "all", "hyperparameters": {"layer_decay": share}}));
    assert!(resolved(&asked(1.0), base(&layers()), &data).is_ok());
    assert!(resolved(&asked(0.9), base(&layers()), &data).is_err());
}
