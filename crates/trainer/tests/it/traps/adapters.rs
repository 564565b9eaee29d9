//! Adapters change a network by what they learn, and by nothing else.

use std::path::Path;

use rehead_domain::{
    recipe::{Adapter, BatchNorm, Head, HeadInit, Optimizer as Kind, Recipe},
    work::PlanModel,
};
use rehead_trainer::{
    models::{lora, registry, weights},
    train::{
        network::{Network, Shard},
        step::optimizer::Optimizer,
    },
};
use serde_json::{Value, json};
use tch::{Device, Kind as Number, Tensor};

use super::{CLASSES, SIDE, build_of, copies, gradients_on, over, train_on, train_on_images};
use crate::support::{
    numbers,
    training::{adapter, base_model_for, input, parameters, recipe},
};

const VIT: &str = "vit_tiny_patch16_224";

/// Under a head that tells classes apart from the start.
fn plain() -> Recipe {
    Recipe {
        head: Head {
            layers: Vec::new(),
            init: HeadInit::Normal,
        },
        optimizer: Kind::Adamw,
        weight_decay: 0.1,
        gradient_clip: Some(1.0),
        ..recipe()
    }
}

fn lora(architecture: &str, asked: Value) -> Recipe {
    let adapter = adapter(architecture, asked);
    Recipe {
        trainable: adapter.tensors(),
        adapter: Some(adapter),
        ..plain()
    }
}

/// The network's own A and B of a layer.
fn matrices(network: &Network, layer: &str) -> [Tensor; 2] {
    Adapter::tensors_of(layer).map(|name| {
        let mut all = network.parameters.iter();
        let found = all.find(|one| one.name == name);
        found.unwrap().tensor.detach()
    })
}

fn double(tensor: &Tensor) -> Tensor {
    tensor.to_kind(Number::Double)
}

/// DINOv2's layers have a scale after them, ConvNeXt's take maps.
#[test]
fn trap_24_an_adapter_begins_as_the_base_and_merges_exactly() {
    for (architecture, side, first, layers) in [
        (VIT, SIDE, "blocks.0.", 48),
        ("vit_small_patch14_dinov2", 28, "blocks.0.", 48),
        ("convnext_tiny", SIDE, "stages.0.blocks.0.", 36),
    ] {
        let pixels = i64::from(side);
        let recipe = lora(architecture, json!({"rank": 4, "alpha": 6, "dropout": 0.3}));
        let mut network = build_of(architecture, side, &recipe);
        let adapter = recipe.adapter.as_ref().unwrap();
        assert_eq!(adapter.layers.len(), layers);
        assert!(adapter.layers[0].starts_with(first));

        // At first: the base's logits bit for bit, in evaluation and, dropout on, in training.
        let whole = Recipe {
            trainable: parameters(architecture, &[first]),
            ..plain()
        };
        let base = build_of(architecture, side, &whole);
        let before = copies(&base);
        assert_eq!(copies(&network), before, "{architecture}");
        let images = numbers::images("input-1", &[2, 3, pixels, pixels]);
        let logits = |network: &Network| network.logits(&network.features(&images));
        assert_eq!(logits(&network), logits(&base), "{architecture}");
        let trained =
            |network: &Network| network.features_train(&images, &Shard::whole(1)).detach();
        assert_eq!(trained(&network), trained(&base), "{architecture}");

        // Only A, B and the head train.
        let names: Vec<String> = network
            .parameters
            .iter()
            .map(|one| one.name.clone())
            .collect();
        let backbone = parameters(architecture, &[""]);
        let head =
            |name: &str| !Adapter::is_tensor(name) && !backbone.iter().any(|known| known == name);
        let (of_head, of_backbone): (Vec<&String>, Vec<&String>) =
            names.iter().partition(|name| head(name));
        assert_eq!(of_backbone, adapter.tensors().iter().collect::<Vec<_>>());
        assert_eq!(of_head.len(), 2, "{of_head:?}");

        let mut optimizer = Optimizer::new(&recipe, &network.parameters);
        train_on(&mut network, &mut optimizer, &recipe, pixels, 1..=3);
        let state = optimizer.state();
        assert_eq!(state.len(), 2 * names.len());

        // Merged, and taken out again: the base's weight within the rounding of one sum.
        let merged = copies(&network);
        for layer in &adapter.layers {
            let name = format!("{layer}.weight");
            let [a, b] = matrices(&network, layer);
            let update = double(&b).matmul(&double(&a)) * (6.0 / 4.0);
            let off = (double(&merged[&name]) - update - double(&before[&name])).abs();
            // Half a unit in the last place of the sum.
            let ulp = merged[&name].abs().max().double_value(&[]) * 2f64.powi(-23);
            assert!(off.max().double_value(&[]) <= 0.5 * ulp, "{name}: {off}");
            assert_ne!(merged[&name], before[&name], "{name} did not learn");
        }
        let adapted = |name: &str| {
            adapter
                .layers
                .iter()
                .any(|layer| name == format!("{layer}.weight"))
        };
        for (name, tensor) in &merged {
            let moved = *tensor != before[name];
            assert_eq!(moved, adapted(name) || head(name), "{architecture} {name}");
        }

        // The base itself is under them as it was, bit for bit.
        tch::no_grad(|| {
            for one in &mut network.parameters {
                if one.name.ends_with("lora_B.weight") {
                    let _ = one.tensor.zero_();
                }
            }
        });
        for (name, tensor) in copies(&network) {
            assert!(
                tensor == before[&name] || head(&name),
                "{architecture} {name}"
            );
        }
    }
}

/// A merged network computes the same as the adapted one, to rounding.
#[test]
fn trap_24_a_merged_network_gives_the_adapted_ones_logits() {
    for precision in ["float32", "bfloat16"] {
        let recipe = Recipe {
            precision: serde_json::from_value(json!(precision)).unwrap(),
            backbone_learning_rate: 0.01,
            ..lora(VIT, json!({"rank": 8, "alpha": 16}))
        };
        let mut network = build_of(VIT, SIDE, &recipe);
        let images = numbers::images("input-1", &[2, 3, 32, 32]);
        let logits = |network: &Network| network.logits(&network.features(&images));
        let first = logits(&network);
        let mut optimizer = Optimizer::new(&recipe, &network.parameters);
        train_on_images(&mut network, &mut optimizer, &recipe, 1..=4);
        let adapted = logits(&network);
        let scale = adapted.abs().max().double_value(&[]);
        let apart = |one: &Tensor| (one - &adapted).abs().max().double_value(&[]) / scale;
        assert!(
            apart(&first) > 0.01,
            "nothing was learnt: {}",
            apart(&first)
        );
        let merged = merged_network(&network, &plain());
        let error = apart(&logits(&merged));
        println!("{precision}: merged logits are {error:.1e} of the largest apart");
        assert!(error < 1e-4, "{error}");
    }
}

fn vit(folder: &Path) -> PlanModel {
    let architecture = registry::find(VIT).unwrap();
    base_model_for(architecture, &input(architecture, SIDE), folder)
}

/// A network without adapters whose weights and head are those of `network`, merged.
fn merged_network(network: &Network, recipe: &Recipe) -> Network {
    let folder = tempfile::tempdir().unwrap();
    let base = vit(folder.path());
    let path = folder.path().join("merged.safetensors");
    weights::write_safetensors(&path, &network.tensors(), &Default::default()).unwrap();
    let going_on = Recipe {
        inherited: Some(rehead_domain::recipe::Inherited {
            labels: ["a", "b", "c"].map(str::to_owned).into(),
            known: CLASSES as u32,
        }),
        ..recipe.clone()
    };
    Network::build(&over(&base, &path, true), &going_on, CLASSES, Device::Cpu).unwrap()
}

/// Gradients of W + s B A, with G the gradient of a whole weight: s Bᵀ G for A, s G Aᵀ for B.
#[test]
fn gradients_are_those_of_the_merged_weights() {
    let targets = [
        "blocks.3.attn.qkv",
        "blocks.7.attn.proj",
        "blocks.11.mlp.fc2",
    ];
    let recipe = Recipe {
        // So that B leaves zero, and A's gradient with it.
        backbone_learning_rate: 0.01,
        ..lora(VIT, json!({"rank": 3, "alpha": 12, "targets": targets}))
    };
    let whole = Recipe {
        trainable: targets.map(|layer| format!("{layer}.weight")).into(),
        ..plain()
    };
    let mut network = build_of(VIT, SIDE, &recipe);
    let mut optimizer = Optimizer::new(&recipe, &network.parameters);
    for step in 1..=3 {
        let images = numbers::images("other", &[4, 3, 32, 32]);
        let merged = merged_network(&network, &whole);
        let ours = gradients_on(&network, &recipe, &images, step);
        let theirs = gradients_on(&merged, &whole, &images, step);
        for (place, layer) in targets.iter().enumerate() {
            let [a, b] = matrices(&network, layer);
            let gradient = &theirs[place];
            let expected = [
                b.transpose(0, 1).matmul(gradient) * 4.0,
                gradient.matmul(&a.transpose(0, 1)) * 4.0,
            ];
            for (found, expected) in ours[2 * place..].iter().zip(expected) {
                let norm = expected.norm().double_value(&[]);
                let error = (found - &expected).norm().double_value(&[]);
                assert!(
                    error <= 1e-3 * norm,
                    "{layer} in step {step}: {error} of {norm}"
                );
                // A's is zero until B has moved, and only then.
                let is_a = found.size() == a.size();
                assert_eq!(norm == 0.0, is_a && step == 1, "{layer} in step {step}");
            }
        }
        train_on_images(&mut network, &mut optimizer, &recipe, step..=step);
    }
}

#[test]
fn every_option_of_an_adapter_changes_training() {
    let train = |asked: Value, seed: u64| {
        let recipe = Recipe {
            seed,
            ..lora(VIT, asked)
        };
        let mut network = build_of(VIT, SIDE, &recipe);
        let mut optimizer = Optimizer::new(&recipe, &network.parameters);
        train_on_images(&mut network, &mut optimizer, &recipe, 1..=2);
        copies(&network)
    };
    let results = [
        train(json!({}), 7),
        train(json!({"rank": 7}), 7),
        train(json!({"alpha": 9}), 7),
        train(json!({"dropout": 0.1}), 7),
        train(json!({"dropout": 0.1}), 8),
        train(json!({"targets": ["qkv"]}), 7),
        train(json!({"targets": {"regex": "mlp"}}), 7),
        train(json!({}), 8),
    ];
    assert_eq!(
        train(
            json!({"rank": 8, "alpha": 8, "dropout": 0, "targets": "all_linear"}),
            7
        ),
        results[0]
    );
    for (i, one) in results.iter().enumerate() {
        for (j, other) in results[..i].iter().enumerate() {
            assert_ne!(one, other, "variants {j} and {i} train alike");
        }
    }
}

/// A checkpoint holds adapters; who goes on from it has them in its weights, and adapters of its
/// own on top.
#[test]
fn a_checkpoint_of_adapters_goes_on_merged() {
    let recipe = lora(VIT, json!({"rank": 3, "alpha": 1}));
    let mut network = build_of(VIT, SIDE, &recipe);
    let mut optimizer = Optimizer::new(&recipe, &network.parameters);
    train_on_images(&mut network, &mut optimizer, &recipe, 1..=2);
    let folder = tempfile::tempdir().unwrap();
    let base = vit(folder.path());
    let path = folder.path().join("checkpoint.safetensors");
    let write = |metadata: &[(&str, String)]| {
        let metadata = metadata.iter();
        let metadata = metadata.map(|(name, value)| ((*name).to_owned(), value.clone()));
        weights::write_safetensors(&path, &network.changing(), &metadata.collect()).unwrap();
    };
    let goes_on =
        |recipe: &Recipe| Network::build(&over(&base, &path, false), recipe, CLASSES, Device::Cpu);
    write(&[(lora::SCALE, format!("{:?}", 1.0 / 3.0))]);
    let going_on = |recipe: &Recipe| Recipe {
        inherited: Some(rehead_domain::recipe::Inherited {
            labels: ["a", "b", "c"].map(str::to_owned).into(),
            known: CLASSES as u32,
        }),
        ..recipe.clone()
    };
    for next in [plain(), lora(VIT, json!({"targets": ["fc1"]}))] {
        let next = goes_on(&going_on(&next)).unwrap();
        assert_eq!(copies(&next), copies(&network));
        assert_ne!(next.backbone_sha256, base.weights_sha256);
    }
    // Without what their products are multiplied by they mean nothing.
    write(&[]);
    let error = goes_on(&going_on(&plain())).unwrap_err();
    assert!(error.to_string().contains("lora_A"), "{error}");
    assert_eq!(error.failure().code, "invalid_weights");
}

#[test]
fn a_layer_that_is_not_there_is_an_error() {
    let mut recipe = lora(VIT, json!({"targets": ["fc1"]}));
    recipe.adapter.as_mut().unwrap().layers[3] = "blocks.3.mlp.fc9".to_owned();
    recipe.batch_norm = BatchNorm::Frozen;
    let folder = tempfile::tempdir().unwrap();
    let base = vit(folder.path());
    let error = Network::build(&base, &recipe, CLASSES, Device::Cpu).unwrap_err();
    assert!(error.to_string().contains("`blocks.3.mlp.fc9`"), "{error}");
}
