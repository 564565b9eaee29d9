//! Rates and steps.

use rehead_domain::recipe::{Optimizer as Kind, Recipe, Schedule};
use rehead_trainer::train::{
    network::parameter::{Group, Parameter},
    step::{
        optimizer::{Optimizer, Rates},
        schedule,
    },
};
use tch::Tensor;

use super::build;
use crate::support::training::{parameters, recipe};

#[test]
fn trap_7_groups_train_at_the_rates_of_every_step() {
    let recipe = Recipe {
        trainable: parameters("resnet18", &["conv1", "bn1", "layer"]),
        learning_rate: 1.0,
        backbone_learning_rate: 0.1,
        layer_decay: 0.5,
        schedule: Schedule::Linear,
        warmup_fraction: 0.2,
        ..recipe()
    };
    let network = build(&recipe);
    let group = |part: &str| {
        let found = network
            .parameters
            .iter()
            .find(|one| one.name.starts_with(part));
        found.unwrap().group
    };
    for (part, share) in [
        ("fc.", 1.0),
        ("layer4.", 0.1),
        ("layer3.", 0.05),
        ("layer2.", 0.025),
        ("layer1.", 0.012_5),
        ("conv1.", 0.006_25),
    ] {
        for (step, factor) in (1..).zip([0.5, 1.0, 0.75, 0.5, 0.25]) {
            let rate = Rates::at(&recipe, schedule::factor(&recipe, step, 5)).of(group(part));
            assert!(
                (rate - share * factor).abs() < 1e-12,
                "{part} {step}: {rate}"
            );
        }
    }
}

#[test]
fn trap_7_what_joins_later_warms_up_and_is_corrected_by_itself() {
    let recipe = Recipe {
        optimizer: Kind::Adamw,
        ..recipe()
    };
    let parameter = |name: &str| Parameter {
        name: name.to_owned(),
        tensor: Tensor::from_slice(&[1.0f64]),
        group: Group::Head,
    };
    let rates = Rates {
        warmup: 3,
        ..Rates::at(&recipe, 1.0)
    };
    let mut parameters = vec![parameter("old")];
    let mut optimizer = Optimizer::new(&recipe, &parameters);
    let gradient = || Tensor::from_slice(&[0.5f64]);
    optimizer.step(&mut parameters, vec![gradient()], 1, rates);
    parameters.push(parameter("new"));
    optimizer.regroup(&parameters, 1);
    let mut last = 1.0;
    // With a gradient that stays, each corrected step of AdamW is the rate itself.
    for (step, share) in (2..).zip([0.25, 0.5, 0.75, 1.0, 1.0]) {
        optimizer.step(&mut parameters, vec![gradient(), gradient()], step, rates);
        let now = parameters[1].tensor.double_value(&[0]);
        assert!(
            (last - now - share * rates.head).abs() < 1e-8,
            "{step}: {}",
            last - now
        );
        last = now;
    }
    let old = parameters[0].tensor.double_value(&[0]);
    assert!((1.0 - old - 6.0 * rates.head).abs() < 1e-8, "{old}");
}

#[test]
fn trap_17_adamw_corrects_its_bias() {
    let recipe = Recipe {
        optimizer: Kind::Adamw,
        ..recipe()
    };
    let mut parameters = vec![Parameter {
        name: "weight".to_owned(),
        tensor: Tensor::from_slice(&[1.0f64, -2.0, 0.5]),
        group: Group::Head,
    }];
    let mut optimizer = Optimizer::new(&recipe, &parameters);
    let gradient = [0.3f64, -4.0, 1e-9];
    let rates = Rates::at(&recipe, 1.0);
    optimizer.step(
        &mut parameters,
        vec![Tensor::from_slice(&gradient)],
        1,
        rates,
    );
    let found = Vec::<f64>::try_from(&parameters[0].tensor).unwrap();
    for ((found, start), gradient) in found.iter().zip([1.0, -2.0, 0.5]).zip(gradient) {
        let expected = start - rates.head * gradient / (gradient.abs() + 1e-8);
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }
}
