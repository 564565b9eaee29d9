//! Training follows PyTorch step by step: losses, final weights, and what must not change at all.

use std::{collections::BTreeMap, fmt::Write as _};

use rehead_domain::{
    recipe::{BatchNorm, Optimizer as Kind, Recipe},
    work::PlanModel,
};
use rehead_trainer::{
    models::registry,
    train::{
        loss,
        network::Network,
        optimizer::{self, Optimizer, Rates},
    },
};
use serde_json::Value;
use tch::{Device, Tensor};

use crate::support::{numbers, training};

const CLASSES: usize = 3;
const BATCH: i64 = 8;

#[test]
fn training_does_what_pytorch_did() {
    tch::set_num_threads(2);
    let mut failures = String::new();
    let recordings = numbers::recordings(|name| name.starts_with("train-"));
    for (file, recording) in &recordings {
        if let Err(failure) = check(recording) {
            writeln!(failures, "{file}: {failure}").unwrap();
        }
    }
    assert!(
        failures.is_empty(),
        "{} recordings read\n{failures}",
        recordings.len()
    );
}

fn check(recording: &Value) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let base = training::base_model(recording["arch"].as_str().unwrap(), folder.path())?;
    let recipe = recipe(recording, &base);
    let device = Device::Cpu;
    let mut network =
        Network::build(&base, &recipe, CLASSES, device).map_err(|error| error.to_string())?;
    let before: BTreeMap<String, Tensor> = copies(&network);
    let mut optimizer = Optimizer::new(&recipe, &network.parameters);

    let size = recording["img_size"].as_i64().unwrap_or(64);
    let scale = recording["feature_scale"].as_f64().unwrap();
    let labels: Vec<i64> = (0..BATCH).map(|i| i % CLASSES as i64).collect();
    let labels = Tensor::from_slice(&labels);
    for (step, recorded) in (1..).zip(recording["losses"].as_array().unwrap()) {
        let images = numbers::images(&format!("input-{}", step - 1), &[BATCH, 3, size, size]);
        let features = network.features_train(&images, step) * scale;
        let logits = network.logits_train(&features, step);
        let loss = loss::cross_entropy(&logits, &labels, None, recipe.label_smoothing);
        let (found, recorded) = (loss.double_value(&[]), recorded.as_f64().unwrap());
        if (found - recorded).abs() > 1e-3 * recorded {
            return Err(format!("loss of step {step}: {found}, recorded {recorded}"));
        }
        let gradients =
            optimizer::gradients(&loss, &network.parameters).map_err(|error| error.to_string())?;
        optimizer.step(
            &mut network.parameters,
            gradients,
            step,
            Rates::at(&recipe, 1.0),
        );
    }

    let after = copies(&network);
    for (name, recorded) in recording["final_l2"].as_object().unwrap() {
        let found = after
            .get(name)
            .ok_or(format!("there is no tensor `{name}`"))?
            .norm()
            .double_value(&[]);
        let recorded = recorded.as_f64().unwrap();
        if (found - recorded).abs() > 1e-3 * recorded {
            return Err(format!("norm of `{name}`: {found}, recorded {recorded}"));
        }
    }
    for name in recording["unchanged"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        if before[name] != after[name] {
            return Err(format!("`{name}` changed, and is frozen"));
        }
    }
    Ok(())
}

fn recipe(recording: &Value, base: &PlanModel) -> Recipe {
    let optimizer = &recording["optimizer"];
    let rate = optimizer["lr"].as_f64().unwrap();
    // Parts of a state dict by the beginnings of their names; the head always trains.
    let parts: Vec<&str> = recording["trainable"]
        .as_str()
        .unwrap()
        .split(',')
        .collect();
    let trained = |name: &str| {
        parts
            .iter()
            .any(|&part| part == "all" || (part != "head" && name.starts_with(&format!("{part}."))))
    };
    let layers = registry::layers(registry::find(&base.architecture).unwrap());
    let trainable = layers
        .tensors
        .into_iter()
        .filter(|tensor| tensor.trainable && trained(&tensor.name))
        .map(|tensor| tensor.name)
        .collect();
    Recipe {
        trainable,
        optimizer: match (optimizer["name"].as_str().unwrap(), &optimizer["nesterov"]) {
            ("sgd", Value::Bool(true)) => Kind::Nesterov,
            ("sgd", _) => Kind::Sgd,
            ("adamw", _) => Kind::Adamw,
            (other, _) => panic!("no optimizer `{other}`"),
        },
        learning_rate: rate,
        backbone_learning_rate: rate,
        weight_decay: optimizer["weight_decay"].as_f64().unwrap(),
        label_smoothing: recording["label_smoothing"].as_f64().unwrap_or(0.0),
        gradient_clip: recording["clip"].as_f64(),
        batch_norm: match recording["bn_unfrozen"].as_str() {
            Some("train") => BatchNorm::Update,
            _ => BatchNorm::Frozen,
        },
        ..training::recipe()
    }
}

/// Every tensor under the recordings' names, in which the new head is `head`.
fn copies(network: &Network) -> BTreeMap<String, Tensor> {
    let classifier = format!("{}.", network.architecture.classifier);
    network
        .tensors()
        .into_iter()
        .map(|(name, tensor)| {
            let name = match name.strip_prefix(&classifier) {
                Some(rest) => format!("head.{rest}"),
                None => name,
            };
            (name, tensor.copy())
        })
        .collect()
}
