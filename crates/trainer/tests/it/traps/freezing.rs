//! Frozen parameters stay bit for bit; unfrozen ones join the optimizer once.

use rehead_domain::recipe::{BatchNorm, FreezePhase, Optimizer as Kind, Recipe};
use rehead_trainer::train::{network::Shard, step::optimizer::Optimizer};
use tch::Tensor;

use super::{build, copies, layer4, train_on_images};
use crate::support::{
    numbers,
    training::{parameters, recipe},
};

#[test]
fn trap_1_statistics_of_frozen_batch_norm_do_not_drift() {
    let recipe = layer4(BatchNorm::Update);
    let mut network = build(&recipe);
    let before = copies(&network);
    let mut optimizer = Optimizer::new(&recipe, &network.parameters);
    train_on_images(&mut network, &mut optimizer, &recipe, 1..=3);
    for (name, tensor) in copies(&network) {
        if name.contains("running_") {
            let moved = tensor != before[&name];
            assert_eq!(moved, name.starts_with("layer4."), "{name}");
        }
    }
}

#[test]
fn trap_2_frozen_features_do_not_depend_on_the_batch() {
    let recipe = Recipe {
        batch_norm: BatchNorm::Update,
        ..recipe()
    };
    let network = build(&recipe);
    let images = numbers::images("input-1", &[4, 3, 32, 32]);
    let others = Tensor::cat(&[images.narrow(0, 0, 1), images.narrow(0, 1, 3) * -3.0], 0);
    let first = |images: &Tensor| network.features_train(images, &Shard::whole(1)).get(0);
    assert_eq!(first(&images), first(&others));
    assert_ne!(
        network.features_train(&images, &Shard::whole(1)).get(1),
        network.features_train(&others, &Shard::whole(1)).get(1)
    );
}

#[test]
fn trap_3_frozen_weights_stay_under_decay_and_momentum() {
    for kind in [Kind::Sgd, Kind::Nesterov, Kind::Adamw] {
        let recipe = Recipe {
            optimizer: kind,
            gradient_clip: Some(1.0),
            ..layer4(BatchNorm::Frozen)
        };
        let mut network = build(&recipe);
        let before = copies(&network);
        let mut optimizer = Optimizer::new(&recipe, &network.parameters);
        train_on_images(&mut network, &mut optimizer, &recipe, 1..=2);
        for (name, tensor) in copies(&network) {
            let trains = network.parameters.iter().any(|one| one.name == name);
            assert_eq!(tensor != before[&name], trains, "{kind:?} {name}");
        }
        let state = optimizer.state();
        assert!(!state.iter().any(|(name, _)| name.contains("layer3")));
    }
}

/// Trains `layer4.1`, then `layer4.0` instead, then both, an epoch of one step each.
fn in_phases(kind: Kind) -> Recipe {
    let phase = |at_epoch, parts: &[&str]| FreezePhase {
        at_epoch,
        trainable: parameters("resnet18", parts),
    };
    Recipe {
        trainable: parameters("resnet18", &["layer4.1."]),
        later_phases: vec![phase(1, &["layer4.0."]), phase(2, &["layer4."])],
        optimizer: kind,
        weight_decay: 0.1,
        n_epochs: 3,
        ..recipe()
    }
}

#[test]
fn trap_4_freeze_schedules_stop_and_start_updates_once() {
    for kind in [Kind::Sgd, Kind::Adamw] {
        let recipe = in_phases(kind);
        let mut network = build(&recipe);
        let mut optimizer = Optimizer::new(&recipe, &network.parameters);
        train_on_images(&mut network, &mut optimizer, &recipe, 1..=1);
        let norm = |optimizer: &Optimizer, part: &str| {
            let state = optimizer.state().into_iter();
            let of_part = state.filter(|(name, _)| name.contains(part));
            let norms: Vec<f64> = of_part
                .map(|(_, tensor)| tensor.norm().double_value(&[]))
                .collect();
            (norms.len(), norms.iter().sum::<f64>())
        };

        assert!(optimizer.enter_phases(&mut network, &recipe, 2, 1).unwrap());
        let before = copies(&network);
        train_on_images(&mut network, &mut optimizer, &recipe, 2..=3);
        for (name, tensor) in copies(&network) {
            let trains = name.starts_with("layer4.0.") || name.starts_with("fc.");
            let trains = trains && !name.contains("running_");
            assert_eq!(tensor != before[&name], trains, "{kind:?} {name}");
        }
        assert_eq!(norm(&optimizer, "layer4.1.").0, 0);

        assert!(optimizer.enter_phases(&mut network, &recipe, 3, 1).unwrap());
        assert!(!optimizer.enter_phases(&mut network, &recipe, 3, 1).unwrap());
        let mut names: Vec<&String> = network.parameters.iter().map(|one| &one.name).collect();
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        let (fresh, kept) = (norm(&optimizer, "layer4.1."), norm(&optimizer, "layer4.0."));
        assert!(fresh.0 > 0 && fresh.1 == 0.0, "{fresh:?}");
        assert!(kept.1 > 0.0);
    }
}

#[test]
fn trap_5_tensors_of_equal_value_both_train() {
    let recipe = layer4(BatchNorm::Frozen);
    let mut network = build(&recipe);
    let equal = ["layer4.0.bn1.bias", "layer4.0.bn2.bias"];
    tch::no_grad(|| {
        for one in network.parameters.iter_mut() {
            if equal.contains(&one.name.as_str()) {
                let _ = one.tensor.fill_(0.25);
            }
        }
    });
    let mut optimizer = Optimizer::new(&recipe, &network.parameters);
    train_on_images(&mut network, &mut optimizer, &recipe, 1..=2);
    let after = copies(&network);
    for name in equal {
        assert_ne!(after[name], after[name].full_like(0.25), "{name}");
    }
}
