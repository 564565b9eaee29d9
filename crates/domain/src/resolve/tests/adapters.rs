//! Adapters: which layers get one, and what it adds.

use serde_json::{Value, json};

use super::{dataset, resolved};
use crate::{
    base_model::{LayerTensor, Layers},
    codes::{CONTRADICTION, OUT_OF_RANGE, UNKNOWN_LAYER},
    file::Dataset,
    id::FileId,
    job_plan::JobPlan,
    layers::of_recipe,
    problem::Problem,
    recipe::BatchNorm,
    request::{JobRequest, parse},
    resolve::{Resolution, Start},
    test_data::{self, transformer_layers as layers},
};

fn data() -> Dataset {
    dataset(&["a", "b"], 40, 10)
}

fn request(transfer: &Value) -> Result<JobRequest, Vec<Problem>> {
    let method = json!({"type": "transfer", "transfer": transfer});
    parse(&json!({"model": "m", "training_file": FileId::new(), "method": method}))
}

fn outcome(layers: &Layers, transfer: &Value) -> Result<Resolution, Vec<Problem>> {
    let parent = None;
    resolved(&request(transfer)?, Start { layers, parent }, &data())
}

fn adapted_layers(targets: Value) -> Vec<String> {
    let adapter = json!({"adapter": {"type": "lora", "targets": targets}});
    outcome(&layers(), &adapter)
        .unwrap()
        .recipe
        .adapter
        .unwrap()
        .layers
}

/// The one problem: its path, code and message.
#[track_caller]
fn refused(layers: &Layers, transfer: Value) -> (String, String, String) {
    let problems = outcome(layers, &transfer).expect_err(&transfer.to_string());
    let [
        Problem {
            path,
            code,
            message,
            ..
        },
    ] = &problems[..]
    else {
        panic!("{problems:?}");
    };
    (path.clone(), code.clone(), message.clone())
}

#[test]
fn an_adapter_has_the_defaults_of_peft_and_trains_alone() {
    let resolution = outcome(&layers(), &json!({"adapter": {"type": "lora"}})).unwrap();
    let recipe = resolution.recipe;
    let adapter = recipe.adapter.clone().unwrap();
    assert_eq!(
        (adapter.rank, adapter.alpha, adapter.dropout),
        (8, 8.0, 0.0)
    );
    assert_eq!(adapter.scale(), 1.0);
    let each = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"];
    let all: Vec<String> = ["blocks.0", "blocks.1"]
        .iter()
        .flat_map(|block| each.map(|layer| format!("{block}.{layer}")))
        .collect();
    assert_eq!(adapter.layers, all);
    assert_eq!(recipe.trainable, adapter.tensors());
    assert_eq!(recipe.trainable[0], "blocks.0.attn.qkv.lora_A.weight");
    assert_eq!(recipe.trainable[1], "blocks.0.attn.qkv.lora_B.weight");
    assert!(recipe.later_phases.is_empty());
    assert_eq!(recipe.batch_norm, BatchNorm::Frozen);
    // Ten times what training the backbone itself would have.
    let full = outcome(&layers(), &json!({"freeze": "none"})).unwrap();
    let ratio = recipe.backbone_learning_rate / full.recipe.backbone_learning_rate;
    assert!((ratio - 10.0).abs() < 1e-9, "{ratio}");
    let mut resolved = resolution.resolved.iter();
    let rate = resolved.find(|one| one.option == "hyperparameters.backbone_learning_rate");
    assert!(rate.unwrap().reason.contains("ten times"), "{rate:?}");
}

#[test]
fn targets_are_names_endings_of_names_or_an_expression() {
    let qkv = ["blocks.0.attn.qkv", "blocks.1.attn.qkv"];
    assert_eq!(adapted_layers(json!(["qkv"])), qkv);
    assert_eq!(adapted_layers(json!(["attn.qkv"])), qkv);
    assert_eq!(adapted_layers(json!([qkv[1], "attn.qkv"])), qkv);
    assert_eq!(adapted_layers(json!([qkv[1]])), qkv[1..]);
    assert_eq!(
        adapted_layers(json!({"regex": r"1\.mlp"})),
        ["blocks.1.mlp.fc1", "blocks.1.mlp.fc2"]
    );
    assert_eq!(adapted_layers(json!("all_linear")).len(), 8);
}

#[test]
fn an_unknown_target_is_refused_with_the_nearest_names() {
    let of = |targets: Value| {
        let adapter = json!({"type": "lora", "targets": targets});
        let (path, code, message) = refused(&layers(), json!({ "adapter": adapter }));
        assert_eq!(path, "method.transfer.adapter.targets");
        (code, message)
    };
    for (targets, words) in [
        (json!(["attn.qvk"]), "did you mean `attn.qkv`"),
        (json!(["blocks.0.attn.qk"]), "did you mean"),
        (json!(["table"]), "no linear layer `table`"),
        (json!(["kv"]), "no linear layer `kv`"),
        (json!(["blocks.1.mlp"]), "`blocks.1.mlp.fc1`"),
        (json!({"regex": "table"}), "like `blocks.0.attn.qkv`"),
    ] {
        let (code, message) = of(targets);
        assert!(
            code == UNKNOWN_LAYER && message.contains(words),
            "{message}"
        );
    }
    let (_, message) = of(json!({"regex": "("}));
    assert!(message.contains("not a regular expression"), "{message}");
    let two = json!({"adapter": {"type": "lora", "targets": ["x", "y"]}});
    assert_eq!(outcome(&layers(), &two).unwrap_err().len(), 2);
}

#[test]
fn a_cut_may_take_targets_away() {
    let cut = |cut: &str, targets: Value| json!({"cut": cut, "adapter": {"type": "lora", "targets": targets}});
    let kept = outcome(&layers(), &cut("blocks.0", json!("all_linear"))).unwrap();
    assert_eq!(kept.recipe.adapter.unwrap().layers.len(), 4);
    for targets in [json!(["blocks.1.mlp.fc1"]), json!({"regex": "^blocks.1"})] {
        let (_, code, message) = refused(&layers(), cut("blocks.0", targets));
        assert_eq!(code, UNKNOWN_LAYER);
        assert!(message.contains("nothing after `blocks.0`"), "{message}");
    }
    let (path, code, message) = refused(&layers(), cut("embed", json!("all_linear")));
    assert_eq!(
        (path.as_str(), code.as_str()),
        ("method.transfer.adapter", CONTRADICTION)
    );
    assert!(message.contains("`cut` leaves none"), "{message}");
}

#[test]
fn options_that_contradict_an_adapter_are_refused() {
    let lora = json!({"type": "lora"});
    let convolutions = test_data::layers();
    let (path, code, message) = refused(&convolutions, json!({"adapter": lora}));
    assert_eq!(
        (path.as_str(), code.as_str()),
        ("method.transfer.adapter", CONTRADICTION)
    );
    assert!(message.contains("this model has none"), "{message}");
    for (option, transfer, words) in [
        (
            "freeze",
            json!({"freeze": "none", "adapter": lora}),
            "instead of the backbone",
        ),
        (
            "freeze",
            json!({"freeze": {"all_but_last_stages": 1}, "adapter": lora}),
            "instead of the backbone",
        ),
        (
            "freeze",
            json!({"freeze": {"schedule": [{"at_epoch": 0, "freeze": "all"}]}, "adapter": lora}),
            "leave the schedule out",
        ),
        (
            "hyperparameters.batch_norm",
            json!({"hyperparameters": {"batch_norm": "update"}, "adapter": lora}),
            "keeps the backbone as it is",
        ),
    ] {
        let (path, code, message) = refused(&layers(), transfer);
        assert_eq!(path, format!("method.transfer.{option}"));
        assert_eq!(code, CONTRADICTION);
        assert!(message.contains(words), "{message}");
    }
    let all = json!({"freeze": "all", "adapter": lora, "hyperparameters": {"batch_norm": "frozen",
        "precision": "bfloat16", "layer_decay": 0.9, "backbone_learning_rate": 1e-3, "cutmix": 1.0}});
    assert!(outcome(&layers(), &all).is_ok());
    let views = json!({"adapter": lora, "augmentation": {"horizontal_flip": 0.5, "views": 2}});
    assert_eq!(refused(&layers(), views).1, CONTRADICTION);
}

#[test]
fn numbers_hold_at_their_limits_and_not_past_them() {
    let asked = |option: &str, value: Value| {
        let mut adapter = json!({"type": "lora"});
        adapter[option] = value;
        request(&json!({ "adapter": adapter }))
    };
    for (option, good) in [
        ("rank", vec![json!(1), json!(256)]),
        ("alpha", vec![json!(1e-3), json!(4_096)]),
        ("dropout", vec![json!(0), json!(0.999_999)]),
        (
            "targets",
            vec![json!(vec!["qkv"; 1_024]), json!({"regex": "."})],
        ),
        ("type", vec![json!("lora")]),
    ] {
        for value in good {
            assert!(asked(option, value.clone()).is_ok(), "{option}: {value}");
        }
    }
    for (option, bad) in [
        ("rank", vec![json!(0), json!(257), json!("auto")]),
        (
            "alpha",
            vec![json!(0), json!(9e-4), json!(4_097), json!(-1)],
        ),
        ("dropout", vec![json!(-1e-9), json!(1)]),
        (
            "targets",
            vec![
                json!(vec!["qkv"; 1_025]),
                json!([]),
                json!("all"),
                json!(1),
                json!({"regexp": "."}),
                json!(["x".repeat(256)]),
                json!({"regex": "x".repeat(1_025)}),
            ],
        ),
        ("type", vec![json!("ia3"), Value::Null]),
        ("ranks", vec![json!(8)]),
    ] {
        for value in bad {
            let problems = asked(option, value.clone()).expect_err(&format!("{option}: {value}"));
            assert_eq!(problems.len(), 1, "{option}: {value}: {problems:?}");
            assert!(problems[0].path.ends_with(option), "{problems:?}");
        }
    }
    assert_eq!(
        request(&json!({"adapter": null})).unwrap().transfer.adapter,
        None
    );
    assert_eq!(
        request(&json!({"adapter": "lora"})).unwrap_err()[0].code,
        "wrong_type"
    );
}

#[test]
fn a_rank_is_at_most_the_smaller_side_of_every_layer() {
    let asked = |rank: u64, targets: Value| json!({"adapter": {"type": "lora", "rank": rank, "targets": targets}});
    assert!(outcome(&layers(), &asked(8, json!("all_linear"))).is_ok());
    let (path, code, message) = refused(&layers(), asked(9, json!(["fc1"])));
    assert_eq!(
        (path.as_str(), code.as_str()),
        ("method.transfer.adapter.rank", OUT_OF_RANGE)
    );
    assert!(
        message.contains("`blocks.0.mlp.fc1` has 8 inputs and 32 outputs")
            && message.ends_with("give at most 8"),
        "{message}"
    );
}

#[test]
fn a_plan_counts_what_adapters_add() {
    let plan = |adapter: Value| {
        let recipe = outcome(&layers(), &json!({ "adapter": adapter }));
        let recipe = recipe.unwrap().recipe;
        let plan = JobPlan::of(&recipe, &layers(), &data(), None).unwrap();
        let added = of_recipe(&recipe, &layers()).unwrap();
        (plan, added)
    };
    let base: u64 = layers().tensors.iter().map(LayerTensor::count).sum();
    let (two, added) = plan(json!({"type": "lora", "rank": 2}));
    // Of a block's layers: inputs and outputs, twice each.
    let of_block = 2 * ((8 + 24) + (8 + 8) + (8 + 32) + (32 + 8));
    assert_eq!(two.parameters.frozen, base);
    assert_eq!(two.parameters.trainable, 2 * of_block);
    assert_eq!(two.parameters.head, 9 * 2);
    assert_eq!(
        added.stages[1].parameters,
        layers().stages[1].parameters + of_block
    );
    // Each of 5 tokens goes through all of it, and keeps what is between A and B: 2 numbers in 4
    // layers.
    let cost = added.costs[1];
    assert_eq!(cost.macs, 5 * (768 + of_block));
    assert_eq!(cost.kept, 1_000 + 5 * 8);
    assert_eq!(added.costs[0], layers().costs[0]);

    let dropping = json!({"type": "lora", "rank": 2, "dropout": 0.1});
    let kept = plan(dropping).1.costs[1].kept;
    assert_eq!(
        kept,
        1_000 + 5 * (8 + 2 * (8 + 8 + 8 + 32)),
        "masks and what they leave"
    );
    let one = plan(json!({"type": "lora", "rank": 2, "targets": ["blocks.1.attn.qkv"]}));
    assert_eq!(one.0.parameters.trainable, 2 * (8 + 24));
    assert!(one.0.memory.unwrap().peak_bytes <= two.memory.unwrap().peak_bytes);
}

#[test]
fn a_request_with_an_adapter_round_trips_through_json() {
    for targets in [
        json!("all_linear"),
        json!(["qkv"]),
        json!({"regex": "qkv$"}),
    ] {
        let adapter =
            json!({"type": "lora", "rank": 4, "alpha": 16, "dropout": 0.1, "targets": targets});
        let asked = request(&json!({ "adapter": adapter })).unwrap();
        let stored = serde_json::to_value(&asked).unwrap();
        assert_eq!(stored["transfer"]["adapter"]["targets"], targets);
        let read: JobRequest = serde_json::from_value(stored).unwrap();
        assert_eq!(read, asked);
    }
}
