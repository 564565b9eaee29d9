//! Inputs of the network, and features of its frozen shard.

use rehead_domain::{
    base_model::{AskedPreprocessing, Preprocessing},
    input::Modality,
    progress::Validated,
    recipe::{BatchNorm, FreezePhase, Recipe},
};
use rehead_trainer::{
    data::{batch, image},
    models::{
        architecture::Architecture,
        backbone::{Backbone, Stage},
        import::{self, Import},
        inference::Extractor,
        pass::Norm,
        registry,
        weights::{self, Tensors},
    },
    train::{
        network::{Network, Shard},
        step::optimizer::Optimizer,
    },
};
use tch::{Device, Tensor, nn};

use super::{build, layer4, train_on_images};
use crate::{
    inputs::{features, logits, recorded},
    support::{
        data, numbers,
        training::{input, small_side},
    },
};

/// An image as a network sees it: f32 [1, 3, S, S].
fn seen(file: &str, preprocessing: &Preprocessing) -> Tensor {
    let path = format!(
        "{}/tests/fixtures/images/{file}",
        env!("CARGO_MANIFEST_DIR")
    );
    let side = i64::from(preprocessing.input_size);
    let pixels = image::preprocess(&std::fs::read(path).unwrap(), 1 << 20, preprocessing).unwrap();
    let pixels = Tensor::from_slice(&pixels);
    batch::normalize(&pixels.view([1, side, side, 3]), preprocessing, Device::Cpu)
}

/// The weights that the demo uses, in timm's names.
fn published_lite0() -> Tensors {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("upload");
    std::fs::write(&input, data::lite0_weights()).unwrap();
    let plan = Import {
        input: &input,
        architecture: "tf_efficientnet_lite0",
        max_bytes: 1 << 30,
        preprocessing: &AskedPreprocessing::default(),
    };
    assert_eq!(
        import::run(&plan, folder.path()).unwrap(),
        Validated::Accepted
    );
    let tensors = Tensor::read_safetensors(folder.path().join(import::MODEL)).unwrap();
    tensors.into_iter().collect()
}

/// timm's transform on Pillow, then a network: three photos through the filters, crops, means and
/// deviations of three families.
#[test]
fn trap_11_images_are_preprocessed_as_the_weights_expect() {
    for case in recorded()["images"].as_array().unwrap() {
        let architecture = registry::find(case["name"].as_str().unwrap()).unwrap();
        let input = input(architecture, case["side"].as_u64().unwrap() as u32);
        let published = case["published"].as_bool().unwrap().then(published_lite0);
        let vs = nn::VarStore::new(Device::Cpu);
        let backbone = architecture.build(&vs.root(), &input);
        match &published {
            Some(tensors) => {
                weights::load_strict(&backbone.named(), tensors, &["classifier"]).unwrap();
            }
            None => numbers::fill(&backbone.named()),
        }
        for (place, file) in case["files"].as_array().unwrap().iter().enumerate() {
            let what = format!("{} of {file}", architecture.name);
            let images = seen(file.as_str().unwrap(), input.image().unwrap());
            let (norm, recorded) = (
                images.norm().double_value(&[]),
                case["inputs_l2"][place].as_f64().unwrap(),
            );
            assert!(
                (norm - recorded).abs() < 1e-3 * recorded,
                "{what}: {norm}, {recorded}"
            );
            let found = match &published {
                Some(tensors) => {
                    let of = |part: &str| &tensors[&format!("classifier.{part}")];
                    features(&backbone, &images).linear(of("weight"), Some(of("bias")))
                }
                None => logits(architecture, &backbone, &images),
            };
            let found = found.get(0);
            let norm = case["logits_l2"][place].as_f64().unwrap();
            numbers::compare(&what, &found, &case["logits_first8"][place], norm).unwrap();
        }
    }
}

/// The largest difference as a share of the largest number.
fn apart(one: &Tensor, other: &Tensor) -> f64 {
    let largest = other.abs().max().double_value(&[]);
    (one - other).abs().max().double_value(&[]) / largest
}

#[test]
fn trap_25_folding_batch_norm_changes_features_by_rounding_only() {
    let has_batch_norm = |architecture: &&Architecture| {
        let layers = registry::layers(architecture, &architecture.input);
        layers.tensors.iter().any(|one| !one.trainable)
    };
    let mut checked = 0;
    for architecture in registry::of(Modality::Image).filter(has_batch_norm) {
        let vs = nn::VarStore::new(Device::Cpu);
        let side = small_side(architecture);
        let backbone = architecture.build(&vs.root(), &input(architecture, side));
        // torchvision's recording has no gain.
        let recording = numbers::recording(architecture.name).unwrap_or_default();
        numbers::fill_for(&backbone.named(), &recording);
        let side = i64::from(side);
        let images = numbers::images("input", &[2, 3, side, side]);
        // Block by block, so that no rounding of one is a difference of the next.
        let mut x = images;
        let blocks = backbone.stages.into_iter().flat_map(|stage| {
            let Stage {
                name,
                blocks,
                channels,
            } = stage;
            blocks.into_iter().map(move |block| Stage {
                name: name.clone(),
                blocks: vec![block],
                channels,
            })
        });
        for stage in blocks {
            let one = Backbone {
                stages: vec![stage],
            };
            let plain = tch::no_grad(|| one.forward_until(&x, 1));
            let error = apart(&Extractor::new(&one).map(&x), &plain);
            let block = &one.stages[0].blocks[0].name;
            assert!(error < 1e-5, "{} {block}: {error}", architecture.name);
            x = plain;
        }
        checked += 1;
    }
    assert!(checked >= 18, "{checked} networks with BatchNorm");
}

/// Features in evaluation mode, without any folding.
fn unfolded(network: &Network, images: &Tensor) -> Tensor {
    let vs = nn::VarStore::new(Device::Cpu);
    let architecture = network.architecture;
    let backbone = architecture.build(&vs.root(), &architecture.input);
    let tensors: Tensors = network.tensors().into_iter().collect();
    weights::load_strict(&backbone.named(), &tensors, &[architecture.classifier]).unwrap();
    tch::no_grad(|| backbone.forward(images, 0, Norm::Running))
}

#[test]
fn trap_25_batch_norm_that_trains_is_never_folded() {
    let recipe = Recipe {
        later_phases: vec![FreezePhase {
            at_epoch: 1,
            trainable: Vec::new(),
        }],
        ..layer4(BatchNorm::Update)
    };
    let mut network = build(&recipe);
    let mut optimizer = Optimizer::new(&recipe, &network.parameters);
    let images = numbers::images("input", &[2, 3, 64, 64]);
    let first = network.features(&images);
    train_on_images(&mut network, &mut optimizer, &recipe, 1..=3);
    // Had layer4 been folded when the network was built, its statistics and weights would be those
    // of then.
    let trained = network.features(&images);
    assert!(apart(&trained, &first) > 1e-3);
    assert!(apart(&trained, &unfolded(&network, &images)) < 1e-5);
    // In training it is the batch's statistics that count, which no folded layer knows.
    let with_other = Tensor::cat(&[images.narrow(0, 0, 1), images.narrow(0, 1, 1) * -3.0], 0);
    let of_first = |images: &Tensor| network.features_train(images, &Shard::whole(1)).get(0);
    assert_ne!(of_first(&images), of_first(&with_other));
    // Once it is frozen it is folded, as it is by then.
    let before = network.features(&images);
    let unfolded = unfolded(&network, &images);
    assert!(optimizer.enter_phases(&mut network, &recipe, 2, 1).unwrap());
    let folded = network.features(&images);
    assert!(apart(&folded, &before) < 1e-5 && apart(&folded, &unfolded) < 1e-5);
}
