//! A text encoder computes each text of a batch by itself.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rehead_domain::input::Tokenization;
use rehead_trainer::models::{
    architecture::Family,
    backbone::Backbone,
    bert::{BERT, Config, DISTILBERT, Names},
    pass::{Norm, Pass},
};
use tch::{Device, Kind, Tensor, nn};

use crate::support::numbers;

const TOKENS: i64 = 9;
const POSITIONS: i64 = 128;

fn encoder(names: &'static Names) -> Backbone {
    let config = Config {
        names,
        width: 96,
        inner: 192,
        depth: 3,
        heads: 4,
    };
    let input = Tokenization {
        vocabulary: 500,
        max_tokens: POSITIONS as u32,
    };
    let vs = nn::VarStore::new(Device::Cpu);
    let encoder = config.build(&vs.root(), &input);
    numbers::fill(&encoder.named());
    encoder
}

/// The vectors [N, T, width] of tokens.
fn vectors(encoder: &Backbone, ids: &Tensor, mask: &Tensor) -> Tensor {
    let pass = Pass {
        mask: Some(mask),
        ..Norm::Running.into()
    };
    let stages = encoder.stages.iter();
    stages.fold(ids.shallow_clone(), |x, stage| stage.forward(&x, pass))
}

/// The vectors of the first tokens of a text that is padded with `filler` to `length`.
fn padded(encoder: &Backbone, length: i64, filler: i64) -> Tensor {
    let options = (Kind::Int64, Device::Cpu);
    let text = Tensor::arange(TOKENS, options) * 37 + 5;
    let rest = Tensor::full([length - TOKENS], filler, options);
    let ids = Tensor::cat(&[text, rest], 0).unsqueeze(0);
    let mask = Tensor::arange(length, options).lt(TOKENS);
    let mask = mask.to_kind(Kind::Int64).unsqueeze(0);
    vectors(encoder, &ids, &mask).narrow(1, 0, TOKENS)
}

#[test]
fn trap_18_a_texts_padding_changes_nothing_before_it() {
    tch::set_num_threads(1);
    for names in [&BERT, &DISTILBERT] {
        let encoder = encoder(names);
        let alone = padded(&encoder, TOKENS, 0);
        for (length, filler) in [(32, 0), (POSITIONS, 0), (32, 411)] {
            let apart = (padded(&encoder, length, filler) - &alone).abs().max();
            let apart = apart.double_value(&[]);
            assert!(apart < 1e-5, "{names:?}, padded to {length}: {apart}");
        }
    }
}

#[test]
fn trap_18_tokens_attend_to_each_other_and_to_positions() {
    tch::set_num_threads(1);
    let encoder = encoder(&BERT);
    let run = |ids: &[i64]| {
        let ids = Tensor::from_slice(ids).unsqueeze(0);
        vectors(&encoder, &ids, &ids.ones_like()).get(0)
    };
    let (first, second) = (run(&[5, 6, 7]), run(&[5, 7, 6]));
    // Of the first token, whose own word and place are the same.
    let apart = (first.get(0) - second.get(0)).norm().double_value(&[]);
    assert!(apart > 1e-3, "{apart}");
}

#[test]
fn trap_18_a_text_that_is_too_long_is_refused() {
    let encoder = encoder(&DISTILBERT);
    let run = |length| {
        let ids = Tensor::ones([1, length], (Kind::Int64, Device::Cpu));
        catch_unwind(AssertUnwindSafe(|| vectors(&encoder, &ids, &ids)))
    };
    assert!(run(POSITIONS).is_ok());
    let refused = run(POSITIONS + 1).unwrap_err();
    assert_eq!(
        refused.downcast_ref::<String>().unwrap(),
        "a text of 129 tokens, where the encoder has 128 positions"
    );
}
