//! A linear layer with an adapter computes what PEFT's does.

use std::collections::BTreeMap;

use rehead_domain::recipe::Adapter;
use rehead_trainer::models::{
    backbone::{Backbone, Block, Stage},
    linear::Linear,
    ops::Op,
    pass::{Activation, Masks, Norm, Pass},
};
use tch::{Device, Kind as Number, Tensor, nn};

use crate::support::numbers;

/// A backbone of one linear layer, 6 to 4 wide, and its adapter's matrices, filled.
fn one_layer(asked: &Adapter) -> (Backbone, [Tensor; 2]) {
    let vs = nn::VarStore::new(Device::Cpu);
    let linear = Linear::new(&vs.root(), "layer", (6, 4), Activation::Gelu);
    let block = Block {
        name: "layer".to_owned(),
        body: vec![Op::Linear(linear)],
        shortcut: None,
        activation: Activation::None,
    };
    let mut backbone = Backbone {
        stages: vec![Stage {
            name: "layer".to_owned(),
            blocks: vec![block],
            channels: 4,
        }],
    };
    backbone.add_adapters(&vs.root(), asked, 1).unwrap();
    let named = backbone.named();
    let kaiming = named[2].1.abs().max().double_value(&[]);
    assert!(kaiming <= 1.0 / 6f64.sqrt() && kaiming > 0.3, "{kaiming}");
    assert_eq!(named[3].1.abs().sum(Number::Float).double_value(&[]), 0.0);
    numbers::fill(&named);
    let matrices = [2, 3].map(|place| named[place].1.detach());
    (backbone, matrices)
}

fn on_one_layer(dropout: f64) -> Adapter {
    Adapter {
        rank: 2,
        alpha: 3.0,
        dropout,
        layers: vec!["layer".to_owned()],
    }
}

/// `result + lora_B(lora_A(dropout(x))) * scaling`, as PEFT's `lora.Linear` has it, on tokens and
/// on maps.
#[test]
fn an_adapter_computes_what_pefts_does() {
    let (backbone, [a, b]) = one_layer(&on_one_layer(0.0));
    let named: BTreeMap<String, Tensor> = backbone.named().into_iter().collect();
    let by_hand = |x: &Tensor| {
        let base = x.matmul(&named["layer.weight"].transpose(0, 1)) + &named["layer.bias"];
        let update = x.matmul(&a.transpose(0, 1)).matmul(&b.transpose(0, 1)) * (3.0 / 2.0);
        (base + update).gelu("none")
    };
    let forward = |x: &Tensor| backbone.stages[0].forward(x, Norm::Running.into());
    let tokens = numbers::images("tokens", &[2, 5, 6]);
    let maps = numbers::images("maps", &[2, 6, 3, 4]);
    let places = maps.permute([0, 2, 3, 1]);
    for (found, expected) in [
        (forward(&tokens), by_hand(&tokens)),
        (forward(&maps).permute([0, 2, 3, 1]), by_hand(&places)),
    ] {
        let error = (&found - &expected).abs().max() / expected.abs().max();
        assert!(error.double_value(&[]) <= 1e-6, "{error}");
    }
}

/// Dropped inputs follow from the key and the layer; the others are scaled up, so that the mean
/// stays.
#[test]
fn dropout_of_adapters_is_keyed_and_leaves_the_mean() {
    let share = 0.25;
    let (backbone, [a, b]) = one_layer(&on_one_layer(share));
    let x = numbers::images("tokens", &[64, 8, 6]);
    let update = |key: Option<u64>| {
        let pass = Pass {
            dropout: key.map(|key| Masks { key, first: 0 }),
            ..Norm::Running.into()
        };
        backbone.stages[0].forward(&x, pass).detach()
    };
    assert_eq!(update(Some(5)), update(Some(5)));
    assert_ne!(update(Some(5)), update(Some(6)));
    assert_ne!(update(Some(5)), update(None));

    // With W = 0 and B A = 1 on four of six inputs the update shows the masks. (GELU is one to one
    // where it is positive.)
    tch::no_grad(|| {
        for (name, mut tensor) in backbone.named() {
            if name != "layer.lora_A.weight" && name != "layer.lora_B.weight" {
                let _ = tensor.zero_();
            }
        }
        let eye = Tensor::eye_m(2, 6, (Number::Float, Device::Cpu));
        a.shallow_clone().copy_(&eye);
        b.shallow_clone()
            .copy_(&Tensor::eye_m(4, 2, (Number::Float, Device::Cpu)));
    });
    let seen = (x.abs() + 1.0).narrow(2, 0, 2);
    let shown = |key: Option<u64>| {
        let pass = Pass {
            dropout: key.map(|key| Masks { key, first: 0 }),
            ..Norm::Running.into()
        };
        let out = backbone.stages[0].forward(&(x.abs() + 1.0), pass).detach();
        out.narrow(2, 0, 2)
    };
    let kept = (&seen * (1.5 / (1.0 - share))).gelu("none");
    let out = shown(Some(9));
    let dropped = out.eq(0.0);
    let is_kept = (&out - &kept).abs().le(1e-5);
    let each = dropped.logical_xor(&is_kept).all();
    assert_eq!(each.int64_value(&[]), 1, "a number is dropped or scaled");
    let found = dropped.to_kind(Number::Double).mean(Number::Double);
    assert!((found.double_value(&[]) - share).abs() < 0.05, "{found}");
}
