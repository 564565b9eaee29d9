//! bfloat16 changes the numbers that the backbone computes in, and nothing else.

use rehead_domain::{
    progress::{Progress, exit},
    recipe::{BatchNorm, Optimizer as Kind, Precision, Recipe},
};
use rehead_trainer::{
    models::{pass::Norm, registry},
    train::step::optimizer::Optimizer,
};
use tch::{Device, Kind as Number, Tensor, nn};

use super::{build, copies, layer4, train_on_images};
use crate::support::{
    numbers,
    training::{Material, input, parameters, recipe},
};

fn halved(recipe: Recipe) -> Recipe {
    Recipe {
        precision: Precision::Bfloat16,
        ..recipe
    }
}

/// How far `found` is from `reference`, as a share of its norm.
fn apart(reference: &Tensor, found: &Tensor) -> f64 {
    ((found - reference).norm() / reference.norm()).double_value(&[])
}

#[test]
fn every_architecture_in_bfloat16_matches_float32_by_rounding() {
    tch::set_num_threads(1);
    for name in [
        "resnet18",
        "tf_efficientnet_lite0",
        "efficientnet_b0",
        "mobilenetv3_small_100",
        "convnext_tiny",
        "vit_tiny_patch16_224",
        "squeezenet1_1",
    ] {
        let vs = nn::VarStore::new(Device::Cpu);
        let architecture = registry::find(name).unwrap();
        let backbone = architecture.build(&vs.root(), &input(architecture, 64));
        numbers::fill(&backbone.named());
        let images = numbers::images("input-1", &[2, 3, 64, 64]);
        let run = |kind: Number| {
            let features = backbone.forward(&images.to_kind(kind), 0, Norm::Running);
            assert_eq!(features.kind(), Number::Float, "{name}");
            let weights: Vec<Tensor> = vs.trainable_variables();
            let loss = features.square().mean(Number::Float);
            let gradients = Tensor::f_run_backward(&[loss], &weights, false, false).unwrap();
            let kinds = gradients.iter().all(|one| one.kind() == Number::Float);
            assert!(kinds, "{name}");
            let flat: Vec<Tensor> = gradients.iter().map(|one| one.reshape([-1])).collect();
            (features.detach(), Tensor::cat(&flat, 0))
        };
        let (float, half) = (run(Number::Float), run(Number::BFloat16));
        let (features, gradients) = (apart(&float.0, &half.0), apart(&float.1, &half.1));
        println!("{name}: features {features:.5}, gradients {gradients:.5} apart");
        assert!(features > 0.0, "{name} did not compute in bfloat16");
        // Made-up weights make deep networks' gradients chaotic: here they need only be numbers.
        assert!(features < 0.1 && gradients.is_finite(), "{name}");
        assert!(name != "resnet18" || gradients < 0.05, "{gradients}");
    }
}

/// bfloat16 has float32's range: no loss is scaled, so that nothing is to unscale before clipping,
/// and no step is skipped.
#[test]
fn trap_16_one_step_per_batch_and_clipping_sees_true_gradients() {
    let clipped = halved(Recipe {
        optimizer: Kind::Sgd,
        weight_decay: 0.0,
        learning_rate: 1.0,
        backbone_learning_rate: 1.0,
        gradient_clip: Some(1e-3),
        ..layer4(BatchNorm::Frozen)
    });
    let mut network = build(&clipped);
    let before = copies(&network);
    let mut optimizer = Optimizer::new(&clipped, &network.parameters);
    train_on_images(&mut network, &mut optimizer, &clipped, 1..=1);
    let moved: f64 = copies(&network)
        .iter()
        .map(|(name, tensor)| (tensor - &before[name]).square().sum(Number::Double))
        .map(|sum| sum.double_value(&[]))
        .sum();
    assert!((moved.sqrt() - 1e-3).abs() < 1e-6, "{}", moved.sqrt());

    let material = Material::new(10);
    let plan = |recipe: Recipe| {
        material.plan(Recipe {
            trainable: parameters("resnet18", &["layer4."]),
            n_epochs: 2,
            batch_size: 4,
            learning_rate: 1e-3,
            backbone_learning_rate: 1e-4,
            gradient_clip: Some(0.1),
            ..recipe
        })
    };
    let losses = |name: &str, recipe: Recipe| {
        let mut run = material.start(name, &plan(recipe));
        let (said, ended) = run.end();
        assert_eq!(ended.code(), Some(exit::DONE), "{said:?}");
        let steps = said.into_iter().filter_map(|said| match said {
            Progress::Steps { steps, .. } => Some(steps),
            _ => None,
        });
        let tensors = Tensor::read_safetensors(run.folder.join("bundle/model.safetensors"));
        let kinds = tensors
            .unwrap()
            .into_iter()
            .map(|(_, tensor)| tensor.kind());
        assert!(
            kinds.into_iter().all(|kind| kind == Number::Float),
            "{name}"
        );
        let losses = steps
            .flatten()
            .map(|step| (step.step, step.train_loss.unwrap()));
        losses.collect::<Vec<_>>()
    };
    let (float, half) = (losses("float", recipe()), losses("half", halved(recipe())));
    assert_eq!(float.len(), half.len());
    for ((step, float), (same, half)) in float.iter().zip(&half) {
        assert_eq!(step, same);
        assert!(
            (float - half).abs() < 0.05 * float.max(0.1),
            "{step}: {float} {half}"
        );
    }
    assert_ne!(float, half);
}
