//! The best evaluation comes back, averages with it.

use rehead_domain::{
    progress::exit,
    recipe::{BatchNorm, Recipe},
};
use rehead_trainer::train::{
    network::parameter::{Group, Parameter},
    step::optimizer::{Optimizer, Rates},
};
use tch::Tensor;

use super::{evaluations, layer4};
use crate::support::training::{Material, recipe};

#[test]
fn trap_22_the_best_comes_back_with_its_statistics_and_averages() {
    let material = Material::new(20);
    let averaged = |ema_decay| Recipe {
        n_epochs: 3,
        ema_decay,
        ..layer4(BatchNorm::Update)
    };
    let plain = evaluations(&material, "plain", averaged(None));
    let found = evaluations(&material, "averaged", averaged(Some(0.9)));
    assert_ne!(plain, found, "what is evaluated are the averages");
    let best = found
        .iter()
        .map(|loss| loss.1)
        .fold(f64::INFINITY, f64::min);
    let mut run = material.start("again", &material.plan(averaged(Some(0.9))));
    assert_eq!(run.end().1.code(), Some(exit::DONE));
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(run.folder.join("report.json")).unwrap()).unwrap();
    let reported = report["log_loss"].as_f64().unwrap();
    assert_eq!(report["split"], "validation");
    assert!((reported - best).abs() < 1e-12, "{reported} {best}");
}

#[test]
fn trap_22_averages_are_copies_and_follow_their_formula() {
    let recipe = Recipe {
        ema_decay: Some(0.5),
        learning_rate: 1.0,
        ..recipe()
    };
    let mut parameters = vec![Parameter {
        name: "weight".to_owned(),
        tensor: Tensor::from_slice(&[0.0f64]),
        group: Group::Head,
    }];
    let mut optimizer = Optimizer::new(&recipe, &parameters);
    let mut expected = 0.0;
    for step in 1..=12u64 {
        let gradient = Tensor::from_slice(&[-1.0f64]);
        optimizer.step(
            &mut parameters,
            vec![gradient],
            step,
            Rates::at(&recipe, 1.0),
        );
        let weight = parameters[0].tensor.double_value(&[0]);
        let kept = f64::min(0.5, (1.0 + step as f64) / (10.0 + step as f64));
        expected = kept * expected + (1.0 - kept) * weight;
        optimizer.swap_averages(&mut parameters);
        assert!((parameters[0].tensor.double_value(&[0]) - expected).abs() < 1e-9);
        optimizer.swap_averages(&mut parameters);
        assert_eq!(parameters[0].tensor.double_value(&[0]), weight);
    }
}
