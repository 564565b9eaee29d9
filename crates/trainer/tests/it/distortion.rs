//! Why training starts at the probe, on the smallest networks that show it: two linear layers
//! `x ↦ v · B x`, whose training inputs span only part of the space (Kumar et al. 2022, section 3).
//! Fine-tuning from a random head fits them, but changes the features only along what it has seen,
//! and so loses those for the rest. From the probe there is little left to change.

use rehead_domain::recipe::Recipe;
use rehead_trainer::{
    data::random::Random,
    train::{
        network::parameter::{Group, Parameter},
        step::optimizer::{Optimizer, Rates, gradients},
    },
};
use tch::{Kind, Tensor};

use crate::support::training::recipe;

/// Inputs, features, dimensions that training inputs span, training samples.
const D: i64 = 40;
const K: i64 = 5;
const M: i64 = 20;
const N: i64 = 60;
/// How far the features at the start are off, in the length of the error of one that has length 1.
const ERROR: f64 = 0.05;
const STEPS: u64 = 300;

/// A head `[K]` on features [K, D].
struct Net {
    head: Tensor,
    features: Tensor,
}

/// Mean squared errors: on inputs like those of training, and on inputs of all directions.
#[derive(Debug)]
struct Errors {
    inside: f64,
    outside: f64,
}

struct Task {
    /// [M, D], orthonormal rows: what training inputs span.
    span: Tensor,
    /// `[D]`: the truth is `x ↦ truth · x`.
    truth: Tensor,
    /// [N, D]
    inputs: Tensor,
}

/// N(0, 1).
fn normal(random: &mut Random, size: &[i64]) -> Tensor {
    let count = size.iter().product::<i64>();
    let numbers: Vec<f64> = (0..count).map(|_| random.normal()).collect();
    Tensor::from_slice(&numbers).view(size)
}

/// Orthonormal rows [count, D] of random directions.
fn basis(random: &mut Random, count: i64) -> Tensor {
    Tensor::linalg_qr(&normal(random, &[D, count]), "reduced")
        .0
        .tr()
}

impl Task {
    /// With features that nearly know the truth, and a head that knows nothing.
    fn new(seed: u64) -> (Self, Net) {
        let mut random = Random::new(seed);
        let features = basis(&mut random, K);
        let weights = normal(&mut random, &[K]);
        let truth = features.tr().mv(&(&weights / weights.norm()));
        let span = basis(&mut random, M);
        let inputs = normal(&mut random, &[N, M]).matmul(&span);
        let off = normal(&mut random, &[K, D]) * (ERROR / (D as f64).sqrt());
        let start = Net {
            head: normal(&mut random, &[K]),
            features: features + off,
        };
        (
            Self {
                span,
                truth,
                inputs,
            },
            start,
        )
    }

    /// Trains the head, and the features with it or not, until nothing is left to gain.
    fn train(&self, start: &Net, with_features: bool) -> Net {
        let (head, features) = (start.head.copy(), start.features.copy());
        let named = |name: &str, tensor: &Tensor, group| Parameter {
            name: name.to_owned(),
            tensor: tensor.set_requires_grad(true),
            group,
        };
        let mut parameters = vec![named("head", &head, Group::Head)];
        if with_features {
            parameters.push(named("features", &features, Group::Backbone { depth: 0 }));
        }
        let recipe = Recipe {
            learning_rate: 0.1,
            backbone_learning_rate: 0.01,
            ..recipe()
        };
        let mut optimizer = Optimizer::new(&recipe, &parameters);
        let rates = Rates {
            head: 0.02,
            backbone: 0.02,
            ..Rates::at(&recipe, 1.0)
        };
        let labels = self.inputs.mv(&self.truth);
        for step in 1..=STEPS {
            let predicted = self.inputs.matmul(&features.tr()).mv(&head);
            let loss = (predicted - &labels).square().mean(Kind::Double);
            let gradients = gradients(&loss, &parameters).unwrap();
            optimizer.step(&mut parameters, gradients, step, rates);
        }
        Net {
            head: head.detach(),
            features: features.detach(),
        }
    }

    fn errors(&self, net: &Net) -> Errors {
        let off = net.features.tr().mv(&net.head) - &self.truth;
        let squared = |tensor: Tensor| tensor.square().sum(Kind::Double).double_value(&[]);
        Errors {
            inside: squared(self.span.mv(&off)),
            outside: squared(off),
        }
    }
}

#[test]
fn golden_g7_fine_tuning_from_the_probe_keeps_features() {
    // Small products: more threads would only wait for each other.
    tch::set_num_threads(1);
    let mut ratios = Vec::new();
    for seed in 0..10 {
        let (task, start) = Task::new(seed);
        let probe = task.train(&start, false);
        assert_eq!(probe.features, start.features);
        let [probed, tuned, both] = [
            task.errors(&probe),
            task.errors(&task.train(&start, true)),
            task.errors(&task.train(&probe, true)),
        ];
        // Each fits the training inputs as well as it can: features that train do better there …
        assert!(
            tuned.inside < 1e-6 && both.inside < 1e-6,
            "{tuned:?} {both:?}"
        );
        assert!(tuned.inside < probed.inside, "{seed}: {tuned:?} {probed:?}");
        // … and on other inputs far worse, but not from the probe.
        assert!(
            tuned.outside > 10.0 * probed.outside,
            "{seed}: {tuned:?} {probed:?}"
        );
        assert!(probed.outside > both.outside, "{seed}: {probed:?} {both:?}");
        ratios.push(tuned.outside / both.outside);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "fine-tuning's error over LP-FT's on other inputs: {:.0} to {:.0}, median {:.0}",
        ratios[0], ratios[9], ratios[4]
    );
    assert!(ratios[4] > 100.0, "{ratios:?}");
}
