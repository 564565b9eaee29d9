//! Weights that a job goes on from.

use std::{collections::BTreeMap, path::Path};

use rehead_domain::{
    recipe::{Head, HeadInit, HeadLayer, Inherited, Recipe},
    work::PlanModel,
};
use rehead_trainer::train::network::Network;
use tch::{Device, Tensor};

use super::over;
use crate::support::training::{base_model, recipe};

/// Two classes more than the parent's, unless `known` says that its head is not kept.
fn going_on(known: u32) -> Recipe {
    Recipe {
        inherited: Some(Inherited {
            labels: ["a", "b", "c", "d", "e"].map(str::to_owned).into(),
            known,
        }),
        ..recipe()
    }
}

fn tensors(network: &Network) -> BTreeMap<String, Tensor> {
    let all = network.tensors().into_iter();
    all.map(|(name, tensor)| (name, tensor.copy())).collect()
}

/// The base model, a parent with three classes whose backbone and head have moved, and the parent's
/// tensors.
fn parent(folder: &Path) -> (PlanModel, BTreeMap<String, Tensor>) {
    tch::set_num_threads(1);
    let base = base_model("resnet18", folder);
    let normal = Head {
        init: HeadInit::Normal,
        ..recipe().head
    };
    let network = Network::build(
        &base,
        &Recipe {
            head: normal,
            ..recipe()
        },
        3,
        Device::Cpu,
    );
    let mut tensors = tensors(&network.unwrap());
    for name in ["layer4.1.conv2.weight", "fc.bias"] {
        let moved = &tensors[name] + 1.0;
        tensors.insert(name.to_owned(), moved);
    }
    (base, tensors)
}

fn copied(tensors: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let all = tensors.iter();
    all.map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
        .collect()
}

fn write(tensors: &BTreeMap<String, Tensor>, path: &Path) {
    let tensors: Vec<(&String, &Tensor)> = tensors.iter().collect();
    Tensor::write_safetensors(&tensors, path).unwrap();
}

#[test]
fn trap_8_a_renamed_tensor_of_a_parent_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (base, sound) = parent(folder.path());
    let path = folder.path().join("parent.safetensors");
    let build = |tensors: &BTreeMap<String, Tensor>, whole: bool| {
        write(tensors, &path);
        Network::build(&over(&base, &path, whole), &going_on(3), 5, Device::Cpu)
            .map(|network| self::tensors(&network))
    };
    assert!(build(&sound, true).is_ok());
    for name in ["layer4.1.conv2.weight", "fc.weight"] {
        let mut renamed = copied(&sound);
        let tensor = renamed.remove(name).unwrap();
        renamed.insert(format!("{name}s"), tensor);
        for whole in [true, false] {
            let error = build(&renamed, whole).unwrap_err();
            let failure = error.failure();
            assert_eq!(failure.code, "invalid_weights", "{error}");
            assert!(!failure.retryable);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
    // A checkpoint may lack what its run never trained, a model nothing.
    let mut fewer = copied(&sound);
    fewer.remove("layer1.0.conv1.weight");
    assert!(build(&fewer, false).is_ok());
    let error = build(&fewer, true).unwrap_err();
    assert!(
        error.to_string().contains("layer1.0.conv1.weight"),
        "{error}"
    );
}

#[test]
fn trap_8_a_new_head_takes_nothing_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let (base, parent) = parent(folder.path());
    let path = folder.path().join("parent.safetensors");
    write(&parent, &path);
    let over = over(&base, &path, true);
    let network = Network::build(&over, &going_on(0), 5, Device::Cpu).unwrap();
    let replaced = tensors(&network);
    assert_eq!(
        replaced["fc.weight"],
        Tensor::zeros([5, 512], (tch::Kind::Float, Device::Cpu))
    );
    assert_eq!(
        replaced["layer4.1.conv2.weight"],
        parent["layer4.1.conv2.weight"]
    );
    let deep = Recipe {
        head: Head {
            layers: vec![HeadLayer::Relu],
            init: HeadInit::Zero,
        },
        ..going_on(0)
    };
    let network = Network::build(&over, &deep, 5, Device::Cpu).unwrap();
    assert!(!tensors(&network).contains_key("fc.weight"));
}

/// Old rows are the parent's to the bit; new ones begin at their mean, so that no prediction
/// changes.
#[test]
fn trap_8_a_head_that_grows_keeps_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (base, parent) = parent(folder.path());
    let path = folder.path().join("parent.safetensors");
    write(&parent, &path);
    let network = Network::build(&over(&base, &path, true), &going_on(3), 5, Device::Cpu).unwrap();
    let grown = tensors(&network);
    for name in ["fc.weight", "fc.bias"] {
        let (old, new) = (&parent[name], &grown[name]);
        assert_eq!(new.size()[0], 5);
        assert_eq!(new.narrow(0, 0, 3), *old, "{name}");
        for row in [3, 4] {
            assert_eq!(
                new.get(row),
                old.mean_dim(&[0i64][..], false, old.kind()),
                "{name}"
            );
        }
    }
    let features = Tensor::randn([64, 512], (tch::Kind::Float, Device::Cpu));
    let logits = network.logits(&features);
    let best = |logits: &Tensor| Vec::<i64>::try_from(logits.argmax(1, false)).unwrap();
    assert_eq!(best(&logits), best(&logits.narrow(1, 0, 3)));
    // Only what trained since is another backbone than the base model's: its features are not made
    // twice.
    assert_ne!(network.backbone_sha256, base.weights_sha256);
    let mut unmoved = copied(&parent);
    let own = Network::build(&base, &recipe(), 3, Device::Cpu).unwrap();
    let kept = tensors(&own).remove("layer4.1.conv2.weight").unwrap();
    unmoved.insert("layer4.1.conv2.weight".to_owned(), kept);
    write(&unmoved, &path);
    let network = Network::build(&over(&base, &path, true), &going_on(3), 5, Device::Cpu).unwrap();
    assert_eq!(network.backbone_sha256, base.weights_sha256);
}
