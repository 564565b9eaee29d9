//! Numbers that others have published or that follow from their formulas, for functions without
//! state.

use std::f64::consts::PI;

use rehead_domain::recipe::{Recipe, Schedule};
use rehead_trainer::train::{
    network::Network,
    step::{optimizer::Rates, schedule},
};
use serde_json::Value;
use tch::Device;

use crate::{
    inputs::recorded,
    support::training::{base_model, parameters, recipe},
};

fn factors(schedule: Schedule, warmup_fraction: f64, steps: u64) -> Vec<f64> {
    let recipe = Recipe {
        schedule,
        warmup_fraction,
        ..recipe()
    };
    let all = 1..=steps;
    all.map(|step| schedule::factor(&recipe, step, steps))
        .collect()
}

#[track_caller]
fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (step, (found, expected)) in (1..).zip(found.iter().zip(expected)) {
        assert!(
            (found - expected).abs() < 1e-12,
            "step {step}: {found}, {expected}"
        );
    }
}

/// At every step: what PyTorch's schedulers gave, and for one cycle fastai's form of it, two half
/// cosines that meet at the peak (`combined_cos` of `fastai/callback/schedule.py`), with PyTorch's
/// defaults in place of fastai's.
#[test]
fn golden_g15_cosine_and_one_cycle_are_pytorchs_at_every_step() {
    let recorded = recorded();
    let rates = |name: &str| {
        let by_steps = recorded[name].as_object().unwrap().clone();
        by_steps.into_iter().map(|(steps, rates)| {
            let rates: Vec<f64> = serde_json::from_value(rates).unwrap();
            (steps.parse::<u64>().unwrap(), rates)
        })
    };
    for (steps, rates) in rates("cosine") {
        close(&factors(Schedule::Cosine, 0.0, steps), &rates);
    }
    let half_cosine =
        |from: f64, to: f64, share: f64| from + (to - from) * (1.0 - (PI * share).cos()) / 2.0;
    for (steps, rates) in rates("one_cycle") {
        let found = factors(Schedule::OneCycle, 0.0, steps);
        close(&found, &rates);
        let peak = 0.3 * steps as f64 - 1.0;
        let combined = (0..steps).map(|place| {
            let place = place as f64;
            if place <= peak {
                half_cosine(1.0 / 25.0, 1.0, place / peak)
            } else {
                half_cosine(
                    1.0,
                    1.0 / 25e4,
                    (place - peak) / (steps as f64 - 1.0 - peak),
                )
            }
        });
        close(&found, &combined.collect::<Vec<_>>());
    }
}

/// A step schedule as BiT's (Kolesnikov et al. 2020, `bit_hyperrule.py`): a linear warm-up, then a
/// tenth at each mark. BiT has three marks of 500 steps, at 200, 300 and 400 after 100 of warm-up;
/// ours are half and three quarters of all steps.
#[test]
fn golden_g15_the_step_schedule_drops_to_a_tenth_at_its_marks() {
    for (steps, warmup) in [(500, 100), (480, 0), (7, 0), (1_000, 50)] {
        let found = factors(Schedule::Step, warmup as f64 / steps as f64, steps);
        let marks = [steps as f64 / 2.0, steps as f64 * 0.75];
        let expected = (1..=steps).map(|step| {
            if step <= warmup {
                return step as f64 / (warmup + 1) as f64;
            }
            let over = (step - 1) as f64;
            marks
                .iter()
                .filter(|&&mark| mark <= over)
                .fold(1.0, |rate, _| rate / 10.0)
        });
        close(&found, &expected.collect::<Vec<_>>());
    }
}

/// Shares of the head's rate at which each tensor of a whole network trains.
fn shares(name: &str, backbone: f64, layer_decay: f64) -> Vec<(String, f64)> {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe {
        trainable: parameters(name, &[""]),
        learning_rate: 1.0,
        backbone_learning_rate: backbone,
        layer_decay,
        ..recipe()
    };
    let base = base_model(name, folder.path());
    let network = Network::build(&base, &recipe, 3, Device::Cpu).unwrap();
    let rates = Rates::at(&recipe, 1.0);
    let parameters = network.parameters.iter();
    parameters
        .map(|one| (one.name.clone(), rates.of(one.group)))
        .collect()
}

/// timm's `param_groups_layer_decay` as recorded: the head at its full rate, each block before it
/// at a share of the next one's, the stem last. Ours is that with a stage for a layer: the same
/// numbers for a Vision Transformer, whose blocks are stages, but for the norm at its end, which
/// timm counts to the last block and we as a stage; for a ResNet timm's of the first block of each
/// stage, taken once for each.
#[test]
fn golden_g15_layer_decay_is_timms_with_a_stage_for_a_layer() {
    const SHARE: f64 = 0.75;
    let recorded = recorded();
    let timm = |network: &str, name: &str| {
        let scale: &Value = &recorded["layer_decay"][network][name];
        scale
            .as_f64()
            .unwrap_or_else(|| panic!("timm has no `{name}`"))
    };
    let vit = "vit_tiny_patch16_224";
    let found = shares(vit, 1.0, SHARE);
    assert_eq!(
        found.len(),
        recorded["layer_decay"][vit].as_object().unwrap().len()
    );
    for (name, share) in &found {
        let depth = match name.split('.').collect::<Vec<_>>()[..] {
            ["head" | "norm", ..] => 0,
            ["blocks", index, ..] => 12 - index.parse::<i32>().unwrap(),
            _ => 13,
        };
        assert!((share - SHARE.powi(depth)).abs() < 1e-12, "{name}: {share}");
        let published = timm(vit, name)
            / if name.starts_with("norm.") {
                SHARE
            } else {
                1.0
            };
        assert!(
            (share - published).abs() < 1e-12,
            "{name}: {share}, timm {published}"
        );
    }

    // Two blocks a stage: timm's share falls by the square of ours from stage to stage.
    let resnet = "resnet18";
    let found = shares(resnet, SHARE, SHARE);
    assert_eq!(
        found.len(),
        recorded["layer_decay"][resnet].as_object().unwrap().len()
    );
    for (name, share) in &found {
        let stage = name
            .strip_prefix("layer")
            .and_then(|rest| rest.split('.').next());
        let depth = match stage {
            Some(stage) => 5 - stage.parse::<i32>().unwrap(),
            None if name.starts_with("fc.") => 0,
            None => 5,
        };
        assert!((share - SHARE.powi(depth)).abs() < 1e-12, "{name}: {share}");
        let blocks_after = match name.split('.').collect::<Vec<_>>()[..] {
            ["fc", _] => 0,
            [layer, block, ..] if layer.starts_with("layer") => {
                2 * depth - block.parse::<i32>().unwrap()
            }
            _ => 9,
        };
        let published = timm(resnet, name);
        assert!(
            (SHARE.powi(blocks_after) - published).abs() < 1e-12,
            "{name}: {published}"
        );
    }
}
