//! ONNX files of trained models: they give the golden logits, and say what a program needs besides.
//! Runtimes other than ours read the same files in tests/python/check_onnx.py.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use prost::Message as _;
use rehead_domain::{
    base_model::Layers,
    input::Modality,
    progress::{Verified, exit},
    recipe::{Head, HeadInit, HeadLayer, Recipe, Task},
};
use rehead_test_support::data::{clipart_subset, unzip, zip};
use rehead_trainer::models::{architecture::Architecture, onnx::proto::Model, registry};
use serde_json::{Value, json};

use crate::{
    export::{deep, mismatch, trained, trainer},
    support::training::{Material, adapter, parameters, recipe, small_side},
};

/// Sides that convolutions halve to odd ones.
const SIDE: u32 = 80;

/// Parameters of networks whose files Python reads, and larger ones with operations of their own.
const SMALL: u64 = 24_000_000;
const LARGE: [&str; 4] = [
    "convnext_tiny",
    "swin_tiny_patch4_window7_224",
    "vit_base_patch16_clip_quickgelu_224",
    "vit_base_patch16_siglip_224",
];

/// Trains a model and exports it.
fn exported(material: &Material, name: &str, recipe: Recipe) -> (PathBuf, PathBuf) {
    let bundle = trained(material, name, recipe);
    let file = bundle.with_file_name("model.onnx");
    let (said, code) = trainer(&arguments("export", &bundle, &file));
    assert!(
        matches!(said, Verified::Same { error } if error < 1e-4),
        "{name}: {said:?}"
    );
    assert_eq!(code, Some(exit::DONE));
    (bundle, file)
}

fn arguments<'a>(role: &'a str, bundle: &'a Path, file: &'a Path) -> Vec<&'a Path> {
    let format = ["--format", "onnx"].map(Path::new);
    let file = match role {
        "verify" => vec![Path::new("--file"), file],
        _ => vec![file],
    };
    [&[Path::new(role), bundle], &file[..], &format].concat()
}

fn metadata(file: &Path) -> BTreeMap<String, String> {
    let model = Model::decode(&fs::read(file).unwrap()[..]).unwrap();
    let entries = model.metadata_props.into_iter();
    entries.map(|entry| (entry.key, entry.value)).collect()
}

/// The clip art under a table of this column.
fn labelled(column: &str, label: impl Fn(usize) -> String) -> Vec<u8> {
    let files = unzip(&clipart_subset(&["animals", "food"], 10));
    let rows = files.keys().enumerate();
    let rows: String = rows
        .map(|(row, path)| format!("{path},{}\n", label(row)))
        .collect();
    let table = format!("path,{column}\n{rows}").into_bytes();
    let manifest = [("manifest.csv".to_owned(), table)];
    zip(&files.into_iter().chain(manifest).collect::<Vec<_>>())
}

fn linear_head() -> Head {
    Head {
        layers: Vec::new(),
        init: HeadInit::Normal,
    }
}

/// A model of each task, among them one with adapters, one cut, one of several layers.
fn of_each_kind(mut each: impl FnMut(&str, &Material, Recipe)) {
    let vit = "vit_tiny_patch16_224";
    let asked = json!({"rank": 2, "alpha": 4});
    let lora = adapter(vit, asked);
    each(
        "lora",
        &Material::of(vit, 4),
        Recipe {
            trainable: lora.tensors(),
            adapter: Some(lora),
            head: deep(),
            ..recipe()
        },
    );
    each(
        "cut",
        &Material::sized("resnet18d", 10, SIDE),
        Recipe {
            cut: "layer2".to_owned(),
            trainable: parameters("resnet18d", &["layer2.1."]),
            head: Head {
                layers: vec![HeadLayer::BatchNorm, HeadLayer::Linear(16), HeadLayer::Relu],
                init: HeadInit::Zero,
            },
            ..recipe()
        },
    );
    let several = labelled("labels", |row| {
        ["round|red", "round", "red|old"][row % 3].to_owned()
    });
    each(
        "multi_label",
        &Material::of_archive("tf_efficientnet_lite0", &several),
        Recipe {
            head: linear_head(),
            seed: 7,
            ..Recipe::base(Task::MultiLabelClassification)
        },
    );
    let numbers = labelled("value", |row| format!("{}", row as f64 / 4.0));
    each(
        "regression",
        &Material::of_archive("mobilenetv3_small_100", &numbers),
        Recipe {
            head: linear_head(),
            seed: 7,
            ..Recipe::base(Task::Regression)
        },
    );
}

#[test]
fn onnx_gives_golden_logits_and_says_what_they_mean() {
    of_each_kind(|name, material, recipe| {
        let task = recipe.task;
        let (bundle, file) = exported(material, name, recipe);
        let read = |file: &str| -> Value {
            serde_json::from_slice(&fs::read(bundle.join(file)).unwrap()).unwrap()
        };
        let (config, known) = (read("config.json"), metadata(&file));
        let json = |key: &str| -> Value { serde_json::from_str(&known[key]).unwrap() };
        assert_eq!(known["rehead.task"], task.as_str());
        assert_eq!(known["rehead.model"], config["rehead"]["model"]);
        assert_eq!(json("rehead.labels"), read("labels.json"));
        assert_eq!(json("rehead.preprocess"), read("preprocess.json"));
        let decoding = match task {
            Task::SingleLabelClassification => Some("temperature"),
            Task::MultiLabelClassification => Some("thresholds"),
            Task::Regression => None,
        };
        for key in ["temperature", "thresholds"] {
            let found = known.contains_key(&format!("rehead.{key}"));
            assert_eq!(found, decoding == Some(key), "{name}: {key}");
            if found {
                assert_eq!(json(&format!("rehead.{key}")), config["rehead"][key]);
            }
        }
    });
}

/// Bytes of a weight, of the head and of the end.
#[test]
fn damaged_onnx_is_told_from_the_model() {
    let material = Material::new(4);
    let recipe = Recipe {
        head: linear_head(),
        ..recipe()
    };
    let (bundle, file) = exported(&material, "run", recipe);
    let verify = arguments("verify", &bundle, &file);
    assert_eq!(trainer(&verify).1, Some(exit::DONE));

    let sound = fs::read(&file).unwrap();
    let mut model = Model::decode(&sound[..]).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let weight = |name: &str| {
        let mut all = graph.initializer.iter();
        all.position(|tensor| tensor.name == name).unwrap()
    };
    let (to, from) = (
        weight("layer1.0.conv1.weight"),
        weight("layer1.1.conv1.weight"),
    );
    graph.initializer[to].raw_data = graph.initializer[from].raw_data.clone();
    fs::write(&file, model.encode_to_vec()).unwrap();
    let message = mismatch(&verify);
    assert!(message.contains("other logits"), "{message}");

    model.graph.as_mut().unwrap().node[0].op_type = "Loop".to_owned();
    fs::write(&file, model.encode_to_vec()).unwrap();
    let message = mismatch(&verify);
    assert!(message.contains("has `Loop`"), "{message}");

    fs::write(&file, &sound[..sound.len() - 1]).unwrap();
    let message = mismatch(&verify);
    assert!(message.contains("cannot be read"), "{message}");
}

/// Files of models of every family and kind, with their golden logits, for
/// tests/python/check_onnx.py, which scripts/python-check.sh runs.
#[test]
#[ignore = "writes 3 GB that only scripts/python-check.sh reads"]
fn onnx_files_for_python() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("onnx");
    let _ = fs::remove_dir_all(&folder);
    let keep = |name: &str, bundle: &Path, file: &Path| {
        let kept = folder.join(name);
        fs::create_dir_all(&kept).unwrap();
        let golden = "golden.safetensors";
        fs::copy(bundle.join(golden), kept.join(golden)).unwrap();
        fs::copy(file, kept.join("model.onnx")).unwrap();
    };
    of_each_kind(|name, material, recipe| {
        let (bundle, file) = exported(material, name, recipe);
        keep(name, &bundle, &file);
    });
    let size = |architecture: &Architecture| {
        let Layers { stages, .. } = registry::layers(architecture, &architecture.input);
        stages.iter().map(|stage| stage.parameters).sum::<u64>()
    };
    let chosen =
        registry::of(Modality::Image).filter(|one| LARGE.contains(&one.name) || size(one) < SMALL);
    for architecture in chosen {
        let side = architecture
            .patch()
            .map_or(SIDE, |_| small_side(architecture));
        let material = Material::sized(architecture.name, 4, side);
        let recipe = Recipe {
            head: linear_head(),
            ..recipe()
        };
        let (bundle, file) = exported(&material, architecture.name, recipe);
        keep(architecture.name, &bundle, &file);
    }
}
