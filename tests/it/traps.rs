//! What goes wrong unnoticed in transfer learning, each as a test that names it.

use std::{collections::BTreeMap, ops::RangeInclusive};

use rehead_domain::{
    progress::{Progress, exit},
    recipe::{
        BatchNorm, FreezePhase, Head, HeadInit, HeadLayer, Optimizer as Kind, Recipe, Schedule,
    },
};
use rehead_trainer::train::{
    gradients::Criterion,
    inputs::Inputs,
    loss,
    network::Network,
    optimizer::{self, Group, Optimizer, Parameter, Rates},
    schedule,
};
use tch::{Device, Kind as Number, Tensor};

use crate::support::{
    numbers,
    training::{Material, base_model, parameters, recipe},
};

const CLASSES: usize = 3;
const SAMPLES: usize = 32;

fn build(recipe: &Recipe) -> Network {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let base = base_model("resnet18", folder.path()).unwrap();
    Network::build(&base, recipe, CLASSES, Device::Cpu).unwrap()
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

/// Trains on small images for these steps, at the peak rates.
fn train_on_images(
    network: &mut Network,
    optimizer: &mut Optimizer,
    recipe: &Recipe,
    steps: RangeInclusive<u64>,
) {
    for step in steps {
        let images = numbers::images(&format!("input-{step}"), &[4, 3, 32, 32]);
        let logits = network.logits_train(&network.features_train(&images), step);
        let loss = loss::cross_entropy(&logits, &targets(4), None, recipe.label_smoothing);
        let gradients = optimizer::gradients(&loss, &network.parameters).unwrap();
        optimizer.step(
            &mut network.parameters,
            gradients,
            step,
            Rates::at(recipe, 1.0),
        );
    }
}

/// The head after `steps` steps over `SAMPLES` made-up features, with its averages where the recipe keeps some.
fn train_head(recipe: &Recipe, steps: u64) -> BTreeMap<String, Tensor> {
    let mut network = build(recipe);
    let mut optimizer = Optimizer::new(recipe, &network.parameters);
    let features = numbers::images("features", &[SAMPLES as i64, network.feature_dim]);
    let labels: Vec<usize> = (0..SAMPLES).map(|i| (i * i) % CLASSES).collect();
    let criterion = Criterion::new(recipe, &labels, Device::Cpu);
    let inputs = Inputs::Features(features);
    let members: Vec<usize> = (0..SAMPLES).collect();
    let size = (recipe.batch_size * recipe.accumulate) as usize;
    for step in 1..=steps {
        let start = (step as usize - 1) % SAMPLES.div_ceil(size) * size;
        let window = &members[start..(start + size).min(SAMPLES)];
        let (_, gradients) = criterion
            .gradients(&network, &inputs, window, step)
            .unwrap();
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
fn trap_2_a_frozen_trunk_looks_at_each_image_alone() {
    let recipe = Recipe {
        batch_norm: BatchNorm::Update,
        ..recipe()
    };
    let network = build(&recipe);
    let images = numbers::images("input-1", &[4, 3, 32, 32]);
    let others = Tensor::cat(&[images.narrow(0, 0, 1), images.narrow(0, 1, 3) * -3.0], 0);
    let first = |images: &Tensor| network.features_train(images).get(0);
    assert_eq!(first(&images), first(&others));
    assert_ne!(
        network.features_train(&images).get(1),
        network.features_train(&others).get(1)
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
        let state = optimizer.state(&network.parameters);
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
fn trap_4_what_is_frozen_later_stays_and_what_joins_joins_once_and_afresh() {
    for kind in [Kind::Sgd, Kind::Adamw] {
        let recipe = in_phases(kind);
        let mut network = build(&recipe);
        let mut optimizer = Optimizer::new(&recipe, &network.parameters);
        train_on_images(&mut network, &mut optimizer, &recipe, 1..=1);
        let norm = |optimizer: &Optimizer, network: &Network, part: &str| {
            let state = optimizer.state(&network.parameters).into_iter();
            let of_part = state.filter(|(name, _)| name.contains(part));
            let norms: Vec<f64> = of_part
                .map(|(_, tensor)| tensor.norm().double_value(&[]))
                .collect();
            (norms.len(), norms.iter().sum::<f64>())
        };

        assert!(network.enter_phases(&recipe, 2, 1, &mut optimizer).unwrap());
        let before = copies(&network);
        train_on_images(&mut network, &mut optimizer, &recipe, 2..=3);
        for (name, tensor) in copies(&network) {
            let trains = name.starts_with("layer4.0.") || name.starts_with("fc.");
            let trains = trains && !name.contains("running_");
            assert_eq!(tensor != before[&name], trains, "{kind:?} {name}");
        }
        assert_eq!(norm(&optimizer, &network, "layer4.1.").0, 0);

        assert!(network.enter_phases(&recipe, 3, 1, &mut optimizer).unwrap());
        assert!(!network.enter_phases(&recipe, 3, 1, &mut optimizer).unwrap());
        let mut names: Vec<&String> = network.parameters.iter().map(|one| &one.name).collect();
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        let (fresh, kept) = (
            norm(&optimizer, &network, "layer4.1."),
            norm(&optimizer, &network, "layer4.0."),
        );
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

#[test]
fn trap_6_every_option_changes_training() {
    let plain = Recipe {
        head: Head {
            layers: vec![],
            init: HeadInit::Normal,
        },
        ..recipe()
    };
    let reference = train_head(&plain, 8);
    let changed = |change: &dyn Fn(&mut Recipe)| {
        let mut other = plain.clone();
        change(&mut other);
        train_head(&other, 8)
    };
    assert_eq!(changed(&|_| {}), reference);
    let schedules = [
        Schedule::Cosine,
        Schedule::Linear,
        Schedule::Step,
        Schedule::OneCycle,
    ];
    let mut results = vec![reference];
    results.extend(schedules.map(|schedule| changed(&|recipe| recipe.schedule = schedule)));
    results.extend([
        changed(&|recipe| recipe.warmup_fraction = 0.5),
        changed(&|recipe| recipe.class_weights = Some(vec![1.0, 2.0, 3.0])),
        changed(&|recipe| recipe.ema_decay = Some(0.9)),
        changed(&|recipe| recipe.accumulate = 2),
        changed(&|recipe| recipe.label_smoothing = 0.1),
        changed(&|recipe| recipe.gradient_clip = Some(1e-3)),
        changed(&|recipe| recipe.weight_decay = 0.1),
        changed(&|recipe| recipe.head.layers = vec![HeadLayer::Dropout(0.5)]),
        changed(&|recipe| recipe.head.layers = vec![HeadLayer::Relu]),
        changed(&|recipe| recipe.head.layers = vec![HeadLayer::Gelu]),
        changed(&|recipe| recipe.head.layers = vec![HeadLayer::BatchNorm]),
        changed(&|recipe| recipe.head.layers = vec![HeadLayer::LayerNorm]),
        changed(&|recipe| recipe.head.layers = vec![HeadLayer::Linear(16)]),
        changed(&|recipe| recipe.seed = 8),
    ]);
    for (i, one) in results.iter().enumerate() {
        for (j, other) in results[..i].iter().enumerate() {
            assert_ne!(one, other, "variants {j} and {i} train alike");
        }
    }
}

#[test]
fn trap_7_groups_train_at_the_rates_of_every_step() {
    let recipe = Recipe {
        trainable: parameters("resnet18", &["conv1", "bn1", "layer"]),
        learning_rate: 1.0,
        backbone_learning_rate: 0.1,
        layer_decay: 0.5,
        schedule: Schedule::Linear,
        warmup_fraction: 0.2,
        ..recipe()
    };
    let network = build(&recipe);
    let group = |part: &str| {
        let found = network
            .parameters
            .iter()
            .find(|one| one.name.starts_with(part));
        found.unwrap().group
    };
    for (part, share) in [
        ("fc.", 1.0),
        ("layer4.", 0.1),
        ("layer3.", 0.05),
        ("layer2.", 0.025),
        ("layer1.", 0.012_5),
        ("conv1.", 0.006_25),
    ] {
        for (step, factor) in (1..).zip([0.5, 1.0, 0.75, 0.5, 0.25]) {
            let rate = Rates::at(&recipe, schedule::factor(&recipe, step, 5)).of(group(part));
            assert!(
                (rate - share * factor).abs() < 1e-12,
                "{part} {step}: {rate}"
            );
        }
    }
}

#[test]
fn trap_7_what_joins_later_warms_up_and_is_corrected_by_itself() {
    let recipe = Recipe {
        optimizer: Kind::Adamw,
        ..recipe()
    };
    let parameter = |name: &str| Parameter {
        name: name.to_owned(),
        tensor: Tensor::from_slice(&[1.0f64]),
        group: Group::Head,
    };
    let rates = Rates {
        warmup: 3,
        ..Rates::at(&recipe, 1.0)
    };
    let mut parameters = vec![parameter("old")];
    let mut optimizer = Optimizer::new(&recipe, &parameters);
    let gradient = || Tensor::from_slice(&[0.5f64]);
    optimizer.step(&mut parameters, vec![gradient()], 1, rates);
    parameters.push(parameter("new"));
    optimizer.regroup(&parameters, 1);
    let mut last = 1.0;
    // With a gradient that stays, each corrected step of AdamW is the rate itself.
    for (step, share) in (2..).zip([0.25, 0.5, 0.75, 1.0, 1.0]) {
        optimizer.step(&mut parameters, vec![gradient(), gradient()], step, rates);
        let now = parameters[1].tensor.double_value(&[0]);
        assert!(
            (last - now - share * rates.head).abs() < 1e-8,
            "{step}: {}",
            last - now
        );
        last = now;
    }
    let old = parameters[0].tensor.double_value(&[0]);
    assert!((1.0 - old - 6.0 * rates.head).abs() < 1e-8, "{old}");
}

#[test]
fn trap_15_small_batches_add_up_to_the_large_one() {
    let large = Recipe {
        batch_size: 32,
        class_weights: Some(vec![0.5, 1.0, 4.0]),
        label_smoothing: 0.1,
        head: Head {
            layers: vec![],
            init: HeadInit::Normal,
        },
        ..recipe()
    };
    let difference = |batch_size, accumulate| {
        let small = Recipe {
            batch_size,
            accumulate,
            ..large.clone()
        };
        let (large, small) = (train_head(&large, 3), train_head(&small, 3));
        let apart = |name: &String| (&large[name] - &small[name]).abs().max().double_value(&[]);
        large.keys().map(apart).fold(0.0, f64::max)
    };
    // The last is a window of three batches of 12, 12 and 8 samples: unequal ones weigh as their samples do.
    for (batch_size, accumulate) in [(8, 4), (1, 32), (12, 3)] {
        let apart = difference(batch_size, accumulate);
        assert!(apart < 1e-6, "{batch_size} x {accumulate}: {apart}");
    }
    assert!(difference(8, 1) > 1e-4);
}

#[test]
fn trap_17_adamw_corrects_its_bias() {
    let recipe = Recipe {
        optimizer: Kind::Adamw,
        ..recipe()
    };
    let mut parameters = vec![Parameter {
        name: "weight".to_owned(),
        tensor: Tensor::from_slice(&[1.0f64, -2.0, 0.5]),
        group: Group::Head,
    }];
    let mut optimizer = Optimizer::new(&recipe, &parameters);
    let gradient = [0.3f64, -4.0, 1e-9];
    let rates = Rates::at(&recipe, 1.0);
    optimizer.step(
        &mut parameters,
        vec![Tensor::from_slice(&gradient)],
        1,
        rates,
    );
    let found = Vec::<f64>::try_from(&parameters[0].tensor).unwrap();
    for ((found, start), gradient) in found.iter().zip([1.0, -2.0, 0.5]).zip(gradient) {
        let expected = start - rates.head * gradient / (gradient.abs() + 1e-8);
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
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

#[test]
fn trap_20_the_mean_loss_counts_samples_not_batches() {
    let material = Material::new(20);
    let still = |batch_size, accumulate| Recipe {
        learning_rate: 0.0,
        batch_size,
        accumulate,
        head: Head {
            layers: vec![],
            init: HeadInit::Normal,
        },
        ..recipe()
    };
    let whole = evaluations(&material, "whole", still(1_000, 1));
    for (name, batch_size, accumulate) in [("seven", 7, 1), ("five-by-three", 5, 3)] {
        let parts = evaluations(&material, name, still(batch_size, accumulate));
        assert!(
            (parts[0].0 - whole[0].0).abs() < 1e-4,
            "{parts:?} {whole:?}"
        );
        assert!(
            (parts[0].1 - whole[0].1).abs() < 1e-4,
            "{parts:?} {whole:?}"
        );
    }
}

#[test]
fn trap_22_the_best_comes_back_with_its_statistics_and_averages() {
    let material = Material::new(20);
    let averaged = |ema_decay| Recipe {
        n_epochs: 3,
        ema_decay,
        ..layer4(BatchNorm::Update)
    };
    let plain = evaluations(&material, "plain", averaged(None));
    let found = evaluations(&material, "averaged", averaged(Some(0.9)));
    assert_ne!(plain, found, "what is evaluated are the averages");
    let best = found
        .iter()
        .map(|loss| loss.1)
        .fold(f64::INFINITY, f64::min);
    let mut run = material.start("again", &material.plan(averaged(Some(0.9))));
    assert_eq!(run.end().1.code(), Some(exit::DONE));
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(run.folder.join("report.json")).unwrap()).unwrap();
    let reported = report["log_loss"].as_f64().unwrap();
    assert_eq!(report["split"], "validation");
    assert!((reported - best).abs() < 1e-12, "{reported} {best}");
}

#[test]
fn trap_22_averages_are_copies_and_follow_their_formula() {
    let recipe = Recipe {
        ema_decay: Some(0.5),
        learning_rate: 1.0,
        ..recipe()
    };
    let mut parameters = vec![Parameter {
        name: "weight".to_owned(),
        tensor: Tensor::from_slice(&[0.0f64]),
        group: Group::Head,
    }];
    let mut optimizer = Optimizer::new(&recipe, &parameters);
    let mut expected = 0.0;
    for step in 1..=12u64 {
        let gradient = Tensor::from_slice(&[-1.0f64]);
        optimizer.step(
            &mut parameters,
            vec![gradient],
            step,
            Rates::at(&recipe, 1.0),
        );
        let weight = parameters[0].tensor.double_value(&[0]);
        let kept = f64::min(0.5, (1.0 + step as f64) / (10.0 + step as f64));
        expected = kept * expected + (1.0 - kept) * weight;
        optimizer.swap_averages(&mut parameters);
        assert!((parameters[0].tensor.double_value(&[0]) - expected).abs() < 1e-9);
        optimizer.swap_averages(&mut parameters);
        assert_eq!(parameters[0].tensor.double_value(&[0]), weight);
    }
}

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
    // Clipping where nothing but the head trains, and a batch of more samples than there are, are no errors.
    let lone = Recipe {
        gradient_clip: Some(1.0),
        batch_size: 1_000,
        ..recipe()
    };
    assert_eq!(evaluations(&material, "lone", lone).len(), 1);
}

#[test]
fn trap_27_new_layers_begin_as_pytorchs_do() {
    use HeadLayer::{BatchNorm, LayerNorm, Linear};
    let recipe = Recipe {
        head: Head {
            layers: vec![BatchNorm, Linear(64), LayerNorm],
            init: HeadInit::Normal,
        },
        ..recipe()
    };
    let tensors = copies(&build(&recipe));
    let all = |name: &str, value: f64| tensors[name] == tensors[name].full_like(value);
    for place in [0, 2] {
        assert!(
            all(&format!("head.{place}.weight"), 1.0) && all(&format!("head.{place}.bias"), 0.0)
        );
    }
    assert!(all("head.0.running_mean", 0.0) && all("head.0.running_var", 1.0));
    let bound = 1.0 / f64::sqrt(512.0);
    let hidden = &tensors["head.1.weight"];
    assert_eq!(hidden.size(), [64, 512]);
    assert!(hidden.abs().max().double_value(&[]) <= bound && all("head.1.bias", 0.0));
    let spread = |tensor: &Tensor| tensor.std(true).double_value(&[]);
    assert!((spread(hidden) / (bound / f64::sqrt(3.0)) - 1.0).abs() < 0.02);
    let last = &tensors["head.3.weight"];
    assert_eq!(last.size(), [CLASSES as i64, 64]);
    assert!((spread(last) / 0.01 - 1.0).abs() < 0.2, "{}", spread(last));
}

/// The export loads its own bundle and compares; here is what must be in it.
#[test]
fn a_cut_trunk_under_a_head_of_layers_is_trained_and_exported() {
    use HeadLayer::{BatchNorm, Dropout, Gelu, LayerNorm, Linear, Relu};
    let material = Material::new(10);
    let recipe = Recipe {
        cut: "layer2".to_owned(),
        trainable: parameters("resnet18", &["layer2.1."]),
        head: Head {
            layers: vec![BatchNorm, Linear(16), Relu, Dropout(0.2), LayerNorm, Gelu],
            init: HeadInit::Zero,
        },
        ..recipe()
    };
    let mut run = material.start("run", &material.plan(recipe));
    let (said, ended) = run.end();
    assert_eq!(ended.code(), Some(exit::DONE), "{said:?}");
    let bundle = run.folder.join("bundle");
    let tensors = Tensor::read_safetensors(bundle.join("model.safetensors")).unwrap();
    let tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    assert_eq!(tensors["head.1.weight"].size(), [16, 128]);
    assert_eq!(tensors["head.6.weight"].size(), [2, 16]);
    assert!(tensors["head.0.running_mean"].norm().double_value(&[]) > 0.0);
    assert!(
        !tensors
            .keys()
            .any(|name| name.starts_with("layer3") || name.starts_with("fc"))
    );
    let card = std::fs::read_to_string(bundle.join("README.md")).unwrap();
    assert!(
        card.contains("`head.N.*`") && card.contains("stage `layer2`"),
        "{card}"
    );
}

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
    let found = loss::cross_entropy(&logits, &labels, Some(&weights), smoothing);
    assert!((found.double_value(&[]) - sum / total).abs() < 1e-12);
}
