//! A trainer that runs out of memory goes on in smaller batches, and says so; what it will need is
//! estimated.

use std::os::unix::process::ExitStatusExt as _;

use rehead_domain::{
    file::{Dataset, SplitSizes},
    job::Phase,
    job_plan::JobPlan,
    progress::{BatchSizePart, Progress, exit},
    recipe::{BatchNorm, Head, HeadInit, HeadLayer, Recipe, Task},
    work::TrainPlan,
};
use rehead_test_support::process::{limit_memory, resident_memory};
use rehead_trainer::models::{cost, registry};
use tch::{Device, nn};

use crate::support::{
    device,
    training::{Material, Trainer, input, parameters, recipe},
};

const MIB: u64 = 1 << 20;

/// Runs to its end with `bytes` more than it holds before its data are decoded.
fn limited(mut run: Trainer, bytes: u64) -> (Vec<Progress>, Option<i32>) {
    let preparing = Progress::Phase {
        phase: Phase::CachingFeatures,
    };
    run.until(|said| *said == preparing);
    limit_memory(run.pid(), bytes);
    let (said, ended) = run.end();
    (said, ended.code())
}

#[test]
fn too_little_memory_for_one_sample_is_an_error_with_a_code() {
    let material = Material::of("resnet101", 4);
    let whole = Recipe {
        trainable: parameters("resnet101", &["conv1", "bn1", "layer"]),
        batch_size: 8,
        ..recipe()
    };
    // Not even a copy of the backbone fits: 170 MB, whatever the batch.
    let (said, code) = limited(material.start("hopeless", &material.plan(whole)), 24 * MIB);
    let Some(Progress::Failed(failure)) = said.last() else {
        panic!("{said:?}");
    };
    assert_eq!((failure.code.as_str(), code), ("out_of_memory", Some(1)));
    assert!(failure.message.contains("freeze more"), "{failure:?}");
}

/// Activations are computed again before batches are halved, and the losses stay the same; where
/// oneDNN finds no memory for a kernel it takes another one, so that bits may differ. On a GPU,
/// whose memory a setting of the allocator limits (`scripts/device-check.sh`), batches may be
/// halved as well.
#[test]
fn activations_are_computed_again_before_batches_are_halved() {
    // Its activations take more than its weights.
    let name = "tf_efficientnet_lite0";
    let material = Material::of(name, 60);
    let whole = Recipe {
        trainable: parameters(name, &[""]),
        batch_size: 96,
        ..recipe()
    };
    let plan = material.plan(whole);
    let recomputes = |said: &[Progress]| said.contains(&Progress::Recomputes);
    let halves = |said: &[Progress]| {
        let what = BatchSizePart::Training;
        let mut said = said.iter();
        said.any(|one| matches!(one, Progress::BatchSizeReduced { what: it, .. } if *it == what))
    };
    if device::name() != "cpu" {
        let (said, ended) = material.start("limited", &plan).end();
        assert_eq!(ended.code(), Some(exit::DONE), "{said:?}");
        assert!(
            recomputes(&said) || halves(&said),
            "there was enough: {said:?}"
        );
        return;
    }
    let mut run = material.start("whole", &plan);
    let preparing = Progress::Phase {
        phase: Phase::CachingFeatures,
    };
    run.until(|said| *said == preparing);
    let before = resident_memory(run.pid());
    let (said, ended) = run.end();
    assert_eq!(ended.code(), Some(exit::DONE), "{said:?}");
    assert!(!recomputes(&said));
    let peak = said.iter().find_map(|one| match one {
        Progress::Used(usage) => usage.peak_bytes,
        _ => None,
    });
    let grown = peak.unwrap() - before;
    let losses = |said: &[Progress]| {
        let last = said.iter().rev().find_map(|one| match one {
            Progress::Evaluated { metrics, .. } => Some(metrics.valid_loss),
            _ => None,
        });
        last.unwrap()
    };
    let expected = losses(&said);
    let mut found = Vec::new();
    for percent in [80, 70, 60, 75, 65, 55, 50] {
        let mut run = material.start(&format!("with-{percent}"), &plan);
        run.until(|said| *said == preparing);
        limit_memory(run.pid(), grown * percent / 100);
        let (said, ended) = run.end();
        if ended.code() == Some(exit::DONE) && recomputes(&said) && !halves(&said) {
            let apart = (losses(&said) - expected).abs();
            assert!(
                apart < 1e-3 * expected,
                "{percent} % of {} MiB: {apart}",
                grown / MIB
            );
            return;
        }
        found.push((percent, ended.code(), said));
    }
    panic!(
        "recomputing never was enough: {found:?} of {} MiB",
        grown / MIB
    );
}

/// Weights that are read while memory runs out are not wrong: the job may be tried again.
#[test]
fn out_of_memory_while_reading_weights_is_not_invalid_weights() {
    let material = Material::of("resnet101", 4);
    let plan = material.plan(recipe());
    // Enough for nothing, for the network, and for a file of its weights (170 MB) too, but not for
    // tensors made of it.
    for more in [40, 250, 420] {
        let mut run = material.start(&format!("with-{more}"), &plan);
        run.until(|said| matches!(said, Progress::Ready { .. }));
        limit_memory(run.pid(), more * MIB);
        let (said, ended) = run.end();
        // Where not even some bytes are left, Rust ends the process with a message that the worker
        // knows (src/child.rs).
        if ended.signal() == Some(libc::SIGABRT) {
            continue;
        }
        let Some(Progress::Failed(failure)) = said.last() else {
            panic!("{more} MiB: {said:?}");
        };
        assert_eq!(
            (failure.code.as_str(), ended.code()),
            ("out_of_memory", Some(1)),
            "{more} MiB: {failure:?}"
        );
    }
}

/// A run begins with the batch size that fitted an earlier attempt: its steps are those of small
/// batches that add up.
#[test]
fn a_run_begins_with_the_batch_that_is_known_to_fit() {
    let material = Material::new(20);
    let asked = |batch_size, accumulate| Recipe {
        batch_size,
        accumulate,
        n_epochs: 3,
        learning_rate: 1e-5,
        head: Head {
            layers: vec![HeadLayer::Dropout(0.5), HeadLayer::BatchNorm],
            init: HeadInit::Normal,
        },
        ..recipe()
    };
    let result = |name: &str, plan: &TrainPlan| {
        let mut run = material.start(name, plan);
        let (said, ended) = run.end();
        assert_eq!(ended.code(), Some(exit::DONE), "{said:?}");
        run.result()
    };
    let whole = material.plan(asked(8, 1));
    let known = TrainPlan {
        micro_batch: Some(4),
        ..whole.clone()
    };
    let found = result("known", &known);
    assert_eq!(
        found,
        result("accumulated", &material.plan(asked(4, 2))),
        "not as if these batches had been asked for"
    );
    // The comparison can fail: other batches have other statistics.
    assert_ne!(found, result("whole", &whole));
}

/// The estimated memory of a plan above that of an idle trainer.
fn estimated(architecture: &str, recipe: &Recipe, side: u32) -> u64 {
    let architecture = registry::find(architecture).unwrap();
    let vs = nn::VarStore::new(Device::Cpu);
    let input = input(architecture, side);
    let mut layers = registry::layers(architecture, &input);
    layers.costs = cost::of_stages(&architecture.build(&vs.root(), &input), &input);
    let dataset = Dataset {
        modality: rehead_domain::input::Modality::Image,
        task: Task::SingleLabelClassification,
        target: None,
        classes: Vec::new(),
        samples: 160,
        splits: SplitSizes {
            train: 128,
            validation: 16,
            test: 16,
        },
        split_by: "hash".into(),
        unusable: 0,
        duplicates: 0,
    };
    let plan = JobPlan::of(recipe, &layers, &dataset, None).unwrap();
    let memory = plan.memory.unwrap();
    memory.peak_bytes - memory.process_bytes
}

#[test]
fn estimates_of_memory_are_within_a_factor_of_two() {
    for architecture in ["resnet18", "tf_efficientnet_lite0", "vit_tiny_patch16_224"] {
        let material = Material::sized(architecture, 50, 96);
        for batch_size in [16, 64] {
            let recipe = Recipe {
                trainable: parameters(architecture, &[""]),
                batch_size,
                batch_norm: BatchNorm::Update,
                ..recipe()
            };
            let estimated = estimated(architecture, &recipe, 96) >> 20;
            let mut run = material.start(&format!("by-{batch_size}"), &material.plan(recipe));
            run.until(|said| matches!(said, Progress::Ready { .. }));
            let before = resident_memory(run.pid());
            let used = run.until(|said| matches!(said, Progress::Used(_)));
            let Progress::Used(usage) = used else {
                unreachable!();
            };
            let grown = (usage.peak_bytes.unwrap() - before) >> 20;
            println!(
                "{architecture} by {batch_size}: {estimated} MiB estimated, {grown} MiB measured, {} MiB idle",
                before >> 20
            );
            let ratio = estimated as f64 / grown as f64;
            assert!(
                (0.5..2.0).contains(&ratio),
                "{architecture} by {batch_size}: {estimated} of {grown} MiB"
            );
        }
    }
}
