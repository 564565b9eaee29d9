//! Weights from outside: published ones compute what they were published for, and what does not fit
//! is named.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rehead_domain::{
    base_model::{AskedPreprocessing, Preprocessing},
    problem::Problem,
    progress::Validated,
    work::Imported,
};
use rehead_trainer::{
    data::{batch, image},
    models::{
        head,
        import::{self, Import},
        pass::{Masks, Norm, Statistics},
        registry, weights,
    },
};
use serde_json::Value;
use tch::{Device, Kind, Tensor, nn};

use crate::support::{data, numbers};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/weights")
        .join(name)
}

fn import(input: &Path, architecture: &str, folder: &Path) -> Validated {
    let plan = Import {
        input,
        architecture,
        max_bytes: 1 << 30,
        preprocessing: &AskedPreprocessing::default(),
    };
    import::run(&plan, folder).unwrap()
}

/// The problems of an import that must be refused and leave nothing behind.
fn refused(input: &Path, architecture: &str) -> Vec<Problem> {
    let folder = tempfile::tempdir().unwrap();
    let outcome = import(input, architecture, folder.path());
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "a refused import leaves nothing"
    );
    match outcome {
        Validated::Refused { problems } => problems,
        other => panic!("{}: {other:?}", input.display()),
    }
}

/// Lite0 as published, imported.
fn lite0(folder: &Path) -> Imported {
    let input = folder.join("upload");
    fs::write(&input, data::lite0_weights()).unwrap();
    assert_eq!(
        import(&input, "tf_efficientnet_lite0", folder),
        Validated::Accepted
    );
    serde_json::from_slice(&fs::read(folder.join(import::IMPORTED)).unwrap()).unwrap()
}

/// The imported network: features and logits [N, ...] of images.
fn network(folder: &Path, architecture: &str) -> impl Fn(&Tensor) -> (Tensor, Tensor) {
    let architecture = registry::find(architecture).unwrap();
    let tensors = weights::read_safetensors(&folder.join(import::MODEL)).unwrap();
    let vs = nn::VarStore::new(Device::Cpu);
    let backbone = architecture.build(&vs.root(), &architecture.input);
    weights::load_strict(&backbone.named(), &tensors, &[architecture.classifier]).unwrap();
    let [weight, bias] = ["weight", "bias"]
        .map(|part| tensors[&format!("{}.{part}", architecture.classifier)].shallow_clone());
    move |images| {
        let features = tch::no_grad(|| backbone.forward(images, 0, Norm::Running));
        let logits = features.linear(&weight, Some(&bias));
        (features, logits)
    }
}

#[test]
fn published_lite0_gives_its_golden_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let imported = lite0(folder.path());
    assert_eq!(imported.classes, Some(1000));
    assert_eq!(imported.parameters, 4_652_008);
    assert_eq!(imported.layers.feature_dim, 1280);
    assert_eq!(
        imported.input,
        registry::find("tf_efficientnet_lite0").unwrap().input
    );

    let pixels: Vec<f32> = (0..3i32)
        .flat_map(|c| {
            (0..224).flat_map(move |i| (0..224).map(move |j| (7 * i + 13 * j + 29 * c) % 255 - 127))
        })
        .map(|x| x as f32 / 128.0)
        .collect();
    let images = Tensor::from_slice(&pixels).view([1, 3, 224, 224]);
    let (features, logits) = network(folder.path(), "tf_efficientnet_lite0")(&images);
    let golden: Value =
        serde_json::from_slice(&fs::read(fixture("lite0-golden.json")).unwrap()).unwrap();
    for (key, found) in [
        ("efficientnet_lite0.pool1280@224", features),
        ("efficientnet_lite0.logits@224", logits),
    ] {
        let (golden, found) = (&golden[key], found.get(0));
        numbers::compare(
            key,
            &found,
            &golden["first5"],
            golden["l2"].as_f64().unwrap(),
        )
        .unwrap();
        let (top, places) = found.topk(5, 0, true, true);
        assert_eq!(
            serde_json::json!(Vec::<i64>::try_from(places).unwrap()),
            golden["top5_idx"],
            "{key}"
        );
        numbers::compare(key, &top, &golden["top5"], norm(&golden["top5"])).unwrap();
        let (sum, recorded) = (
            found.sum(Kind::Double).double_value(&[]),
            golden["sum"].as_f64().unwrap(),
        );
        assert!(
            (sum - recorded).abs() < 1e-3 * recorded.abs(),
            "{key}: sum {sum}, recorded {recorded}"
        );
    }
}

/// Photos of foolbox, each named after its class: `imagenet_04_949.jpg` is of class 949. The
/// publisher's network, as it is imported and fed here, must know them.
#[test]
fn published_lite0_recognizes_photos() {
    let folder = tempfile::tempdir().unwrap();
    // They are cut out already: foolbox feeds them whole, scaled to the network's input, and so
    // were the 18 recorded.
    let preprocessing = Preprocessing {
        crop_fraction: 1.0,
        ..lite0(folder.path()).input.image().unwrap().clone()
    };
    let network = network(folder.path(), "tf_efficientnet_lite0");
    let photos = data::foolbox_photos();
    assert_eq!(photos.len(), 20);
    let side = i64::from(preprocessing.input_size);
    let mut right = 0;
    for (bytes, class) in &photos {
        let photo = image::preprocess(bytes, 1 << 24, &preprocessing).unwrap();
        let pixels = Tensor::from_slice(&photo).view([1, side, side, 3]);
        let (_, logits) = network(&batch::normalize(&pixels, &preprocessing, Device::Cpu));
        right += u32::from(logits.argmax(1, false).int64_value(&[0]) == *class);
    }
    println!("{right} of {} photos right", photos.len());
    assert!(right >= 18, "{right} of {} photos right", photos.len());
}

fn norm(numbers: &Value) -> f64 {
    numbers
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap().powi(2))
        .sum::<f64>()
        .sqrt()
}

/// The same tensors from both of torch's formats, alone or among other things: views, halves,
/// integers, nothing.
#[test]
fn torch_files_of_both_formats_are_read() {
    let grid = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([3, 4]);
    let expected = BTreeMap::from([
        ("brain", grid.to_kind(Kind::BFloat16)),
        ("corner", grid.narrow(0, 1, 2).narrow(1, 2, 2)),
        ("empty", Tensor::zeros([0, 3], (Kind::Float, Device::Cpu))),
        ("flags", Tensor::from_slice(&[true, false])),
        ("grid", grid.shallow_clone()),
        ("half", grid.to_kind(Kind::Half)),
        ("parameter", grid.shallow_clone()),
        ("scalar", Tensor::from(7i64)),
        ("turned", grid.tr()),
    ]);
    for name in [
        "state.zip.pth",
        "state.legacy.pth",
        "wrapped.zip.pth",
        "wrapped.legacy.pth",
    ] {
        let read =
            import::read(&fixture(name), 1 << 20).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            read.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "{name}"
        );
        for (key, tensor) in &read {
            assert_eq!(tensor.kind(), expected[key.as_str()].kind(), "{name} {key}");
            assert_eq!(*tensor, expected[key.as_str()], "{name} {key}");
        }
    }
}

#[test]
fn pickles_with_more_than_tensors_are_refused_unexecuted() {
    for (name, says) in [
        ("hostile.zip.pth", "posix.system"),
        ("hostile.legacy.pth", "posix.system"),
        ("module.zip.pth", "torch.nn.modules.linear.Linear"),
        ("torchscript.pt", "TorchScript"),
        ("make.py", "neither safetensors nor"),
    ] {
        let problems = refused(&fixture(name), "resnet18");
        assert_eq!(problems.len(), 1, "{name}");
        assert_eq!(problems[0].code, "unsupported_format", "{name}");
        assert!(
            problems[0].message.contains(says),
            "{name}: {}",
            problems[0].message
        );
    }
    assert!(!Path::new("hostile-pickle-ran").exists());
}

/// No change of a single byte, and no cut, makes the reader panic or read past the file.
#[test]
fn damaged_torch_files_are_errors_or_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged");
    for name in ["state.zip.pth", "state.legacy.pth"] {
        let bytes = fs::read(fixture(name)).unwrap();
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1 << (place % 8);
            fs::write(&path, &changed).unwrap();
            let _ = import::read(&path, 1 << 20);
            fs::write(&path, &bytes[..place]).unwrap();
            assert!(
                import::read(&path, 1 << 20).is_err(),
                "{name} cut to {place} bytes"
            );
        }
    }
}

#[test]
fn weights_that_do_not_fit_are_named_tensor_by_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let vs = nn::VarStore::new(Device::Cpu);
    let resnet = registry::find("resnet18").unwrap();
    let mut named = resnet.build(&vs.root(), &resnet.input).named();
    let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
    named.retain(|(name, _)| name != "layer2.0.bn1.weight");
    named
        .iter_mut()
        .find(|(name, _)| name == "conv1.weight")
        .unwrap()
        .1 = zeros(&[64, 2, 7, 7]);
    named
        .iter_mut()
        .find(|(name, _)| name == "bn1.bias")
        .unwrap()
        .1 = zeros(&[64]) / 0.0;
    named.push(("layer5.0.weight".to_owned(), zeros(&[1])));
    named.push(("fc.weight".to_owned(), zeros(&[10, 511])));
    weights::write_safetensors(&path, &named, &BTreeMap::new()).unwrap();
    let found: Vec<(String, String)> = refused(&path, "resnet18")
        .into_iter()
        .map(|p| (p.path, p.code))
        .collect();
    let expected = [
        ("layer2.0.bn1.weight", "missing_tensor"),
        ("fc.bias", "missing_tensor"),
        ("layer5.0.weight", "unexpected_tensor"),
        ("conv1.weight", "misshapen_tensor"),
        ("fc.weight", "misshapen_tensor"),
        ("bn1.bias", "not_finite"),
    ];
    assert_eq!(
        found,
        expected.map(|(path, code)| (path.to_owned(), code.to_owned()))
    );

    let problems = refused(&path, "resnet81");
    assert_eq!(problems[0].code, "unknown_architecture");
    assert!(
        problems[0].message.contains("`resnet18`"),
        "{}",
        problems[0].message
    );
}

/// A side of zero makes any shape cost no bytes of a file: the other sides are claims.
#[test]
fn shapes_without_numbers_are_named_and_cost_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claims.safetensors");
    for (architecture, tensor, shape) in [
        ("resnet18", "fc.weight", vec![1_000_000_000, 0]),
        ("resnet18", "fc.bias", vec![1_000_000_000, 0]),
        ("resnet18", "conv1.weight", vec![1_000_000_000, 3, 0, 0]),
        (
            "squeezenet1_1",
            "classifier.1.weight",
            vec![4_000_000_000, 512, 0, 0],
        ),
        ("vit_tiny_patch16_224", "pos_embed", vec![1, 1_000_001, 0]),
        ("vit_tiny_patch16_224", "head.weight", vec![i64::MAX, 0]),
    ] {
        let backbone = registry::find(architecture).unwrap();
        let vs = nn::VarStore::new(Device::Cpu);
        let mut named = backbone.build(&vs.root(), &backbone.input).named();
        named.retain(|(name, _)| name != tensor);
        let empty = Tensor::zeros([0], (Kind::Float, Device::Cpu)).view(&shape[..]);
        named.push((tensor.to_owned(), empty));
        weights::write_safetensors(&path, &named, &BTreeMap::new()).unwrap();
        let problems = refused(&path, architecture);
        let found = problems.iter().find(|problem| problem.path == tensor);
        let found = found.unwrap_or_else(|| panic!("{architecture} {tensor}: {problems:?}"));
        assert_eq!(found.code, "misshapen_tensor", "{found:?}");
    }
}

/// Weights without a head are a base model too; what an import writes, it accepts, and writes the
/// same bytes again.
#[test]
fn an_import_of_an_import_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    fs::create_dir(&first).unwrap();
    fs::create_dir(&second).unwrap();
    let vs = nn::VarStore::new(Device::Cpu);
    let b0 = registry::find("efficientnet_b0").unwrap();
    let named = b0.build(&vs.root(), &b0.input).named();
    let path = folder.path().join("headless.safetensors");
    weights::write_safetensors(&path, &named, &BTreeMap::new()).unwrap();
    assert_eq!(
        import(&path, "efficientnet_b0", &first),
        Validated::Accepted
    );
    let imported: Imported =
        serde_json::from_slice(&fs::read(first.join(import::IMPORTED)).unwrap()).unwrap();
    assert_eq!(imported.classes, None);
    assert_eq!(
        import(&first.join(import::MODEL), "efficientnet_b0", &second),
        Validated::Accepted
    );
    let bytes = |folder: &Path| fs::read(folder.join(import::MODEL)).unwrap();
    assert!(bytes(&first) == bytes(&second));
}

/// Dropout follows from its seed alone.
#[test]
fn a_head_repeats_itself_for_the_same_seed() {
    use rehead_domain::recipe::{Head, HeadInit, HeadLayer};
    let recipe = Head {
        layers: vec![HeadLayer::Dropout(0.5)],
        init: HeadInit::Normal,
    };
    let build = || {
        let vs = nn::VarStore::new(Device::Cpu);
        head::Head::new(&vs.root(), &recipe, 64, 3, 7)
    };
    let (one, two) = (build(), build());
    assert_eq!(one.weight, two.weight);
    let spread = one.weight.std(false).double_value(&[]);
    assert!((0.008..0.012).contains(&spread), "{spread}");
    let features = numbers::images("input", &[8, 64]);
    let trained = |head: &head::Head, key| {
        let masks = Masks { key, first: 0 };
        head.forward_train(&features, masks, &Statistics::default())
    };
    assert_eq!(trained(&one, 5), trained(&two, 5));
    assert_ne!(trained(&one, 5), trained(&one, 6));
    assert_ne!(trained(&one, 5), one.forward(&features));
    // A sample has its masks whatever samples pass with it.
    let masks = Masks { key: 5, first: 3 };
    let rest = one.forward_train(&features.narrow(0, 3, 5), masks, &Statistics::default());
    let apart = (rest - trained(&one, 5).narrow(0, 3, 5)).abs().max();
    assert!(apart.double_value(&[]) < 1e-6, "{apart:?}");
}
