//! PendingLosses in closed form, and what they are taken of.

use rehead_domain::recipe::{BatchNorm, Head, HeadInit, HeadLayer, Recipe};
use rehead_trainer::train::{
    input::{
        inputs::{Features, Inputs},
        mix::Mixing,
    },
    step::{gradients::Window, loss_functions},
};
use tch::{Kind as Number, Tensor};

use super::{CLASSES, build, criterion, evaluations, layer4};
use crate::support::{
    numbers,
    training::{Material, recipe},
};

#[test]
fn trap_31_smoothing_with_class_weights_is_the_closed_form() {
    let rows = [[2.0f64, -1.0, 0.5], [0.0, 3.0, 1.0], [1.0, 1.0, -2.0]];
    let (labels, weights, smoothing) = ([0usize, 2, 1], [0.5f64, 1.0, 4.0], 0.1);
    let (mut sum, mut total) = (0.0, 0.0);
    for (row, label) in rows.iter().zip(labels) {
        let log_sum = row.iter().map(|x| x.exp()).sum::<f64>().ln();
        let even: f64 = row
            .iter()
            .zip(weights)
            .map(|(x, w)| w * (log_sum - x))
            .sum();
        let hard = weights[label] * (log_sum - row[label]);
        sum += (1.0 - smoothing) * hard + smoothing / 3.0 * even;
        total += weights[label];
    }
    let logits = Tensor::from_slice(&rows.concat()).view([3, 3]);
    let labels = Tensor::from_slice(&labels.map(|label| label as i64));
    let weights = Tensor::from_slice(&weights).to_kind(Number::Double);
    let found = loss_functions::cross_entropy(&logits, &labels, Some(&weights), smoothing);
    assert!((found.double_value(&[]) - sum / total).abs() < 1e-12);
}

/// Mixed samples have soft targets: with weights and smoothing, `-sum w y' log p / sum w y`, y'
/// being the smoothed y.
#[test]
fn trap_31_mixed_labels_are_the_closed_form() {
    let (labels, weights, smoothing) = ([0usize, 2, 1, 1, 0], [0.5f64, 1.0, 4.0], 0.1);
    let recipe = Recipe {
        mixup: 1.0,
        class_weights: Some(weights.to_vec()),
        label_smoothing: smoothing,
        batch_size: 2,
        accumulate: 3,
        head: Head {
            layers: vec![],
            init: HeadInit::Normal,
        },
        ..recipe()
    };
    let network = build(&recipe);
    let features = numbers::images("features", &[5, network.feature_dim]) * 30.0;
    let mix = Mixing::new(&recipe).draw(3, 5, None).unwrap();
    let partners: Vec<i64> = mix.partners.iter().map(|&place| place as i64).collect();
    let theirs = features.index_select(0, &Tensor::from_slice(&partners));
    let logits = network.logits(&mix.apply(&features, &theirs));
    let log_p = Vec::<Vec<f64>>::try_from(logits.log_softmax(1, Number::Double)).unwrap();
    let (mut sum, mut total) = (0.0, 0.0);
    for (row, partner) in (0..5).zip(&mix.partners) {
        for class in 0..CLASSES {
            let own = f64::from(u8::from(labels[row] == class));
            let other = f64::from(u8::from(labels[*partner] == class));
            let target = mix.share * own + (1.0 - mix.share) * other;
            let smoothed = (1.0 - smoothing) * target + smoothing / CLASSES as f64;
            sum -= weights[class] * smoothed * log_p[row][class];
            total += weights[class] * target;
        }
    }
    let window = Window {
        members: &[0, 1, 2, 3, 4],
        step: 3,
        epoch: 1,
    };
    let criterion = criterion(&recipe, &labels);
    let inputs = Inputs::Features(Features::new(features, 0, &[]));
    let (found, _) = criterion.gradients(&network, &inputs, window).unwrap();
    let found = found.double_value(&[]);
    assert!(
        (found - sum / total).abs() < 1e-5,
        "{found} {}",
        sum / total
    );
}

/// Nothing learns here, so that only what is measured can differ.
#[test]
fn trap_21_what_changes_training_leaves_evaluation_alone() {
    let material = Material::new(20);
    let still = Recipe {
        learning_rate: 0.0,
        backbone_learning_rate: 0.0,
        weight_decay: 0.0,
        head: Head {
            layers: vec![],
            init: HeadInit::Normal,
        },
        ..layer4(BatchNorm::Frozen)
    };
    let plain = evaluations(&material, "plain", still.clone());
    let changed = |name: &str, change: &dyn Fn(&mut Recipe)| {
        let mut recipe = still.clone();
        change(&mut recipe);
        let found = evaluations(&material, name, recipe);
        assert_eq!(found[0].1.to_bits(), plain[0].1.to_bits(), "{name}");
        assert_ne!(found[0].0.to_bits(), plain[0].0.to_bits(), "{name}");
    };
    changed("smoothed", &|recipe| recipe.label_smoothing = 0.3);
    changed("mixed", &|recipe| recipe.mixup = 1.0);
    changed("pasted", &|recipe| recipe.cutmix = 1.0);
    changed("dropped", &|recipe| {
        recipe.head.layers = vec![HeadLayer::Dropout(0.5)]
    });
}
