//! Each optimizer by itself takes PyTorch's steps on the same gradients
//! (crates/trainer/tests/python/record_optimizers.py).

use std::collections::BTreeMap;

use rehead_domain::recipe::{Optimizer as Kind, Recipe};
use rehead_trainer::train::{
    network::parameter::{Group, Parameter},
    step::optimizer::{Optimizer, Rates},
};
use serde::Deserialize;
use tch::Tensor;

use crate::support::training::recipe;

/// Numbers of each tensor, by its name.
type Numbers = BTreeMap<String, Vec<f64>>;

#[derive(Deserialize)]
struct Recording {
    shapes: BTreeMap<String, Vec<i64>>,
    start: Numbers,
    rates: Vec<f64>,
    gradients: Vec<Numbers>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    optimizer: Kind,
    weight_decay: f64,
    clip: Option<f64>,
    /// The weights after each step.
    after: Vec<Numbers>,
}

impl Recording {
    fn tensor(&self, name: &str, numbers: &Numbers) -> Tensor {
        Tensor::from_slice(&numbers[name]).view(self.shapes[name].as_slice())
    }
}

#[test]
fn each_optimizer_takes_pytorchs_steps() {
    let recording = include_str!("../../fixtures/optimizers.json");
    let recording: Recording = serde_json::from_str(recording).unwrap();
    for case in &recording.cases {
        let recipe = Recipe {
            optimizer: case.optimizer,
            learning_rate: 1.0,
            weight_decay: case.weight_decay,
            gradient_clip: case.clip,
            ..recipe()
        };
        let start = |name: &String| Parameter {
            name: name.clone(),
            tensor: recording.tensor(name, &recording.start),
            group: Group::Head,
        };
        let mut parameters: Vec<Parameter> = recording.shapes.keys().map(start).collect();
        let mut optimizer = Optimizer::new(&recipe, &parameters);
        assert_eq!(case.after.len(), recording.rates.len());
        let steps = recording.rates.iter().zip(&recording.gradients);
        for (step, ((&rate, gradients), after)) in (1..).zip(steps.zip(&case.after)) {
            let gradients = parameters
                .iter()
                .map(|one| recording.tensor(&one.name, gradients))
                .collect();
            optimizer.step(&mut parameters, gradients, step, Rates::at(&recipe, rate));
            for one in &parameters {
                let found = Vec::<f64>::try_from(&one.tensor.view(-1)).unwrap();
                for (found, recorded) in found.iter().zip(&after[&one.name]) {
                    assert!(
                        (found - recorded).abs() < 1e-9 * recorded.abs(),
                        "{:?}, decay {}, step {step}, `{}`: {found}, recorded {recorded}",
                        case.optimizer,
                        case.weight_decay,
                        one.name
                    );
                }
            }
        }
    }
}
