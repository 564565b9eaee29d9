//! Runs that cannot train end with a code.

use rehead_domain::{
    progress::Progress,
    recipe::{Head, HeadInit, Recipe},
};
use tch::Tensor;

use super::evaluations;
use crate::support::training::{Material, recipe};

#[test]
fn trap_26_what_cannot_train_is_an_error_with_a_code() {
    let material = Material::new(10);
    let boundless = Recipe {
        learning_rate: 3e38,
        n_epochs: 5,
        ..recipe()
    };
    let mut run = material.start("boundless", &material.plan(boundless));
    let (said, _) = run.end();
    let Some(Progress::Failed(failure)) = said.last() else {
        panic!("{said:?}");
    };
    assert_eq!(failure.code, "diverged");
    // Clipping where nothing but the head trains, and a batch of more samples than there are, are
    // no errors.
    let lone = Recipe {
        gradient_clip: Some(1.0),
        batch_size: 1_000,
        ..recipe()
    };
    assert_eq!(evaluations(&material, "lone", lone).len(), 1);
}

/// Weights that are finite but absurd: advice on the learning rate would mislead.
#[test]
fn features_that_are_not_finite_blame_the_base_model() {
    let material = Material::new(10);
    let mut plan = material.plan(recipe());
    let mut weights = Tensor::read_safetensors(&plan.base_model.weights).unwrap();
    let first = weights.iter_mut().find(|(name, _)| name == "conv1.weight");
    let (_, first) = first.unwrap();
    *first = first.full_like(3e38);
    let absurd = plan.base_model.weights.with_file_name("absurd.safetensors");
    Tensor::write_safetensors(&weights, &absurd).unwrap();
    plan.base_model.weights = absurd;
    let (said, _) = material.start("absurd", &plan).end();
    let Some(Progress::Failed(failure)) = said.last() else {
        panic!("{said:?}");
    };
    assert_eq!(failure.code, "invalid_weights");
    assert!(
        failure.message.contains("features that are not finite"),
        "{failure:?}"
    );
}

/// SGD's decay of 10 at a rate of 100 makes each weight a thousand times larger in each step:
/// finite at first, not for long.
#[test]
fn trap_26_what_a_run_that_diverges_has_saved_is_finite() {
    let material = Material::new(10);
    let head = Head {
        layers: Vec::new(),
        init: HeadInit::Normal,
    };
    let growing = Recipe {
        head,
        n_epochs: 200,
        learning_rate: 100.0,
        weight_decay: 10.0,
        gradient_clip: Some(1.0),
        checkpoint_every_seconds: 0,
        ..recipe()
    };
    let mut run = material.start("growing", &material.plan(growing));
    let (said, _) = run.end();
    let Some(Progress::Failed(failure)) = said.last() else {
        panic!("{said:?}");
    };
    assert_eq!(failure.code, "diverged");
    let saved = said.iter().filter_map(|said| match said {
        Progress::Saved { step, .. } => Some(*step),
        _ => None,
    });
    // Every step before that one is saved.
    let next = format!("step {}", saved.max().unwrap() + 1);
    assert!(failure.message.contains(&next), "{next}: {failure:?}");
    let path = run.newest_checkpoint().join("model.safetensors");
    let tensors = Tensor::read_safetensors(path).unwrap();
    assert!(!tensors.is_empty());
    for (name, tensor) in tensors {
        assert_eq!(tensor.isfinite().all().int64_value(&[]), 1, "{name}");
    }
}
