//! The body of a creation: openapi.yaml describes what `domain::request::parse` reads.

use std::{fmt::Debug, ops::RangeInclusive};

use rehead::domain::{limits, request};
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
        "loss": "huber",
        "label_smoothing": 0.1,
        "mixup": 0.2,
        "cutmix": 1,
        "class_weights": "balanced",
        "gradient_clip": 5,
        "ema_decay": 0.99,
        "batch_norm": "update",
        "precision": "bfloat16"
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
        &json!({"$ref": "#/components/schemas/JobBody"}),
        body,
        "a body that the parser reads",
    );
    serde_json::to_value(request::parse(body).unwrap()).unwrap()
}

fn schema(name: &str) -> &'static Value {
    &CONTRACT["components"]["schemas"][name]
}

/// What a schema, or one that it is made of, says of a property.
fn property(schema: &'static Value, name: &str) -> Option<&'static Value> {
    if let Some(reference) = schema["$ref"].as_str() {
        return property(CONTRACT.pointer(reference.strip_prefix('#')?)?, name);
    }
    let parts = ["oneOf", "allOf"].map(|key| schema[key].as_array().into_iter().flatten());
    schema["properties"].get(name).or_else(|| {
        let mut parts = parts.into_iter().flatten();
        parts.find_map(|part| property(part, name))
    })
}

/// The names in a value that its schema does not have.
fn undescribed(schema: &'static Value, value: &Value, place: &str) -> Vec<String> {
    let names = value.as_object().into_iter().flatten();
    let missing = names.flat_map(|(name, inner)| {
        let place = format!("{place}.{name}");
        match property(schema, name) {
            Some(schema) => undescribed(schema, inner, &place),
            None => vec![place],
        }
    });
    missing.collect()
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
fn every_option_of_the_parser_is_described() {
    let default = read(&body(&json!({"type": "transfer"})));
    let full = read(&with(&serde_json::from_str(FULL).unwrap()));
    let left = unset(&default["transfer"], &full["transfer"], "transfer");
    assert!(left.is_empty(), "not tried: {left:?}");
    let mut missing = undescribed(schema("TransferBody"), &full["transfer"], "transfer");
    let beside = full.as_object().unwrap().keys();
    missing.extend(
        beside
            .filter(|name| *name != "transfer" && property(schema("JobBody"), name).is_none())
            .cloned(),
    );
    assert!(missing.is_empty(), "openapi.yaml lacks {missing:?}");
    // Its defaults, spelt out, are a body too: "auto" wherever that is one.
    assert_eq!(read(&with(&default["transfer"])), default);
}

#[test]
fn what_the_parser_reads_is_as_described() {
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

fn range<T: Debug>(range: &RangeInclusive<T>) -> String {
    [range.start(), range.end()]
        .map(|bound| format!("{bound:?}").trim_end_matches(".0").to_owned())
        .join(" to ")
}

/// Without the commas of long numbers.
fn description(schema: &str, name: &str) -> String {
    let property = &CONTRACT["components"]["schemas"][schema]["properties"][name];
    let said = [
        &property["description"],
        &property["oneOf"][0]["description"],
    ];
    let said = said.into_iter().find_map(Value::as_str);
    said.unwrap_or_default().replace(',', "").replace('\n', " ")
}

#[test]
fn descriptions_say_the_parser_s_ranges() {
    let whole = [
        ("JobBody", "timeout_seconds", limits::TIMEOUT_SECONDS),
        (
            "TransferBody",
            "checkpoint_every_seconds",
            limits::CHECKPOINT_SECONDS,
        ),
        ("TransferBody", "evaluate_every", limits::EPOCHS),
        ("TransferBody", "evaluate_every", limits::EVALUATION_STEPS),
        ("AdapterBody", "rank", limits::ADAPTER_RANK),
        ("HeadBody", "layers", limits::HEAD_WIDTH),
        ("HyperparametersBody", "n_epochs", limits::EPOCHS),
        ("HyperparametersBody", "batch_size", limits::BATCH_SIZE),
        ("HyperparametersBody", "accumulate", limits::ACCUMULATE),
        ("SupervisedHyperparameters", "n_epochs", limits::EPOCHS),
        (
            "SupervisedHyperparameters",
            "batch_size",
            limits::BATCH_SIZE,
        ),
        ("EarlyStoppingBody", "patience", limits::PATIENCE),
        ("ChosenAugmentationBody", "views", limits::VIEWS),
        ("RandAugmentBody", "n_ops", limits::RAND_AUGMENT_OPS),
        (
            "RandAugmentBody",
            "magnitude",
            limits::RAND_AUGMENT_MAGNITUDE,
        ),
    ];
    let real = [
        ("AdapterBody", "alpha", limits::ADAPTER_ALPHA),
        (
            "HyperparametersBody",
            "learning_rate",
            limits::LEARNING_RATE,
        ),
        (
            "HyperparametersBody",
            "backbone_learning_rate",
            limits::LEARNING_RATE,
        ),
        ("HyperparametersBody", "weight_decay", limits::WEIGHT_DECAY),
        ("HyperparametersBody", "mixup", limits::MIX_ALPHA),
        ("HyperparametersBody", "cutmix", limits::MIX_ALPHA),
        ("HyperparametersBody", "class_weights", limits::CLASS_WEIGHT),
        ("RandomResizedCropBody", "scale", limits::CROP_SCALE),
        (
            "RandomResizedCropBody",
            "aspect_ratio",
            limits::CROP_ASPECT_RATIO,
        ),
        ("ColorJitterBody", "brightness", limits::COLOR_FACTOR),
        ("ColorJitterBody", "contrast", limits::COLOR_FACTOR),
        ("ColorJitterBody", "saturation", limits::COLOR_FACTOR),
        ("ColorJitterBody", "hue", limits::HUE),
    ];
    let whole = whole.map(|(schema, name, bounds)| (schema, name, range(&bounds)));
    let real = real.map(|(schema, name, bounds)| (schema, name, range(&bounds)));
    for (schema, name, range) in whole.into_iter().chain(real) {
        let said = description(schema, name);
        assert!(
            said.contains(&range),
            "{schema}.{name} is {range}, not as `{said}`"
        );
    }
}
