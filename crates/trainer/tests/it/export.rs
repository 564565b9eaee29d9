//! A bundle is what was trained, for whoever loads it: a process that did not make it checks that,
//! and TorchScript gives the same logits without any code of ours.

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    process::Command,
};

use rehead_domain::{
    progress::{Failure, Verified, exit},
    recipe::{Head, HeadInit, HeadLayer, Precision, Recipe},
    work::{ImageOutcome, Predict, Predicted},
};
use rehead_test_support::data::demo;
use rehead_trainer::{
    data::{batch, image},
    serve::{bundle::Bundle, requests},
};
use serde_json::{Value, json};
use tch::{CModule, Device, Tensor};

use crate::support::training::{Material, recipe};

/// The line of `rehead-trainer` about a bundle, and its exit code.
pub(crate) fn trainer(arguments: &[&Path]) -> (Verified, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_rehead-trainer"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    // Around it come reports of work where the machine is slow.
    let verified = said
        .lines()
        .find_map(|line| serde_json::from_str(line).ok());
    (
        verified.unwrap_or_else(|| panic!("no verdict: {said}")),
        output.status.code(),
    )
}

#[track_caller]
pub(crate) fn mismatch(arguments: &[&Path]) -> String {
    let (said, code) = trainer(arguments);
    let Verified::Failed(Failure {
        code: word,
        message,
        retryable,
    }) = said
    else {
        panic!("{said:?}");
    };
    assert_eq!(
        (word.as_str(), retryable),
        ("export_mismatch", false),
        "{message}"
    );
    assert_eq!(code, Some(exit::PERMANENT));
    message
}

pub(crate) fn trained(material: &Material, name: &str, recipe: Recipe) -> PathBuf {
    let mut run = material.start(name, &material.plan(recipe));
    let (said, ended) = run.end();
    assert_eq!(ended.code(), Some(exit::DONE), "{said:?}");
    run.folder.join("bundle")
}

#[test]
fn a_fresh_process_tells_a_damaged_bundle() {
    let material = Material::new(4);
    let bundle = trained(&material, "run", recipe());
    let verify = Path::new("verify");
    let (said, code) = trainer(&[verify, &bundle]);
    assert!(
        matches!(said, Verified::Same { error } if error < 1e-4),
        "{said:?}"
    );
    assert_eq!(code, Some(exit::DONE));

    // One tensor's numbers in another's place: every header and size is as it was.
    let weights = bundle.join("model.safetensors");
    let sound = fs::read(&weights).unwrap();
    let mut tensors = Tensor::read_safetensors(&weights).unwrap();
    let of = |name: &str| tensors.iter().position(|(known, _)| known == name).unwrap();
    let (to, from) = (of("layer1.0.conv1.weight"), of("layer1.1.conv1.weight"));
    tensors[to].1 = tensors[from].1.shallow_clone();
    Tensor::write_safetensors(&tensors, &weights).unwrap();
    let message = mismatch(&[verify, &bundle]);
    assert!(message.contains("other logits"), "{message}");

    fs::write(&weights, &sound[..sound.len() - 1]).unwrap();
    let message = mismatch(&[verify, &bundle]);
    assert!(message.contains("does not load"), "{message}");

    fs::write(&weights, &sound).unwrap();
    assert_eq!(trainer(&[verify, &bundle]).1, Some(exit::DONE));
    fs::remove_file(bundle.join("golden.safetensors")).unwrap();
    mismatch(&[verify, &bundle]);
}

/// The bundle computes in float32, whatever the head was trained on.
#[test]
fn a_head_on_coarse_features_is_as_good_and_makes_a_sound_bundle() {
    let material = Material::new(20);
    let accuracy = |name: &str, features_precision| {
        let bundle = trained(
            &material,
            name,
            Recipe {
                features_precision,
                head: Head {
                    layers: Vec::new(),
                    init: HeadInit::Probe,
                },
                ..recipe()
            },
        );
        let (said, _) = trainer(&[Path::new("verify"), &bundle]);
        assert!(matches!(said, Verified::Same { .. }), "{name}: {said:?}");
        let metrics = fs::read(bundle.join("metrics.json")).unwrap();
        let metrics: Value = serde_json::from_slice(&metrics).unwrap();
        metrics["best"]["valid_accuracy"].as_f64().unwrap()
    };
    let fine = accuracy("fine", Precision::Float32);
    let coarse = accuracy("coarse", Precision::Bfloat16);
    // One of ten images may fall on the other side.
    assert!((fine - coarse).abs() <= 0.11, "{fine}, {coarse}");
}

/// The share of the first of two classes that the bundle gives for an image.
fn first_share(bundle: &Path, image: &Path) -> f64 {
    let request = Predict {
        id: 1,
        bundle: bundle.to_owned(),
        images: vec![image.to_owned()],
    };
    let line = serde_json::to_vec(&request).unwrap();
    let mut said = Vec::new();
    requests::serve(Cursor::new(line), &mut said, Device::Cpu, 0).unwrap();
    let said: Predicted = serde_json::from_slice(&said).unwrap();
    let predictions = said.outcome.unwrap();
    let labels: Vec<String> =
        serde_json::from_slice(&fs::read(bundle.join("labels.json")).unwrap()).unwrap();
    assert_eq!(predictions.labels, labels);
    match predictions.images.as_slice() {
        [ImageOutcome::Probabilities(shares)] => f64::from(shares[0]),
        other => panic!("{other:?}"),
    }
}

/// Predictions are as sure as the bundle's temperature makes them, which is the report's.
#[test]
fn probabilities_are_the_softmax_of_logits_over_the_temperature() {
    tch::set_num_threads(1);
    let material = Material::new(4);
    let head = Head {
        layers: Vec::new(),
        init: HeadInit::Normal,
    };
    let still = Recipe {
        head,
        learning_rate: 0.0,
        ..recipe()
    };
    let folder = trained(&material, "run", still);
    let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let path = folder.join("config.json");
    let (mut config, report) = (read(&path), read(&folder.join("../report.json")));
    let stored = &config["rehead"]["temperature"];
    assert!(stored.is_number(), "{config}");
    assert_eq!(*stored, report["calibration"]["temperature"]);

    let image = demo().join("unseen/food.png");
    let bundle = Bundle::load(&folder, Device::Cpu).unwrap();
    let input = bundle.input().image().unwrap();
    let side = i64::from(input.input_size);
    let pixels = image::preprocess(&fs::read(&image).unwrap(), 1 << 24, input).unwrap();
    let pixels = Tensor::from_slice(&pixels).view([1, side, side, 3]);
    let logits = bundle.logits(&batch::normalize(&pixels, input, Device::Cpu));
    let lead = logits.double_value(&[0, 0]) - logits.double_value(&[0, 1]);
    let mut shares = Vec::new();
    for temperature in [0.05, 1.0, 8.0] {
        config["rehead"]["temperature"] = json!(temperature);
        fs::write(&path, config.to_string()).unwrap();
        let found = first_share(&folder, &image);
        let expected = 1.0 / (1.0 + (-lead / temperature).exp());
        assert!(
            (found - expected).abs() < 1e-5,
            "by {temperature}: {found} {expected}"
        );
        assert_eq!(found > 0.5, lead > 0.0, "another class by {temperature}");
        shares.push(found);
    }
    assert!((shares[1] - shares[2]).abs() > 1e-2, "{shares:?}");
}

/// A head as deep as any.
pub(crate) fn deep() -> Head {
    Head {
        layers: vec![
            HeadLayer::Dropout(0.5),
            HeadLayer::Linear(16),
            HeadLayer::BatchNorm,
            HeadLayer::Gelu,
            HeadLayer::LayerNorm,
        ],
        init: HeadInit::Normal,
    }
}

/// Networks that have every operation between them, at a size that is not their own.
#[test]
fn torchscript_gives_the_golden_logits_for_any_number_of_images() {
    let simple = || recipe().head;
    for (architecture, head) in [
        ("resnet18", deep()),
        ("tf_efficientnet_lite0", simple()),
        ("mobilenetv3_small_100", simple()),
        ("squeezenet1_1", simple()),
        ("convnext_tiny", simple()),
        ("vit_tiny_patch16_224", deep()),
        ("swin_tiny_patch4_window7_224", simple()),
        ("eva02_tiny_patch14_224", simple()),
        ("vit_small_patch16_dinov3", simple()),
        ("vit_base_patch16_siglip_224", simple()),
    ] {
        let material = Material::of(architecture, 4);
        let bundle = trained(&material, "run", Recipe { head, ..recipe() });
        let script = bundle.join("../model.pt");
        let format = ["--format", "torchscript"].map(Path::new);
        let arguments = [&[Path::new("export"), &bundle, &script], &format[..]].concat();
        let (said, code) = trainer(&arguments);
        assert!(
            matches!(said, Verified::Same { .. }),
            "{architecture}: {said:?}"
        );
        assert_eq!(code, Some(exit::DONE));
        gives_the_golden_logits(
            &script,
            &fs::read(bundle.join("golden.safetensors")).unwrap(),
        );
    }
}

/// Loads a script that we made, as any program with libtorch would.
fn gives_the_golden_logits(script: &Path, golden: &[u8]) {
    let golden = safetensors::SafeTensors::deserialize(golden).unwrap();
    let tensor = |name: &str| {
        let view = golden.tensor(name).unwrap();
        let size: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
        Tensor::from_data_size(view.data(), &size, tch::Kind::Float)
    };
    let (inputs, logits) = (tensor("inputs"), tensor("logits"));
    let module = CModule::load(script).unwrap();
    let scale = logits.abs().max().double_value(&[]);
    assert!(
        scale > 0.0,
        "golden logits of nothing but zeros tell nothing"
    );
    for count in [1, 3] {
        let found = module.forward_ts(&[inputs.narrow(0, 0, count)]).unwrap();
        let error = (&found - logits.narrow(0, 0, count)).abs().max();
        assert_eq!(found.size(), [count, logits.size()[1]]);
        assert!(
            error.double_value(&[]) <= 1e-3 * scale,
            "{count}: {error:?}"
        );
    }
}
