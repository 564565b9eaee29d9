//! A run that was stopped or killed, and goes on in another process, ends where the uninterrupted
//! one does: bit for bit.

use std::{fs, path::PathBuf};

use rehead_domain::{
    augmentation::{Augmentation, ColorJitter, RandAugment, RandomResizedCrop},
    progress::{Failure, Progress, exit},
    recipe::{
        BatchNorm, EarlyStopping, EvaluateEvery, FreezePhase, Head, HeadInit, HeadLayer, Optimizer,
        Precision, Recipe, Schedule,
    },
    work::TrainPlan,
};

use serde_json::json;

use crate::support::training::{Material, Trainer, adapter, inherits, over, parameters, recipe};

fn phase(at_epoch: u32, parts: &[&str]) -> FreezePhase {
    FreezePhase {
        at_epoch,
        trainable: parameters("resnet18", parts),
    }
}

fn everything() -> Augmentation {
    Augmentation {
        random_resized_crop: Some(RandomResizedCrop::default()),
        horizontal_flip: 0.5,
        color_jitter: Some(ColorJitter {
            brightness: 0.4,
            contrast: 0.4,
            saturation: 0.4,
            hue: 0.1,
        }),
        rand_augment: Some(RandAugment::default()),
        random_erasing: 0.25,
    }
}

/// Everything that has a state or a random choice: dropout, warm-up, a schedule, clipping,
/// BatchNorm that learns, averaged weights, altered images, mixed samples, a freeze schedule.
fn eventful(optimizer: Optimizer) -> Recipe {
    Recipe {
        trainable: Vec::new(),
        later_phases: vec![
            phase(2, &["layer4.1."]),
            phase(4, &["layer3.1.", "layer4.1.conv2."]),
        ],
        head: Head {
            layers: vec![HeadLayer::BatchNorm, HeadLayer::Dropout(0.3)],
            init: HeadInit::Normal,
        },
        n_epochs: 6,
        optimizer,
        weight_decay: 0.01,
        schedule: Schedule::Cosine,
        warmup_fraction: 0.2,
        label_smoothing: 0.1,
        augmentation: Some(everything()),
        augmented_views: 2,
        mixup: 0.4,
        cutmix: 1.0,
        gradient_clip: Some(1.0),
        class_weights: Some(vec![1.0, 2.0]),
        batch_size: 4,
        accumulate: 2,
        ema_decay: Some(0.9),
        layer_decay: 0.8,
        batch_norm: BatchNorm::Update,
        // An epoch has four steps.
        evaluate_every: EvaluateEvery::Steps(5),
        ..recipe()
    }
}

fn step_of(said: &Progress) -> Option<u64> {
    match said {
        Progress::Saved { step, .. } | Progress::Interrupted { step } => Some(*step),
        _ => None,
    }
}

fn same_after_a_stop_and_a_kill(recipe: &Recipe) {
    same_on(&Material::new(20), recipe);
}

/// Returns the checkpoint that was killed after, and the uninterrupted run.
fn same_on(material: &Material, recipe: &Recipe) -> (PathBuf, Trainer) {
    let mut straight = material.start("straight", &material.plan(recipe.clone()));
    let (said, ended) = straight.end();
    assert_eq!(ended.code(), Some(exit::DONE), "{said:?}");

    // The saves differ, and must not matter.
    let often = Recipe {
        checkpoint_every_seconds: 0,
        ..recipe.clone()
    };
    let mut plan = material.plan(often);
    let mut first = material.start("first", &plan);
    first.until(|said| matches!(said, Progress::Saved { step, .. } if *step >= 4));
    first.kill();
    let killed_at = first.newest_checkpoint();

    plan.resume = Some(killed_at.clone());
    let mut second = material.start("second", &plan);
    second.until(|said| matches!(said, Progress::Saved { step, .. } if *step >= 9));
    second.interrupt();
    let (said, ended) = second.end();
    assert_eq!(ended.code(), Some(exit::YIELDED), "{said:?}");
    let stopped_at = said.iter().filter_map(step_of).max().unwrap();
    assert!(stopped_at < 24, "it had ended already: {stopped_at}");

    plan.resume = Some(second.newest_checkpoint());
    assert_ne!(plan.resume.as_ref(), Some(&killed_at));
    let mut third = material.start("third", &plan);
    let (said, ended) = third.end();
    assert_eq!(ended.code(), Some(exit::DONE), "{said:?}");
    assert_eq!(third.result(), straight.result());

    // The comparison can fail: another seed is another run.
    let other = Recipe {
        seed: 8,
        ..recipe.clone()
    };
    let mut other = material.start("other", &material.plan(other));
    assert_eq!(other.end().1.code(), Some(exit::DONE));
    assert_ne!(other.result(), straight.result());
    (killed_at, straight)
}

/// The third way: a checkpoint's weights and about the epochs that were left, without moments,
/// counters and averages. What a resumed run does besides loading weights must matter.
fn other_after_a_cold_start(optimizer: Optimizer) {
    let material = Material::new(20);
    let recipe = eventful(optimizer);
    let (checkpoint, straight) = same_on(&material, &recipe);
    let done = 1;
    let left = Recipe {
        n_epochs: recipe.n_epochs - done,
        later_phases: recipe
            .later_phases
            .iter()
            .map(|phase| FreezePhase {
                at_epoch: phase.at_epoch - done,
                ..phase.clone()
            })
            .collect(),
        inherited: inherits(&["animals", "food"], 2),
        ..recipe
    };
    let mut plan = material.plan(left);
    plan.base_model.over = vec![over(&checkpoint.join("model.safetensors"), false)];
    let mut cold = material.start("cold", &plan);
    let (said, ended) = cold.end();
    assert_eq!(ended.code(), Some(exit::DONE), "{said:?}");
    let weights = |run: &Trainer| run.result().remove("bundle/model.safetensors");
    assert_ne!(weights(&cold), weights(&straight));
}

#[test]
fn sgd_resumes_exactly_and_a_cold_start_does_not() {
    other_after_a_cold_start(Optimizer::Sgd);
}

#[test]
fn adamw_resumes_exactly_and_a_cold_start_does_not() {
    other_after_a_cold_start(Optimizer::Adamw);
}

#[test]
fn bfloat16_resumes_exactly() {
    same_after_a_stop_and_a_kill(&Recipe {
        precision: Precision::Bfloat16,
        ..eventful(Optimizer::Adamw)
    });
}

/// Everything that has a state or a random choice, with adapters' first weights and dropout.
#[test]
fn adapters_resume_exactly() {
    let architecture = "vit_tiny_patch16_224";
    let adapter = adapter(
        architecture,
        json!({"rank": 4, "alpha": 16, "dropout": 0.2}),
    );
    let recipe = Recipe {
        trainable: adapter.tensors(),
        later_phases: Vec::new(),
        adapter: Some(adapter),
        batch_norm: BatchNorm::Frozen,
        augmented_views: 0,
        ..eventful(Optimizer::Adamw)
    };
    same_on(&Material::of(architecture, 20), &recipe);
}

/// The head of a resumed run comes from its checkpoint, not from the probe. Training at these rates
/// does not better the probe soon, so that checkpoints hold it as the best.
#[test]
fn a_run_from_the_probe_resumes_exactly() {
    let recipe = eventful(Optimizer::Adamw);
    same_after_a_stop_and_a_kill(&Recipe {
        head: Head {
            init: HeadInit::Probe,
            ..recipe.head
        },
        ..recipe
    });
}

/// Rates that ruin any head: what is left to report is the probe itself, from step 0, also after a
/// stop.
#[test]
fn training_only_improves_on_the_probe() {
    let material = Material::new(20);
    let ruinous = Recipe {
        head: Head {
            layers: vec![HeadLayer::Dropout(0.9)],
            init: HeadInit::Probe,
        },
        n_epochs: 400,
        learning_rate: 50.0,
        ..recipe()
    };
    let mut straight = material.start("straight", &material.plan(ruinous.clone()));
    let (said, ended) = straight.end();
    assert_eq!(ended.code(), Some(exit::DONE), "{said:?}");
    assert!(
        matches!(said.last(), Some(Progress::Finished { best_step: 0, .. })),
        "{:?}",
        said.last()
    );

    let mut plan = material.plan(Recipe {
        checkpoint_every_seconds: 0,
        ..ruinous
    });
    let mut first = material.start("first", &plan);
    first.until(|said| matches!(said, Progress::Saved { .. }));
    first.kill();
    plan.resume = Some(first.newest_checkpoint());
    let mut second = material.start("second", &plan);
    let (said, ended) = second.end();
    assert_eq!(ended.code(), Some(exit::DONE), "{said:?}");
    let probed =
        |said: &Progress| matches!(said, Progress::Evaluated { metrics, .. } if metrics.step == 0);
    assert!(!said.iter().any(probed), "the probe ran again");
    assert_eq!(second.result(), straight.result());
}

/// Over a frozen backbone an epoch takes milliseconds: it is stopped wherever that happens to be.
#[test]
fn a_frozen_backbone_resumes_exactly() {
    let frozen = Recipe {
        later_phases: Vec::new(),
        n_epochs: 400,
        batch_norm: BatchNorm::Frozen,
        ..eventful(Optimizer::Adamw)
    };
    let material = Material::new(20);
    let mut straight = material.start("straight", &material.plan(frozen.clone()));
    assert_eq!(straight.end().1.code(), Some(exit::DONE));
    let mut plan = material.plan(Recipe {
        checkpoint_every_seconds: 0,
        ..frozen
    });
    let mut first = material.start("first", &plan);
    first.until(|said| matches!(said, Progress::Saved { .. }));
    first.interrupt();
    let (said, ended) = first.end();
    assert_eq!(ended.code(), Some(exit::YIELDED), "{said:?}");
    plan.resume = Some(first.newest_checkpoint());
    let mut second = material.start("second", &plan);
    assert_eq!(second.end().1.code(), Some(exit::DONE));
    assert_eq!(second.result(), straight.result());
}

/// At a rate of 0 nothing is gained after the first epoch. How long there was no gain is counted on
/// after a kill.
#[test]
fn patience_ends_a_run_at_the_same_step_after_a_kill() {
    let material = Material::new(20);
    let patient = Recipe {
        learning_rate: 0.0,
        n_epochs: 400,
        early_stopping: EarlyStopping {
            patience: Some(40),
            ..recipe().early_stopping
        },
        ..recipe()
    };
    let end = |run: &mut Trainer| {
        let (said, ended) = run.end();
        assert_eq!(ended.code(), Some(exit::DONE), "{said:?}");
        let last = said.iter().rev().find_map(|said| match said {
            Progress::Evaluated { metrics, .. } => Some((metrics.epoch, metrics.step)),
            _ => None,
        });
        let Some(Progress::Finished {
            best_step,
            stopped_early,
        }) = said.last()
        else {
            panic!("{said:?}");
        };
        (last.unwrap(), *best_step, *stopped_early)
    };
    let mut straight = material.start("straight", &material.plan(patient.clone()));
    let ended = end(&mut straight);
    let ((epoch, step), best_step, stopped_early) = ended;
    assert!(
        stopped_early && epoch == 41 && step == 41 * best_step,
        "{ended:?}"
    );

    let mut plan = material.plan(Recipe {
        checkpoint_every_seconds: 0,
        ..patient
    });
    let mut first = material.start("first", &plan);
    first.until(|said| matches!(said, Progress::Saved { step, .. } if *step >= 8));
    first.kill();
    plan.resume = Some(first.newest_checkpoint());
    let mut second = material.start("second", &plan);
    assert_eq!(end(&mut second), ended);
    assert_eq!(second.result(), straight.result());
}

/// A checkpoint of other data, weights or options is refused with the difference.
#[test]
fn a_checkpoint_of_another_run_is_refused_by_name() {
    let material = Material::new(10);
    let plan = material.plan(recipe());
    let mut run = material.start("run", &plan);
    assert_eq!(run.end().1.code(), Some(exit::DONE));
    let resume = Some(run.newest_checkpoint());
    let failure = |name: &str, change: fn(&mut TrainPlan)| -> Failure {
        let mut plan = plan.clone();
        plan.resume.clone_from(&resume);
        change(&mut plan);
        let mut run = material.start(name, &plan);
        let (said, ended) = run.end();
        let Some(Progress::Failed(failure)) = said.last() else {
            panic!("{said:?}");
        };
        let code = if failure.retryable {
            1
        } else {
            exit::PERMANENT
        };
        assert_eq!(ended.code(), Some(code));
        failure.clone()
    };
    let other_data = failure("other-data", |plan| plan.pack_sha256 = "2".repeat(64));
    let other_weights = failure("other-weights", |plan| {
        plan.base_model.weights_sha256 = "3".repeat(64);
    });
    let other_rate = failure("other-rate", |plan| plan.recipe.learning_rate = 0.5);
    let other_decay = failure("other-decay", |plan| plan.recipe.weight_decay = 0.5);
    for (found, word) in [
        (&other_data, "data"),
        (&other_weights, "weights"),
        (&other_rate, "learning rate"),
        (&other_decay, "recipe"),
    ] {
        assert!(
            found.message.contains(word) && !found.retryable,
            "not about its {word}: {found:?}"
        );
    }

    // A damaged one is noticed before it is used.
    let weights = resume.as_ref().unwrap().join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let damaged = failure("damaged", |_| {});
    assert!(
        damaged.message.contains("model.safetensors") && damaged.code == "checkpoint_corrupt",
        "{damaged:?}"
    );
}

/// While the backbone trains, a batch runs in parts whose number follows from the recipe, so that
/// another machine with other cores continues a run exactly.
#[test]
fn number_of_threads_does_not_change_the_result() {
    let material = Material::new(20);
    let recipe = Recipe {
        trainable: parameters("resnet18", &["layer3.1.", "layer4."]),
        n_epochs: 4,
        batch_size: 20,
        shards: 2,
        optimizer: Optimizer::Adamw,
        learning_rate: 1e-3,
        augmentation: Some(everything()),
        mixup: 0.4,
        gradient_clip: Some(1.0),
        ema_decay: Some(0.9),
        checkpoint_every_seconds: 0,
        ..recipe()
    };
    let plan = |threads| TrainPlan {
        threads,
        // Each computes its own features.
        cache: material.dir.path().join(format!("cache-{threads}")),
        ..material.plan(recipe.clone())
    };
    let mut one = material.start("one", &plan(1));
    assert_eq!(one.end().1.code(), Some(exit::DONE));
    let mut two = material.start("two", &plan(2));
    assert_eq!(two.end().1.code(), Some(exit::DONE));
    assert_eq!(two.result(), one.result());

    let mut killed = material.start("killed", &plan(2));
    killed.until(|said| matches!(said, Progress::Saved { step, .. } if *step >= 3));
    killed.kill();
    let resumed = TrainPlan {
        resume: Some(killed.newest_checkpoint()),
        ..plan(1)
    };
    let mut resumed = material.start("resumed", &resumed);
    assert_eq!(resumed.end().1.code(), Some(exit::DONE));
    assert_eq!(resumed.result(), one.result());
}

/// Trains by `recipe` with each of these numbers of threads, and finds the same bits.
fn assert_same_with(threads: &[u32], material: &Material, recipe: &Recipe) {
    let result = |&threads: &u32| {
        let plan = TrainPlan {
            threads,
            // Each computes its own features.
            cache: material.dir.path().join(format!("cache-{threads}")),
            ..material.plan(recipe.clone())
        };
        let mut run = material.start(&format!("with-{threads}"), &plan);
        assert_eq!(run.end().1.code(), Some(exit::DONE), "{threads} threads");
        run.result()
    };
    let (first, rest) = threads.split_first().unwrap();
    let expected = result(first);
    for threads in rest {
        assert!(result(threads) == expected, "{threads} threads");
    }
}

/// As many threads as a batch of 128 has parts.
#[test]
fn four_threads_give_the_bits_of_one() {
    let recipe = Recipe {
        trainable: parameters("resnet18", &["layer4."]),
        n_epochs: 2,
        batch_size: 128,
        shards: 4,
        optimizer: Optimizer::Adamw,
        ..recipe()
    };
    assert_same_with(&[1, 2, 4], &Material::new(90), &recipe);
}

/// More threads than parts: statistics of two parts of 20 and of one, and dropout.
#[test]
fn threads_do_not_change_batch_statistics_or_dropout() {
    let recipe = Recipe {
        trainable: parameters("resnet18", &["layer4."]),
        head: Head {
            layers: vec![HeadLayer::Dropout(0.3), HeadLayer::BatchNorm],
            init: HeadInit::Normal,
        },
        n_epochs: 2,
        batch_size: 40,
        shards: 2,
        batch_norm: BatchNorm::Update,
        gradient_clip: Some(1.0),
        ..recipe()
    };
    assert_eq!(
        [40, 39, 19].map(|samples| recipe.shards_of(samples)),
        [2, 1, 1]
    );
    assert_same_with(&[1, 4], &Material::new(46), &recipe);
}

/// A head alone, on features and on views of each epoch, from the probe.
#[test]
fn threads_do_not_change_a_head() {
    let features = Recipe {
        head: Head {
            layers: vec![],
            init: HeadInit::Probe,
        },
        n_epochs: 3,
        batch_size: 32,
        optimizer: Optimizer::Adamw,
        gradient_clip: Some(1.0),
        ..recipe()
    };
    let views = Recipe {
        augmentation: Some(everything()),
        mixup: 0.2,
        later_phases: vec![phase(2, &["layer4.1."])],
        ..features.clone()
    };
    for recipe in [features, views] {
        assert_same_with(&[1, 4], &Material::new(40), &recipe);
    }
}
