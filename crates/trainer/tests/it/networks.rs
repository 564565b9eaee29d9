//! Properties of every architecture of the registry: each has recorded numbers, trains exactly
//! where each form of `freeze` says, is saved and loaded as it is, takes another head, and is
//! exported.

use std::{collections::BTreeMap, fs, path::Path};

use rehead_domain::{
    base_model::Layers,
    export::NetworkFormat,
    input::Modality,
    recipe::{Adapter, BatchNorm, Head, HeadInit, Optimizer::Adamw, Recipe},
    request::{Freeze, ScheduledFreeze},
    resolve::freeze_phases,
    work::{PlanModel, PlanWeights, TrainPlan},
};
use rehead_trainer::{
    models::{architecture::Architecture, pass::Statistics, registry},
    process::protocol::Interrupt,
    serve::{golden, network_file},
    train::{
        eval::metrics::OutputDecoding,
        input::{preparation::Preparation, samples::Samples},
        network::{Network, Shard},
        output::{
            bundle::{self, Bundle},
            checkpoint::hash_file,
            export,
        },
        step::{
            loss_functions,
            optimizer::{self, Optimizer, Rates},
        },
    },
};
use serde_json::json;
use tch::{Device, Tensor};
use tempfile::TempDir;

use crate::support::{
    numbers,
    training::{Material, base_model_for, find_adapter, input, recipe, small_side},
};

const BATCH: i64 = 2;
/// Parameters of a network that goes through every form; larger ones, of the same families, go
/// through some.
const SMALL: u64 = 24_000_000;
/// Parameters of a network that is not trained here: smaller ones, of the same families, run the
/// same code.
const LARGE: u64 = 40_000_000;
/// Larger ones that have no smaller one of their kind.
const ALONE: [&str; 3] = [
    "vit_base_patch32_clip_224",
    "vit_base_patch16_clip_quickgelu_224",
    "vit_base_patch16_siglip_224",
];

#[test]
fn every_architecture_has_recorded_numbers() {
    for architecture in registry::of(Modality::Image) {
        let name = architecture.name;
        let recording = numbers::recording(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(recording["name"], name);
    }
}

/// The networks that are trained here.
fn trained() -> impl Iterator<Item = &'static Architecture> {
    // torchvision's recording does not have the number.
    let parameters = |one: &Architecture| {
        let recording = numbers::recording(one.name).unwrap_or_default();
        recording["parameters"].as_u64().unwrap_or(0)
    };
    registry::of(Modality::Image)
        .filter(move |one| parameters(one) < LARGE || ALONE.contains(&one.name))
}

#[test]
fn freeze_policies_hold_on_one_half_of_networks() {
    for architecture in trained().step_by(2) {
        holds(architecture);
    }
}

#[test]
fn freeze_policies_hold_on_the_other_half_of_networks() {
    for architecture in trained().skip(1).step_by(2) {
        holds(architecture);
    }
}

#[test]
fn adapters_hold_on_networks_with_linear_layers() {
    for architecture in trained() {
        let asked = json!({"rank": 2, "alpha": 4});
        if let Some(adapter) = find_adapter(architecture.name, asked) {
            adapts(architecture, adapter);
        }
    }
}

/// A folder in memory, where there is such a one: weights are written and read back several times.
fn folder() -> TempDir {
    tch::set_num_threads(1);
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn holds(architecture: &Architecture) {
    let folder = folder();
    let input = input(architecture, small_side(architecture));
    let layers = registry::layers(architecture, &input);
    let base = base_model_for(architecture, &input, folder.path());
    let recipe = by_phases(&layers);
    let mut network = Network::build(&base, &recipe, 3, Device::Cpu).unwrap();
    trains_where_it_says(&mut network, &recipe, &layers);
    is_kept(&network, &base, folder.path());
}

/// Adapters on all linear layers begin as the base, train alone with the head, and are merged into
/// what is kept.
fn adapts(architecture: &Architecture, adapter: Adapter) {
    let name = architecture.name;
    let folder = folder();
    let input = input(architecture, small_side(architecture));
    let layers = registry::layers(architecture, &input);
    let base = base_model_for(architecture, &input, folder.path());
    let plain = Network::build(&base, &trained_head(), 3, Device::Cpu).unwrap();
    let recipe = Recipe {
        trainable: adapter.tensors(),
        adapter: Some(adapter),
        ..trained_head()
    };
    let mut network = Network::build(&base, &recipe, 3, Device::Cpu).unwrap();
    let images = numbers::images("input-1", &size(&network, &layers));
    // Layers without adapters are fused, with other roundings.
    let expected = plain.features(&images);
    let scale = expected.abs().max().double_value(&[]);
    let error = (network.features(&images) - expected).abs().max();
    let error = error.double_value(&[]) / scale;
    assert!(error < 1e-5, "{name}: {error}");

    let before = copies(&network);
    let mut optimizer = Optimizer::new(&recipe, &network.parameters);
    // The first step moves B only: A's gradient is zero while B is.
    for step in 1..=2 {
        let gradients = gradients(&network, &images, step);
        let rates = Rates::at(&recipe, 1.0);
        optimizer.step(&mut network.parameters, gradients, step, rates);
    }
    let adapted = &recipe.adapter.as_ref().unwrap().layers;
    for (tensor_name, tensor) in network.tensors() {
        let (layer, part) = tensor_name.rsplit_once('.').unwrap_or(("", &tensor_name));
        let is_adapted = part == "weight" && adapted.iter().any(|one| one == layer);
        let expected = is_adapted || layer == architecture.classifier;
        let changed = before[&tensor_name] != tensor;
        assert_eq!(changed, expected, "{name} {tensor_name}");
    }
    is_kept(&network, &base, folder.path());
}

/// A recipe with a head whose steps are of one size, however small a gradient is.
fn trained_head() -> Recipe {
    Recipe {
        head: Head {
            layers: Vec::new(),
            init: HeadInit::Normal,
        },
        optimizer: Adamw,
        learning_rate: 1e-3,
        backbone_learning_rate: 1e-3,
        ..recipe()
    }
}

/// Every form of `freeze`, one after the other, as a schedule: a phase of one step each.
fn by_phases(layers: &Layers) -> Recipe {
    let parameters: u64 = layers.stages.iter().map(|stage| stage.parameters).sum();
    let names: Vec<&str> = layers.parameters().map(|one| one.name.as_str()).collect();
    let blocks: Vec<&str> = layers
        .tensors
        .iter()
        .map(|one| one.block.as_str())
        .collect();
    let mut forms = vec![
        Freeze::All,
        Freeze::AllButLastStages(1),
        Freeze::Blocks(vec![blocks[blocks.len() / 2].to_owned()]),
        Freeze::None,
    ];
    if parameters < SMALL {
        forms.extend([
            Freeze::FirstN(2),
            Freeze::Fraction(0.5),
            Freeze::Regex(r"\.bias$".to_owned()),
            Freeze::Names(vec![names[0].to_owned(), names[names.len() / 3].to_owned()]),
        ]);
    }
    let entries = (0..).zip(forms);
    let schedule = entries.map(|(at_epoch, freeze)| ScheduledFreeze { at_epoch, freeze });
    let schedule = Freeze::Schedule(schedule.collect());
    let mut phases = freeze_phases(&schedule, layers, layers)
        .unwrap()
        .into_iter();
    Recipe {
        trainable: phases.next().unwrap().trainable,
        later_phases: phases.collect(),
        batch_norm: BatchNorm::Update,
        ..trained_head()
    }
}

fn copies(network: &Network) -> BTreeMap<String, Tensor> {
    let tensors = network.tensors().into_iter();
    tensors
        .map(|(name, tensor)| (name, tensor.copy()))
        .collect()
}

/// Gradients of all parameters, for two images of two classes.
fn gradients(network: &Network, images: &Tensor, step: u64) -> Vec<Tensor> {
    let shard = Shard::whole(step);
    let logits = network.logits_train(&network.features_train(images, &shard), &shard);
    let labels = Tensor::from_slice(&[0i64, 1]);
    let loss = loss_functions::cross_entropy(&logits, &labels, None, 0.0);
    let gradients = optimizer::gradients(&loss, &network.parameters).unwrap();
    Statistics::keep([shard.statistics]);
    gradients
}

/// In each phase gradients are where the phase says, and after its step everything else is, bit for
/// bit, what it was.
fn trains_where_it_says(network: &mut Network, recipe: &Recipe, layers: &Layers) {
    let name = network.architecture.name;
    let mut optimizer = Optimizer::new(recipe, &network.parameters);
    let mut before = copies(network);
    let phases: Vec<&[String]> = recipe.phases().collect();
    let size = size(network, layers);
    for (step, trainable) in (1..).zip(phases) {
        let entered = optimizer
            .enter_phases(network, recipe, step as u32, 1)
            .unwrap();
        assert_eq!(entered, step > 1);
        let of_backbone = network.parameters.len() - 2;
        let training = network.parameters[..of_backbone]
            .iter()
            .map(|one| &one.name);
        assert!(training.eq(trainable), "{name}, phase {step}");

        let images = numbers::images(&format!("input-{step}"), &size);
        let gradients = gradients(network, &images, step);
        for (gradient, parameter) in gradients.iter().zip(&network.parameters) {
            let largest = gradient.abs().max().double_value(&[]);
            assert!(
                largest > 0.0 && largest.is_finite(),
                "{name} {}: {largest}",
                parameter.name
            );
        }
        optimizer.step(
            &mut network.parameters,
            gradients,
            step,
            Rates::at(recipe, 1.0),
        );

        let classifier = network.architecture.classifier;
        for (tensor_name, tensor) in network.tensors() {
            let (layer, part) = tensor_name.rsplit_once('.').unwrap_or(("", &tensor_name));
            let weight = format!("{layer}.weight");
            let trained = |name: &String| trainable.contains(name) || layer == classifier;
            let expected = match part {
                "running_mean" | "running_var" => trained(&weight),
                _ => trained(&tensor_name),
            };
            let changed = before[&tensor_name] != tensor;
            assert_eq!(changed, expected, "{name} {tensor_name}, phase {step}");
            if changed {
                before.insert(tensor_name, tensor.copy());
            }
        }
    }
}

/// Shape of a batch that the network takes.
fn size(network: &Network, layers: &Layers) -> [i64; 4] {
    assert_eq!(layers.feature_dim, network.architecture.feature_dim);
    let side = i64::from(small_side(network.architecture));
    [BATCH, 3, side, side]
}

/// Asserts that the trained network is exported, loads from the files alone with the same logits,
/// and continues under another head.
fn is_kept(network: &Network, base: &PlanModel, folder: &Path) {
    let name = network.architecture.name;
    let recipe = Recipe {
        head: Head {
            layers: Vec::new(),
            init: HeadInit::Zero,
        },
        ..recipe()
    };
    // A few images, the same for all.
    let material = Material::sized("squeezenet1_1", 3, 64);
    let plan = TrainPlan {
        base_model: base.clone(),
        ..material.plan(recipe.clone())
    };
    export(network, &plan, folder);
    let bundle = folder.join(bundle::FOLDER);
    let error = golden::verify(&bundle).unwrap();
    assert!(error < 1e-4, "{name}: {error}");
    let file = folder.join("model.onnx");
    network_file::write(NetworkFormat::Onnx, &bundle, &file).unwrap();
    let error = network_file::verify(NetworkFormat::Onnx, &bundle, &file).unwrap();
    assert!(error < 1e-4, "{name} as ONNX: {error}");
    fs::remove_file(file).unwrap();

    let weights = bundle.join(bundle::MODEL);
    let mut base = base.clone();
    base.over = vec![PlanWeights {
        sha256: hash_file(&weights).unwrap().1,
        weights,
        whole: true,
    }];
    let next = Network::build(&base, &recipe, 5, Device::Cpu).unwrap();
    let classifier = format!("{}.", network.architecture.classifier);
    let mut saved: BTreeMap<String, Tensor> = network.tensors().into_iter().collect();
    for (tensor_name, tensor) in next.tensors() {
        let old = saved.remove(&tensor_name).unwrap();
        match tensor_name.strip_prefix(&classifier) {
            Some("weight" | "bias") => assert_eq!(tensor.size()[0], 5, "{name}"),
            _ => assert!(tensor == old, "{name} {tensor_name}"),
        }
    }
    assert!(saved.is_empty(), "{name}: {:?}", saved.keys());
}

fn export(network: &Network, plan: &TrainPlan, folder: &Path) {
    let report = serde_json::from_value(json!({
        "split": "validation", "samples": 1, "step": 1, "epoch": 1, "task": "single_label_classification",
        "accuracy": 1.0, "accuracy_interval": [0.2, 1.0], "majority_baseline": 0.5, "balanced_accuracy": 1.0,
        "macro_f1": 1.0, "log_loss": 0.1, "classes": [], "confusion": null,
    }));
    let mut samples = Samples::open(plan).unwrap();
    samples.classes = ["a", "b", "c"].map(str::to_owned).to_vec();
    export::export(
        folder,
        &Bundle {
            run: Preparation {
                plan,
                samples: &samples,
                device: Device::Cpu,
                interrupt: &Interrupt::default(),
            },
            network,
            best: Default::default(),
            report: &report.unwrap(),
            decoding: &OutputDecoding::Temperature(1.0),
        },
    )
    .unwrap();
    assert!(fs::metadata(folder.join(bundle::FOLDER).join(bundle::GOLDEN)).is_ok());
}
