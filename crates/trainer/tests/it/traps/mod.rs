//! Mistakes of transfer learning that go unnoticed, each as a test that names it.

mod adapters;
mod batches;
mod best;
mod caches;
mod data;
mod failures;
mod freezing;
mod head;
mod inputs;
mod losses;
mod options;
mod parents;
mod precision;
mod rates;
mod texts;
mod views;

use std::{collections::BTreeMap, ops::RangeInclusive, path::Path};

use rehead_domain::{
    progress::{Progress, exit},
    recipe::{BatchNorm, Recipe},
    work::{PlanModel, PlanWeights},
};
use rehead_trainer::{
    models::{pass::Statistics, registry},
    train::{
        input::{
            inputs::{Features, Inputs},
            samples::{Samples, Targets},
        },
        network::{Network, Shard},
        step::{
            gradients::{Criterion, Window},
            loss_functions,
            objective::Objective,
            optimizer::{self, Optimizer, Rates},
            schedule,
        },
    },
};
use tch::{Device, Tensor};

use crate::support::{
    numbers,
    training::{Material, base_model_for, input, parameters, recipe},
};

const CLASSES: usize = 3;

const SAMPLES: usize = 32;

/// Side of the images made up here, in pixels: a multiple of each network's patches.
const SIDE: u32 = 32;

/// The criterion for samples with these labels.
fn criterion(recipe: &Recipe, labels: &[usize]) -> Criterion {
    let samples = Samples {
        sources: Vec::new(),
        classes: (0..CLASSES).map(|class| class.to_string()).collect(),
        targets: Targets::Class(labels.to_vec()),
        train: (0..labels.len()).collect(),
        validation: Vec::new(),
        test: Vec::new(),
    };
    Criterion::new(recipe, Objective::new(recipe, &samples, Device::Cpu))
}

fn build(recipe: &Recipe) -> Network {
    build_of("resnet18", SIDE, recipe)
}

/// For images of this side.
fn build_of(architecture: &str, side: u32, recipe: &Recipe) -> Network {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let architecture = registry::find(architecture).unwrap();
    let base = base_model_for(architecture, &input(architecture, side), folder.path());
    Network::build(&base, recipe, CLASSES, Device::Cpu).unwrap()
}

/// A parent's weights, or those that a checkpoint changes, over a base model's.
fn over(base: &PlanModel, weights: &Path, whole: bool) -> PlanModel {
    PlanModel {
        over: vec![PlanWeights {
            weights: weights.to_owned(),
            sha256: "5".repeat(64),
            whole,
        }],
        ..base.clone()
    }
}

fn copies(network: &Network) -> BTreeMap<String, Tensor> {
    let tensors = network.tensors().into_iter();
    tensors
        .map(|(name, tensor)| (name, tensor.copy()))
        .collect()
}

fn targets(samples: usize) -> Tensor {
    let labels: Vec<i64> = (0..samples).map(|i| (i % CLASSES) as i64).collect();
    Tensor::from_slice(&labels)
}

/// Gradients of four images in step `step`, in parameter order.
fn gradients_on(network: &Network, recipe: &Recipe, images: &Tensor, step: u64) -> Vec<Tensor> {
    let shard = Shard::whole(step);
    let logits = network.logits_train(&network.features_train(images, &shard), &shard);
    let loss = loss_functions::cross_entropy(&logits, &targets(4), None, recipe.label_smoothing);
    let gradients = optimizer::gradients(&loss, &network.parameters).unwrap();
    Statistics::keep([shard.statistics]);
    gradients
}

/// Trains on small images for these steps, at the peak rates.
fn train_on_images(
    network: &mut Network,
    optimizer: &mut Optimizer,
    recipe: &Recipe,
    steps: RangeInclusive<u64>,
) {
    train_on(network, optimizer, recipe, i64::from(SIDE), steps);
}

/// The same with images of this side.
fn train_on(
    network: &mut Network,
    optimizer: &mut Optimizer,
    recipe: &Recipe,
    side: i64,
    steps: RangeInclusive<u64>,
) {
    for step in steps {
        let images = numbers::images(&format!("input-{step}"), &[4, 3, side, side]);
        let gradients = gradients_on(network, recipe, &images, step);
        optimizer.step(
            &mut network.parameters,
            gradients,
            step,
            Rates::at(recipe, 1.0),
        );
    }
}

/// The head after `steps` steps over `SAMPLES` made-up features, with its averages where the recipe
/// keeps some.
fn train_head(recipe: &Recipe, steps: u64) -> BTreeMap<String, Tensor> {
    let mut network = build(recipe);
    let mut optimizer = Optimizer::new(recipe, &network.parameters);
    let features = numbers::images("features", &[SAMPLES as i64, network.feature_dim]);
    let labels: Vec<usize> = (0..SAMPLES).map(|i| (i * i) % CLASSES).collect();
    let criterion = criterion(recipe, &labels);
    let inputs = Inputs::Features(Features::new(features, 0, &[]));
    let members: Vec<usize> = (0..SAMPLES).collect();
    let size = (recipe.batch_size * recipe.accumulate) as usize;
    for step in 1..=steps {
        let start = (step as usize - 1) % SAMPLES.div_ceil(size) * size;
        let window = Window {
            members: &members[start..(start + size).min(SAMPLES)],
            step,
            epoch: 1,
        };
        let (_, gradients) = criterion.gradients(&network, &inputs, window).unwrap();
        let rates = Rates::at(recipe, schedule::factor(recipe, step, steps));
        optimizer.step(&mut network.parameters, gradients, step, rates);
    }
    optimizer.swap_averages(&mut network.parameters);
    let head = network.changing().into_iter();
    head.map(|(name, tensor)| (name, tensor.copy())).collect()
}

fn layer4(batch_norm: BatchNorm) -> Recipe {
    Recipe {
        trainable: parameters("resnet18", &["layer4."]),
        batch_norm,
        weight_decay: 0.1,
        ..recipe()
    }
}

/// The losses that a run says, an epoch each.
fn evaluations(material: &Material, name: &str, recipe: Recipe) -> Vec<(f64, f64)> {
    let mut run = material.start(name, &material.plan(recipe));
    let (said, ended) = run.end();
    assert_eq!(ended.code(), Some(exit::DONE), "{said:?}");
    let evaluated = said.iter().filter_map(|said| match said {
        Progress::Evaluated { metrics, .. } => Some((metrics.train_loss?, metrics.valid_loss)),
        _ => None,
    });
    evaluated.collect()
}
