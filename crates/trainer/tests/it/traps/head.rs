//! New layers, and cuts under them.

use std::collections::BTreeMap;

use rehead_domain::{
    progress::exit,
    recipe::{Head, HeadInit, HeadLayer, Recipe},
};
use tch::Tensor;

use super::{CLASSES, build, copies};
use crate::support::training::{Material, parameters, recipe};

#[test]
fn trap_27_new_layers_are_initialized_as_in_pytorch() {
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
fn a_cut_backbone_with_a_deep_head_trains_and_exports() {
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
