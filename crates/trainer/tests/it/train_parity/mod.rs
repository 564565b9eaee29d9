//! Training follows PyTorch step by step: losses, final weights, and what must not change at all.

use std::collections::BTreeMap;

use rehead_domain::{base_model::Preprocessing, input::Input, recipe::Recipe};
use rehead_trainer::{
    models::{pass::Statistics, registry},
    train::{
        network::{Network, Shard},
        step::{
            loss_functions,
            optimizer::{self, Optimizer, Rates},
        },
    },
};
use serde_json::{Value, json};
use tch::Tensor;

use self::recording::Recording;
use crate::support::{device, numbers, training};

mod optimizers;
mod recording;

#[test]
fn training_does_what_pytorch_did() {
    numbers::check_all(
        |name| name.starts_with("train-"),
        |_, recording| check(recording),
    );
}

fn check(recording: &Value) -> Result<(), String> {
    let recording = Recording::read(recording)?;
    let architecture = registry::find(&recording.arch).ok_or(format!(
        "the registry lacks the architecture `{}`",
        recording.arch
    ))?;
    let input = Input::Image(Preprocessing {
        input_size: recording.img_size,
        channels: recording.in_chans,
        ..architecture.input.image().unwrap().clone()
    });
    let recipe = recording.recipe(architecture, &input)?;
    let folder = tempfile::tempdir().unwrap();
    let base = training::base_model_for(architecture, &input, folder.path());
    let device = device::open();
    let mut network = Network::build(&base, &recipe, recording.classes, device)
        .map_err(|error| error.to_string())?;
    let before = copies(&network);
    follow(&mut network, &recording, &recipe)?;

    let after = copies(&network);
    let find = |tensors: &BTreeMap<String, Tensor>, name: &str| {
        let found = tensors.get(name).map(Tensor::shallow_clone);
        found.ok_or(format!("there is no tensor `{name}`"))
    };
    for (name, &recorded) in &recording.final_l2 {
        let found = find(&after, name)?.norm().double_value(&[]);
        if !is_near(found, recorded) {
            return Err(format!("norm of `{name}`: {found}, recorded {recorded}"));
        }
    }
    for name in &recording.unchanged {
        if find(&before, name)? != find(&after, name)? {
            return Err(format!("`{name}` changed, and is frozen"));
        }
    }
    Ok(())
}

/// Takes the recorded steps, and compares each one's loss.
fn follow(network: &mut Network, recording: &Recording, recipe: &Recipe) -> Result<(), String> {
    let mut optimizer = Optimizer::new(recipe, &network.parameters);
    let (batch, side) = (recording.batch, i64::from(recording.img_size));
    let size = [batch, i64::from(recording.in_chans), side, side];
    let labels: Vec<i64> = (0..batch).map(|i| i % recording.classes as i64).collect();
    let device = device::open();
    let labels = Tensor::from_slice(&labels).to_device(device);
    for (step, &recorded) in (1..).zip(&recording.losses) {
        let images = numbers::images(&format!("input-{}", step - 1), &size).to_device(device);
        let shard = Shard::whole(step);
        let features = network.features_train(&images, &shard) * recording.feature_scale;
        let logits = network.logits_train(&features, &shard);
        Statistics::keep([shard.statistics]);
        let loss = loss_functions::cross_entropy(&logits, &labels, None, recipe.label_smoothing);
        let found = loss.double_value(&[]);
        if !is_near(found, recorded) {
            return Err(format!("loss of step {step}: {found}, recorded {recorded}"));
        }
        let gradients =
            optimizer::gradients(&loss, &network.parameters).map_err(|error| error.to_string())?;
        let rates = Rates::at(recipe, recording.rate_factor(step));
        optimizer.step(&mut network.parameters, gradients, step, rates);
    }
    Ok(())
}

fn is_near(found: f64, recorded: f64) -> bool {
    (found - recorded).abs() <= 1e-3 * recorded.abs()
}

/// Every tensor under the recordings' names, in which the new head is `head`.
fn copies(network: &Network) -> BTreeMap<String, Tensor> {
    let classifier = format!("{}.", network.architecture.classifier);
    network
        .tensors()
        .into_iter()
        .map(|(name, tensor)| {
            let name = match name.strip_prefix(&classifier) {
                Some(rest) if matches!(rest, "weight" | "bias") => format!("head.{rest}"),
                _ => name,
            };
            (name, tensor.copy())
        })
        .collect()
}

/// A recording of the project's own, changed.
fn changed(file: &str, change: impl Fn(&mut Value)) -> Result<(), String> {
    let path = format!(
        "{}/tests/fixtures/parity/{file}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let mut recording = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut recording);
    check(&recording)
}

/// An option of a recording that is not implemented here fails the test.
#[test]
fn options_that_nothing_here_does_fail_by_name() {
    let head_only = "train-resnet18-head-only-sgd";
    let layer4 = "train-resnet18-layer4-adamw-bn-frozen";
    type Change = fn(&mut Value);
    let cases: [(&str, &str, Change); 16] = [
        (head_only, "mixup", |it| it["mixup"] = json!(0.2)),
        (head_only, "amsgrad", |it| {
            it["optimizer"]["amsgrad"] = json!(true)
        }),
        (head_only, "adagrad", |it| {
            it["optimizer"]["name"] = json!("adagrad")
        }),
        (head_only, "momentum 0.8", |it| {
            it["optimizer"]["momentum"] = json!(0.8)
        }),
        (head_only, "momentum 0", |it| {
            it["optimizer"].as_object_mut().unwrap().remove("momentum");
        }),
        (head_only, "betas", |it| {
            it["optimizer"]["betas"] = json!([0.9, 0.999])
        }),
        (layer4, "betas", |it| {
            it["optimizer"]["betas"] = json!([0.9, 0.99])
        }),
        (layer4, "eps", |it| it["optimizer"]["eps"] = json!(1e-6)),
        (layer4, "nesterov", |it| {
            it["optimizer"]["nesterov"] = json!(true)
        }),
        (layer4, "layer5", |it| {
            it["trainable"] = json!("layer5,head")
        }),
        (layer4, "head", |it| it["trainable"] = json!("layer4")),
        (layer4, "half", |it| it["bn_unfrozen"] = json!("half")),
        (layer4, "bn_unfrozen", |it| {
            it.as_object_mut().unwrap().remove("bn_unfrozen");
        }),
        (layer4, "losses", |it| it["steps"] = json!(7)),
        (layer4, "rules", |it| it["rules"] = json!("dropout 0.1")),
        (layer4, "resnet19", |it| it["arch"] = json!("resnet19")),
    ];
    for (file, named, change) in cases {
        let failure = changed(file, change).unwrap_err();
        assert!(failure.contains(named), "{named}: {failure}");
    }
}

/// Values that are the same, said in other words, change nothing.
#[test]
fn the_same_options_in_other_words_are_the_same() {
    changed("train-resnet18-layer4-adamw-bn-frozen", |it| {
        it["trainable"] = json!(["head", "layer4.0", "layer4.1"]);
        it["optimizer"]["lr"] = json!([0.001, 0.001, 0.001, 0.001, 0.001, 0.001]);
        it["batch"] = json!(8);
        it["classes"] = json!(3);
        it["img_size"] = json!(64);
        it["optimizer"]["eps"] = Value::Null;
    })
    .unwrap();
    // Another rate is another training.
    let failure = changed("train-resnet18-layer4-adamw-bn-frozen", |it| {
        it["optimizer"]["lr"] = json!([0.001, 0.002, 0.001, 0.001, 0.001, 0.001]);
    });
    assert!(failure.unwrap_err().contains("loss of step 3"));
}
