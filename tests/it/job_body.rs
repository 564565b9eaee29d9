//! The body of a creation: openapi.yaml describes what `domain::request::parse` reads.

use rehead::domain::request;
use serde_json::{Value, json};

use crate::support::openapi::{CONTRACT, validate};

const FILE: &str = "file-0190f3c4d5e67f8091a2b3c4d5e6f708";

/// Every option, each at another value than its default.
const FULL: &str = r#"{
    "task": "regression",
    "cut": "layer3",
    "freeze": {"schedule": [{"at_epoch": 0, "freeze": "all"}, {"at_epoch": 2, "freeze": {"all_but_last_stages": 1}}]},
    "adapter": {"type": "lora", "rank": 4, "alpha": 16, "dropout": 0.1, "targets": {"regex": "qkv$"}},
    "head": {"layers": [{"linear": 64}, "gelu", {"dropout": 0.2}], "init": "normal"},
    "labels": "extend",
    "hyperparameters": {
        "n_epochs": 3,
        "batch_size": 8,
        "learning_rate": 0.01,
        "backbone_learning_rate": 1e-5,
        "learning_rate_multiplier": 0.5,
        "optimizer": "nesterov",
        "weight_decay": 0.001,
        "schedule": "one_cycle",
        "warmup_fraction": 0.2,
        "layer_decay": 0.75,
        "accumulate": 2,
        "shards": 1,
        "loss": "huber",
        "label_smoothing": 0.1,
        "mixup": 0.2,
        "cutmix": 1,
        "class_weights": "balanced",
        "gradient_clip": 5,
        "ema_decay": 0.99,
        "batch_norm": "update",
        "precision": "bfloat16", "features_precision": "bfloat16"
    },
    "augmentation": {
        "random_resized_crop": {"scale": [0.5, 1], "aspect_ratio": [0.9, 1.1]},
        "horizontal_flip": 0.5,
        "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
        "rand_augment": {"n_ops": 1, "magnitude": 5},
        "random_erasing": 0.25,
        "views": 2
    },
    "early_stopping": {"patience": 3, "metric": "valid_rmse", "min_delta": 0.01},
    "checkpoint_every_seconds": 60,
    "evaluate_every": {"steps": 100}
}"#;

fn body(method: &Value) -> Value {
    json!({"model": "resnet18", "training_file": FILE, "method": method})
}

fn with(transfer: &Value) -> Value {
    body(&json!({"type": "transfer", "transfer": transfer}))
}

/// The request as the parser understands it; the contract has the body too.
fn read(body: &Value) -> Value {
    validate(
        &json!({"$ref": "#/components/schemas/JobRequest"}),
        body,
        "a body that the parser reads",
    );
    serde_json::to_value(request::parse(body).unwrap()).unwrap()
}

/// The options that are as by default.
fn unset(default: &Value, value: &Value, place: &str) -> Vec<String> {
    let Some(options) = default.as_object() else {
        let same = default == value;
        return Vec::from_iter(same.then(|| place.to_owned()));
    };
    let unset = options
        .iter()
        .flat_map(|(name, default)| unset(default, &value[name], &format!("{place}.{name}")));
    unset.collect()
}

#[test]
fn every_option_is_accepted_by_the_contract() {
    let default = read(&body(&json!({"type": "transfer"})));
    let full = read(&with(&serde_json::from_str(FULL).unwrap()));
    let left = unset(&default["transfer"], &full["transfer"], "transfer");
    assert!(
        left.is_empty(),
        "not tried: {left:?}; add a value other than the default to FULL in this file"
    );
    // The defaults, spelled out, are a body too: "auto" wherever that is one.
    assert_eq!(read(&with(&default["transfer"])), default);
}

#[test]
fn bodies_of_the_parser_are_as_described() {
    for transfer in [
        json!({"freeze": "none", "augmentation": "none", "head": {"layers": []}}),
        json!({"freeze": "all", "adapter": {"type": "lora"}, "augmentation": {}}),
        json!({"freeze": {"first_n": 1_000}, "adapter": {"type": "lora", "targets": ["attn.qkv"]}}),
        json!({"freeze": {"fraction": 0}, "adapter": {"type": "lora", "targets": "all_linear"}}),
        json!({"freeze": {"blocks": ["layer1.0"]}, "head": {"layers": ["batch_norm", "relu", "layer_norm"]}}),
        json!({"freeze": {"names": ["conv1.weight"]}, "augmentation": {"views": "auto"}}),
        json!({"freeze": {"regex": "bn"}, "adapter": null, "head": null, "cut": "pre_logits"}),
        json!({"hyperparameters": {"ema_decay": "none", "class_weights": "none"}}),
        json!({"hyperparameters": {"class_weights": {"cats": 1e-6, "dogs": 1_000_000}}}),
        json!({"hyperparameters": {"learning_rate": 1e-9, "n_epochs": 10_000.0, "weight_decay": 0}}),
        json!({"augmentation": {"random_resized_crop": {}, "color_jitter": {"hue": 0.5}}}),
    ] {
        read(&with(&transfer));
    }
    let three = json!({"n_epochs": "auto", "batch_size": 4_096, "learning_rate_multiplier": 0.1});
    read(&body(
        &json!({"type": "supervised", "supervised": {"hyperparameters": three}}),
    ));
    read(&json!({
        "model": "resnet18", "training_file": FILE, "validation_file": FILE, "suffix": "a.b-c_1", "seed": 0,
        "metadata": {"team": "recycling"}, "priority": 0, "timeout_seconds": 1, "integrations": [], "hyperparameters": three,
    }));
}

/// The bounds of each number in a schema, with the number's path; `"auto"` and `null` stand beside
/// them.
fn bounds(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        // A policy of a schedule is a policy again.
        if !path.contains("schedule") {
            bounds(&CONTRACT["components"]["schemas"][name], path, found);
        }
    }
    for choice in ["anyOf", "oneOf"] {
        for one in schema[choice].as_array().into_iter().flatten() {
            bounds(one, path, found);
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        bounds(property, &format!("{path}/{name}"), found);
    }
    if ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]
        .iter()
        .any(|bound| !schema[bound].is_null())
    {
        found.push((path.to_owned(), schema.clone()));
    }
}

/// A transfer in which the number at `path` is `value`; it may have other problems elsewhere.
fn with_number(path: &str, value: &Value) -> Value {
    let mut names: Vec<&str> = path.split('/').skip(1).collect();
    names.reverse();
    let mut transfer = names
        .iter()
        .fold(value.clone(), |inner, name| json!({ *name: inner }));
    if path.starts_with("/adapter") {
        transfer["adapter"]["type"] = json!("lora");
    }
    transfer
}

#[test]
fn bounds_of_the_contract_are_those_of_the_parser() {
    let mut found = Vec::new();
    bounds(
        &CONTRACT["components"]["schemas"]["Transfer"],
        "",
        &mut found,
    );
    // Lists have layers in them, whose bounds need a list around them.
    found.retain(|(path, _)| !path.contains("layers") && !path.contains("schedule"));
    assert!(found.len() > 20, "{found:?}");
    for (path, schema) in found {
        let is_read =
            |value: f64| request::parse(&with(&with_number(&path, &json!(value)))).is_ok();
        for (bound, inside, beyond) in [
            ("minimum", true, f64::next_down as fn(f64) -> f64),
            ("maximum", true, f64::next_up),
            ("exclusiveMinimum", false, f64::next_down),
            ("exclusiveMaximum", false, f64::next_up),
        ] {
            let Some(value) = schema[bound].as_f64() else {
                continue;
            };
            assert_eq!(is_read(value), inside, "{path}: {bound} {value}");
            assert!(!is_read(beyond(value)), "{path}: beyond {bound} {value}");
        }
    }
}
