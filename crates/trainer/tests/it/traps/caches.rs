//! Caches: an entry is used only for what it was made from.

use std::{collections::BTreeSet, fs};

use rehead_domain::{
    base_model::{Interpolation, Preprocessing},
    input::Input,
    progress::{Progress, exit},
    recipe::{Precision, Recipe},
    work::TrainPlan,
};
use rehead_trainer::models::inference::has_bfloat16;
use tch::Device;

use crate::support::training::{Material, Trainer, parameters, recipe};

fn image(plan: &mut TrainPlan) -> &mut Preprocessing {
    match &mut plan.base_model.input {
        Input::Image(preprocessing) => preprocessing,
        Input::Text(_) => panic!("the base model reads text"),
    }
}

fn ended_well(run: &mut Trainer) -> Vec<Progress> {
    let (said, ended) = run.end();
    assert_eq!(ended.code(), Some(exit::DONE), "{said:?}");
    said
}

#[test]
fn trap_10_the_cache_key_has_data_weights_preprocessing_and_cut() {
    let material = Material::new(10);
    let plan = material.plan(recipe());
    let entries = || -> BTreeSet<String> {
        let names = fs::read_dir(&plan.cache).unwrap();
        names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    ended_well(&mut material.start("first", &plan));
    let mut known = entries();
    assert_eq!(known.len(), 1, "{known:?}");
    ended_well(&mut material.start("again", &plan));
    assert_eq!(entries(), known, "the same features were computed twice");

    // The pack's and the weights' paths stay: only what is in them counts.
    type Change = fn(&mut TrainPlan);
    let changes: [(&str, Change); 7] = [
        ("number format", |plan| {
            plan.recipe.features_precision = Precision::Bfloat16;
        }),
        ("bytes", |plan| plan.pack_sha256 = "2".repeat(64)),
        ("weights", |plan| {
            plan.base_model.weights_sha256 = "3".repeat(64)
        }),
        ("size", |plan| image(plan).input_size = 32),
        ("filter", |plan| {
            let filter = &mut image(plan).interpolation;
            *filter = match filter {
                Interpolation::Bilinear => Interpolation::Bicubic,
                Interpolation::Bicubic => Interpolation::Bilinear,
            };
        }),
        ("mean", |plan| image(plan).mean.to_mut()[0] += 0.1),
        ("cut", |plan| plan.recipe.cut = "layer3".to_owned()),
    ];
    for (name, change) in changes {
        let mut plan = plan.clone();
        change(&mut plan);
        let said = ended_well(&mut material.start(name, &plan));
        let found = entries();
        // A processor without bfloat16 says so, and has the features of float32.
        let in_float32 = name == "number format" && !has_bfloat16(Device::Cpu);
        assert_eq!(said.contains(&Progress::FeaturesInFloat32), in_float32);
        let new = usize::from(!in_float32);
        assert_eq!(found.len(), known.len() + new, "{name}: {found:?}");
        known = found;
    }
}

#[test]
fn trap_23_killed_after_any_step_it_ends_the_same() {
    let material = Material::new(10);
    let recipe = Recipe {
        trainable: parameters("resnet18", &["layer4.1."]),
        n_epochs: 3,
        batch_size: 8,
        ..recipe()
    };
    let mut straight = material.start("straight", &material.plan(recipe.clone()));
    ended_well(&mut straight);
    let mut plan = material.plan(Recipe {
        checkpoint_every_seconds: 0,
        ..recipe
    });
    // Each run is killed after its first new step, and the next one goes on from there.
    let mut last = 0;
    for round in 0.. {
        let mut run = material.start(&format!("round-{round}"), &plan);
        let said = run.until(|said| match said {
            Progress::Saved { step, .. } => *step > last,
            Progress::Finished { .. } => true,
            _ => false,
        });
        let Progress::Saved { step, .. } = said else {
            assert!(round > 2, "it was killed {round} times only");
            assert_eq!(run.result(), straight.result());
            return;
        };
        last = step;
        run.kill();
        plan.resume = Some(run.newest_checkpoint());
    }
}

#[test]
fn trap_30_two_trainers_side_by_side_compute_the_same() {
    let material = Material::new(20);
    let plan = |cache: &str| {
        let mut plan = material.plan(Recipe {
            trainable: parameters("resnet18", &["layer4."]),
            n_epochs: 2,
            learning_rate: 1e-3,
            backbone_learning_rate: 1e-4,
            gradient_clip: Some(0.1),
            ..recipe()
        });
        plan.cache = plan.cache.join(cache);
        plan
    };
    let mut alone = material.start("alone", &plan("alone"));
    ended_well(&mut alone);
    let mut both = ["one", "other"].map(|name| material.start(name, &plan(name)));
    for run in &mut both {
        ended_well(run);
    }
    for run in &both {
        assert_eq!(run.result(), alone.result());
    }
}
