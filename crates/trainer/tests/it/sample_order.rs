//! Which samples a run trains on, step after step: those of a run that was interrupted are those of
//! the straight run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use rehead_domain::{
    file::Split,
    progress::{Progress, Step, exit},
    recipe::{Head, HeadInit, HeadLayer, Recipe},
    sample_report::{SAMPLES, SampleRecord},
};

use crate::support::training::{Material, Trainer, parameters, recipe};

const EPOCHS: u32 = 3;

/// One sample a step, and nothing learns: a step's loss is that of its sample, and the sample
/// report names it.
fn recipe_of_single_samples(trainable: Vec<String>) -> Recipe {
    Recipe {
        trainable,
        head: Head {
            layers: vec![HeadLayer::LayerNorm],
            init: HeadInit::Normal,
        },
        batch_size: 1,
        learning_rate: 0.0,
        backbone_learning_rate: 0.0,
        n_epochs: EPOCHS,
        checkpoint_every_seconds: 0,
        ..recipe()
    }
}

/// The training samples and their losses, by the sample report of a finished run.
fn sample_report(run: &Trainer) -> Vec<(u32, f64)> {
    let text = fs::read_to_string(run.folder.join(SAMPLES)).unwrap();
    let records = text
        .lines()
        .map(|line| serde_json::from_str::<SampleRecord>(line).unwrap());
    records
        .filter(|record| record.split == Split::Train)
        .map(|record| (record.sample, record.loss))
        .collect()
}

/// Which sample has which loss, bit for bit, from the steps of one epoch: the sample report's,
/// smallest loss first, are the same but for rounding.
fn samples_by_loss(epoch: &[Step], mut sample_report: Vec<(u32, f64)>) -> BTreeMap<u64, u32> {
    let mut losses: Vec<f64> = epoch.iter().filter_map(|step| step.train_loss).collect();
    losses.sort_by(f64::total_cmp);
    sample_report.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    assert_eq!(losses.len(), sample_report.len());
    for (loss, (_, recorded)) in losses.iter().zip(&sample_report) {
        assert!(
            (loss - recorded).abs() < 1e-4,
            "{losses:?} {sample_report:?}"
        );
    }
    let named = losses.iter().zip(&sample_report);
    let named: BTreeMap<u64, u32> = named
        .map(|(loss, &(sample, _))| (loss.to_bits(), sample))
        .collect();
    assert_eq!(
        named.len(),
        sample_report.len(),
        "losses are alike: {losses:?}"
    );
    named
}

/// The sample of each step; steps are numbered without a gap.
fn log(steps: &[Step], samples: &BTreeMap<u64, u32>) -> Vec<u32> {
    let numbers = steps.iter().map(|step| step.step);
    assert!(
        numbers.eq(1..=steps.len() as u64),
        "steps are missing, or came twice: {steps:?}"
    );
    let sample = |step: &Step| samples[&step.train_loss.unwrap().to_bits()];
    steps.iter().map(sample).collect()
}

/// The steps that it tells of until `ends`, and what ended them.
fn steps_until(
    run: &mut Trainer,
    ends: impl Fn(&Progress) -> bool,
) -> (Vec<Step>, Option<Progress>) {
    let mut steps = Vec::new();
    while let Some(said) = run.next() {
        if ends(&said) {
            return (steps, Some(said));
        }
        if let Progress::Steps { steps: more, .. } = said {
            steps.extend(more);
        }
    }
    (steps, None)
}

fn the_same_samples(trainable: Vec<String>) {
    // No image of these is there twice.
    let material = Material::with("resnet18", &["buildings", "transportation"], 16);
    let mut plan = material.plan(recipe_of_single_samples(trainable));
    // The saves differ, and must not matter.
    let seldom = Recipe {
        checkpoint_every_seconds: recipe().checkpoint_every_seconds,
        ..plan.recipe.clone()
    };
    let mut straight = material.start("straight", &material.plan(seldom));
    let (steps, _) = steps_until(&mut straight, |_| false);
    let per_epoch = steps.len() / EPOCHS as usize;
    let samples = samples_by_loss(&steps[..per_epoch], sample_report(&straight));
    let expected = log(&steps, &samples);
    // Each epoch has each sample once, in an order of its own.
    let epochs: Vec<&[u32]> = expected.chunks(per_epoch).collect();
    assert_eq!(epochs.len(), EPOCHS as usize);
    for epoch in &epochs {
        assert_eq!(epoch.iter().collect::<BTreeSet<_>>().len(), per_epoch);
    }
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);

    // Killed in the middle of the first epoch, stopped in the second.
    let mut first = material.start("first", &plan);
    let middle = per_epoch as u64 / 2;
    let saved_from = |least| move |said: &Progress| matches!(said, Progress::Saved { step, .. } if *step >= least);
    let (mut steps, last) = steps_until(&mut first, saved_from(middle));
    let Some(Progress::Saved { step, folder, .. }) = last else {
        panic!("it ended before step {middle}: {steps:?}");
    };
    first.kill();
    assert_eq!((step, steps.len() as u64), (middle, middle));

    plan.resume = Some(first.folder.join(folder));
    let mut second = material.start("second", &plan);
    let (more, _) = steps_until(&mut second, saved_from(per_epoch as u64 + middle));
    steps.extend(more);
    second.interrupt();
    let (more, stopped) = steps_until(&mut second, |said| {
        matches!(said, Progress::Interrupted { .. })
    });
    steps.extend(more);
    assert_eq!(second.end().1.code(), Some(exit::YIELDED));
    let Some(Progress::Interrupted { step }) = stopped else {
        panic!("it did not stop: {steps:?}");
    };
    assert!(
        step < expected.len() as u64 && !step.is_multiple_of(per_epoch as u64),
        "it stopped at {step}, the end of an epoch"
    );

    plan.resume = Some(second.folder.join(format!("checkpoints/{step}")));
    let mut third = material.start("third", &plan);
    steps.extend(steps_until(&mut third, |_| false).0);
    assert_eq!(log(&steps, &samples), expected);
}

#[test]
fn f22_a_resumed_run_sees_the_same_samples() {
    the_same_samples(Vec::new());
}

#[test]
fn f22_a_resumed_run_over_images_sees_the_same_samples() {
    the_same_samples(parameters("resnet18", &["layer4.1."]));
}
