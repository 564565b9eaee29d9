//! Networks for other inputs than their weights were trained for: any side, gray images, images
//! with alpha.

use std::{collections::BTreeMap, fs, path::Path};

use rehead_domain::{
    base_model::{AskedPreprocessing, Preprocessing},
    input::Input,
    progress::Validated,
    work::Imported,
};
use rehead_trainer::models::{
    adapt::adapt,
    architecture::Architecture,
    backbone::Backbone,
    import::{self, Import},
    pass::Norm,
    registry,
    weights::{self, Tensors},
};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor, nn};

use crate::support::{numbers, training::input};

/// Outputs of timm and PyTorch for the inputs (`crates/trainer/tests/python/record_inputs.py`).
pub(crate) fn recorded() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/inputs.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn with_channels(architecture: &Architecture, side: u32, channels: u32) -> Input {
    Input::Image(Preprocessing {
        channels,
        ..input(architecture, side).image().unwrap().clone()
    })
}

/// A backbone for `input` under weights by the recordings' rules that are stored for `stored`.
fn adapted(architecture: &Architecture, stored: &Input, input: &Input) -> Backbone {
    let vs = nn::VarStore::new(Device::Cpu);
    let from = architecture.build(&vs.root(), stored).named();
    numbers::fill(&from);
    let mut from: Tensors = from.into_iter().collect();
    let vs = nn::VarStore::new(Device::Cpu);
    let backbone = architecture.build(&vs.root(), input);
    adapt(architecture, &backbone.named(), &mut from);
    weights::load_strict(&backbone.named(), &from, &[]).unwrap();
    backbone
}

/// A small side that an architecture takes.
fn small_side(architecture: &Architecture) -> u32 {
    let smallest = architecture.smallest_side().max(64);
    architecture.patch().map_or(smallest, |patch| 4 * patch)
}

pub(crate) fn features(backbone: &Backbone, images: &Tensor) -> Tensor {
    tch::no_grad(|| backbone.forward(images, 0, Norm::Running))
}

#[track_caller]
fn same(found: &Tensor, expected: &Tensor, what: &str) {
    let scale = expected.norm().double_value(&[]);
    let error = (found - expected).norm().double_value(&[]) / scale;
    assert!(error < 1e-4, "{what}: {error} of {scale}");
}

/// A stem is linear, so that what the adapted one makes of an image is what the usual one makes of
/// an image that can be said: for gray `g`, of `g, g, g`; for `r, g, b, a`, of three quarters of `r
/// + a, g, b`.
#[test]
fn a_stem_of_other_channels_matches_the_usual_stem() {
    // A network of each stem, and of each family.
    let names = [
        "convnext_tiny",
        "tf_efficientnet_lite0",
        "efficientnet_b0",
        "mobilenetv2_100",
        "mobilenetv3_small_100",
        "resnet18",
        "squeezenet1_1",
        "vit_tiny_patch16_224",
    ];
    for name in names {
        let architecture = registry::find(name).unwrap();
        let side = small_side(architecture);
        let stored = input(architecture, side);
        let usual = adapted(architecture, &stored, &stored);
        let size = |channels| [1, channels, i64::from(side), i64::from(side)];

        let gray = numbers::images("input", &size(1));
        let backbone = adapted(architecture, &stored, &with_channels(architecture, side, 1));
        let expected = features(&usual, &gray.repeat([1, 3, 1, 1]));
        same(&features(&backbone, &gray), &expected, name);

        let four = numbers::images("input", &size(4));
        let backbone = adapted(architecture, &stored, &with_channels(architecture, side, 4));
        let red = four.narrow(1, 0, 1) + four.narrow(1, 3, 1);
        let three = Tensor::cat(&[red, four.narrow(1, 1, 2)], 1) * 0.75;
        same(&features(&backbone, &four), &features(&usual, &three), name);
        assert_ne!(
            features(&backbone, &four),
            features(
                &backbone,
                &(&four * Tensor::from_slice(&[1.0f32, 1.0, 1.0, 0.0]).view([1, 4, 1, 1]))
            ),
            "{name} does not look at alpha"
        );
    }
}

#[test]
fn positions_and_stems_are_timms() {
    let recorded = recorded();
    let vit = |patch: i64, width: i64| {
        let of = |one: &&Architecture| {
            one.patch() == Some(patch as u32) && i64::from(one.feature_dim) == width
        };
        registry::all().find(of).unwrap()
    };
    for case in recorded["positions"].as_array().unwrap() {
        let shape: Vec<i64> = serde_json::from_value(case["shape"].clone()).unwrap();
        let (patch, old, new) = (
            integer(&case["patch"]),
            integer(&case["old"]),
            integer(&case["new"]),
        );
        let architecture = vit(patch, shape[2]);
        let sides = [old, new].map(|grid| input(architecture, (grid * patch) as u32));
        let backbone = adapted(architecture, &sides[0], &sides[1]);
        let (_, found) = backbone
            .named()
            .into_iter()
            .find(|(name, _)| name == "pos_embed")
            .unwrap();
        assert_eq!(found.size(), shape);
        compare("positions", &found.reshape([-1]), case);
    }
    for case in recorded["stems"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let size: Vec<i64> = serde_json::from_value(case["of"].clone()).unwrap();
        let shape: Vec<i64> = serde_json::from_value(case["shape"].clone()).unwrap();
        let mut from = Tensors::from([(name.to_owned(), numbers::weights(name, &size))]);
        let into = [(
            name.to_owned(),
            Tensor::zeros(&shape[..], (Kind::Float, Device::Cpu)),
        )];
        let of_stem = |one: &&Architecture| one.stem == name;
        adapt(registry::all().find(of_stem).unwrap(), &into, &mut from);
        assert_eq!(from[name].size(), shape);
        compare("stem", &from[name].reshape([-1]), case);
    }
}

fn integer(value: &Value) -> i64 {
    value.as_i64().unwrap()
}

#[track_caller]
fn compare(what: &str, found: &Tensor, case: &Value) {
    numbers::compare(what, found, &case["first8"], case["l2"].as_f64().unwrap()).unwrap();
}

/// Whole networks that timm made for other channels and sides from the same weights.
#[test]
fn networks_of_other_inputs_compute_what_timms_compute() {
    for case in recorded()["adapted"].as_array().unwrap() {
        let architecture = registry::find(case["name"].as_str().unwrap()).unwrap();
        let (channels, side) = (integer(&case["channels"]), integer(&case["side"]));
        let wanted = with_channels(architecture, side as u32, channels as u32);
        let backbone = adapted(architecture, &architecture.input, &wanted);
        let logits = logits(
            architecture,
            &backbone,
            &numbers::images("input", &[2, channels, side, side]),
        );
        for image in 0..2 {
            let norm = case["logits_l2"][image].as_f64().unwrap();
            let first = &case["logits_first8"][image];
            numbers::compare(architecture.name, &logits.get(image as i64), first, norm).unwrap();
        }
    }
}

/// Logits of a classifier of ImageNet's classes under weights by the recordings' rules.
pub(crate) fn logits(architecture: &Architecture, backbone: &Backbone, images: &Tensor) -> Tensor {
    let width = i64::from(architecture.feature_dim);
    let of = |part: &str, size: &[i64]| {
        numbers::weights(&format!("{}.{part}", architecture.classifier), size)
    };
    let bias = of("bias", &[1000]);
    features(backbone, images).linear(&of("weight", &[1000, width]), Some(&bias))
}

fn imported(architecture: &str, stored: &Input, asked: &Value) -> Result<Imported, Value> {
    let found = registry::find(architecture).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("upload");
    let vs = nn::VarStore::new(Device::Cpu);
    let named = found.build(&vs.root(), stored).named();
    weights::write_safetensors(&path, &named, &BTreeMap::new()).unwrap();
    let asked: AskedPreprocessing = serde_json::from_value(asked.clone()).unwrap();
    let plan = Import {
        input: &path,
        architecture,
        max_bytes: 1 << 30,
        preprocessing: &asked,
    };
    match import::run(&plan, folder.path()).unwrap() {
        Validated::Accepted => Ok(read(folder.path())),
        Validated::Refused { problems } => Err(json!(problems)),
        other => panic!("{other:?}"),
    }
}

fn read(folder: &Path) -> Imported {
    serde_json::from_slice(&fs::read(folder.join(import::IMPORTED)).unwrap()).unwrap()
}

fn positions(imported: &Imported) -> &[u32] {
    let mut tensors = imported.layers.tensors.iter();
    &tensors.find(|one| one.name == "pos_embed").unwrap().shape
}

#[test]
fn a_vision_transformer_takes_its_grid_from_weights_or_request() {
    let name = "vit_tiny_patch16_224";
    let vit = registry::find(name).unwrap();
    let (usual, small) = (&vit.input, input(vit, 64));
    let told = imported(name, &small, &json!({})).unwrap();
    assert_eq!(
        (told.input.image().unwrap().input_size, positions(&told)),
        (64, &[1, 17, 192][..])
    );
    assert_eq!(imported(name, usual, &json!({})).unwrap().input, *usual);
    for side in [32, 96, 512] {
        let grid = side / 16;
        for stored in [usual, &small] {
            let asked = imported(name, stored, &json!({"input_size": side})).unwrap();
            assert_eq!(asked.input, input(vit, side));
            assert_eq!(positions(&asked), [1, 1 + grid * grid, 192]);
        }
    }
    for (side, near) in [(225, "such as 224 or 240"), (33, "such as 32 or 48")] {
        let problems = imported(name, usual, &json!({"input_size": side})).unwrap_err();
        let problem = &problems[0];
        assert_eq!(problem["path"], "preprocessing.input_size");
        assert!(
            problem["message"].as_str().unwrap().contains(near),
            "{problem}"
        );
    }
    // Any side will do for a network without patches.
    let other = imported(
        "resnet18",
        &input(registry::find("resnet18").unwrap(), 64),
        &json!({"input_size": 225}),
    );
    assert_eq!(other.unwrap().input.image().unwrap().input_size, 225);
}

#[test]
fn the_smallest_side_is_taken_and_one_less_is_named() {
    let inception = registry::find("inception_v3").unwrap();
    let stored = input(inception, 75);
    let taken = imported(inception.name, &stored, &json!({"input_size": 75})).unwrap();
    assert_eq!(taken.input, stored);
    let problems = imported(inception.name, &stored, &json!({"input_size": 74})).unwrap_err();
    let expected = "`inception_v3` takes squares of at least 75 pixels a side; not 74";
    assert_eq!(problems[0]["message"], expected);
    // One network of each kind that has no patches, at the side that all take.
    for name in [
        "convnext_tiny",
        "convnextv2_atto",
        "densenet121",
        "efficientnet_b0",
        "mobilenetv2_100",
        "mobilenetv3_small_100",
        "mobilenetv4_conv_small",
        "regnety_004",
        "resnet18",
        "squeezenet1_1",
        "tf_efficientnet_lite0",
        "tf_efficientnetv2_s",
    ] {
        let architecture = registry::find(name).unwrap();
        assert_eq!(architecture.smallest_side(), 32, "{name}");
        let input = input(architecture, 32);
        let vs = nn::VarStore::new(Device::Cpu);
        let backbone = architecture.build(&vs.root(), &input);
        let image = Tensor::zeros([1, 3, 32, 32], (Kind::Float, Device::Cpu));
        let features = features(&backbone, &image);
        assert_eq!(
            features.size(),
            [1, i64::from(architecture.feature_dim)],
            "{name}"
        );
    }
}

#[test]
fn channels_are_as_asked_or_as_the_weights_have_them() {
    let resnet = registry::find("resnet18").unwrap();
    let rgb = &resnet.input;
    let of = |stored: &Input, asked: Value| {
        let imported = imported("resnet18", stored, &asked)?;
        let found = imported.input.image().unwrap().clone();
        let stem = &imported.layers.tensors[0];
        assert_eq!(stem.shape[1], found.channels, "{}", stem.name);
        Ok::<_, Value>(found)
    };
    let near = |found: &[f64], expected: &[f64]| {
        let pairs = found.iter().zip(expected);
        found.len() == expected.len() && pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-12)
    };
    let gray = of(rgb, json!({"channels": 1})).unwrap();
    assert!(
        near(&gray.mean, &[(0.485 + 0.456 + 0.406) / 3.0]),
        "{gray:?}"
    );
    assert!(
        near(&gray.std, &[(0.229 + 0.224 + 0.225) / 3.0]),
        "{gray:?}"
    );
    let four = of(rgb, json!({"channels": 4})).unwrap();
    assert!(near(&four.mean, &[0.485, 0.456, 0.406, 1.0]), "{four:?}");
    assert!(near(&four.std, &[0.229, 0.224, 0.225, 1.0]), "{four:?}");
    let own = of(rgb, json!({"channels": 1, "mean": [0.3], "std": [0.2]})).unwrap();
    assert!(near(&own.mean, &[0.3]) && near(&own.std, &[0.2]), "{own:?}");
    // Weights that were trained on gray images are taken as they are, and are no weights for
    // colors.
    for channels in [1, 4] {
        let stored = with_channels(resnet, 224, channels);
        assert_eq!(of(&stored, json!({})).unwrap().channels, channels);
        let problems = of(&stored, json!({"channels": 3})).unwrap_err();
        assert_eq!(problems[0]["code"], "misshapen_tensor", "{problems}");
    }
}

#[test]
fn what_an_input_may_be_is_said_with_everything_that_is_wrong() {
    let problems = |asked: Value| -> Vec<String> {
        let asked: AskedPreprocessing = serde_json::from_value(asked).unwrap();
        let problems = asked.problems().into_iter();
        problems
            .map(|one| format!("{}: {}", one.path, one.message))
            .collect()
    };
    for good in [
        json!({}),
        json!({"input_size": 32}),
        json!({"input_size": 1024, "crop_fraction": 1.0}),
        json!({"crop_fraction": 0.1}),
        json!({"channels": 1, "mean": [-10.0], "std": [0.001]}),
        json!({"channels": 3, "mean": [10.0, 0.0, 0.0], "std": [100.0, 1.0, 1.0]}),
        json!({"channels": 4, "mean": [0.0, 0.0, 0.0, 1.0]}),
    ] {
        assert_eq!(problems(good.clone()), [""; 0], "{good}");
    }
    for (bad, said) in [
        (json!({"input_size": 31}), "from 32 to 1024"),
        (json!({"input_size": 1025}), "from 32 to 1024"),
        (json!({"crop_fraction": 0.099}), "from 0.1 to 1"),
        (json!({"crop_fraction": 1.001}), "from 0.1 to 1"),
        (json!({"channels": 0}), "must be 1 (gray)"),
        (json!({"channels": 2}), "must be 1 (gray)"),
        (json!({"channels": 5}), "must be 1 (gray)"),
        (
            json!({"channels": 1, "mean": [0.5, 0.5, 0.5]}),
            "has 3 numbers, and the input 1 channels",
        ),
        (
            json!({"channels": 4, "std": [0.5, 0.5, 0.5]}),
            "has 3 numbers, and the input 4 channels",
        ),
        (json!({"mean": [0.5]}), "set `channels`"),
        (json!({"mean": [10.1, 0.0, 0.0]}), "from -10 to 10"),
        (json!({"std": [0.0009, 1.0, 1.0]}), "from 0.001 to 100"),
    ] {
        let found = problems(bad.clone());
        assert!(
            found.len() == 1 && found[0].contains(said),
            "{bad}: {found:?}"
        );
    }
    let all = problems(
        json!({"input_size": 1, "crop_fraction": 2.0, "channels": 7, "mean": [20.0], "std": []}),
    );
    assert_eq!(all.len(), 5, "{all:?}");
}
