//! What a text encoder sees of a batch's other texts: nothing.

use rehead_trainer::models::text::{Config, Family, TextEncoder};
use tch::{Device, Kind, Tensor, nn};

use crate::support::numbers;

const TOKENS: i64 = 9;
const POSITIONS: i64 = 128;

fn encoder(family: Family) -> TextEncoder {
    let config = Config {
        family,
        vocabulary: 500,
        positions: POSITIONS,
        width: 96,
        inner: 192,
        depth: 3,
        heads: 4,
    };
    let vs = nn::VarStore::new(Device::Cpu);
    let encoder = TextEncoder::new(config, &vs.root());
    numbers::fill(&encoder.named());
    encoder
}

/// The vectors of the first tokens of a text that is padded with `filler` to `length`.
fn padded(encoder: &TextEncoder, length: i64, filler: i64) -> Tensor {
    let options = (Kind::Int64, Device::Cpu);
    let text = Tensor::arange(TOKENS, options) * 37 + 5;
    let rest = Tensor::full([length - TOKENS], filler, options);
    let ids = Tensor::cat(&[text, rest], 0).unsqueeze(0);
    let mask = Tensor::arange(length, options).lt(TOKENS);
    let vectors = encoder.forward(&ids, &mask.to_kind(Kind::Int64).unsqueeze(0));
    vectors.unwrap().narrow(1, 0, TOKENS)
}

#[test]
fn trap_18_a_texts_padding_changes_nothing_before_it() {
    tch::set_num_threads(1);
    for family in [Family::Bert, Family::DistilBert] {
        let encoder = encoder(family);
        let alone = padded(&encoder, TOKENS, 0);
        for (length, filler) in [(32, 0), (POSITIONS, 0), (32, 411)] {
            let apart = (padded(&encoder, length, filler) - &alone).abs().max();
            let apart = apart.double_value(&[]);
            assert!(apart < 1e-5, "{family:?}, padded to {length}: {apart}");
        }
    }
}

#[test]
fn trap_18_a_texts_tokens_see_each_other_and_their_places() {
    tch::set_num_threads(1);
    let encoder = encoder(Family::Bert);
    let run = |ids: &[i64]| {
        let ids = Tensor::from_slice(ids).unsqueeze(0);
        encoder.forward(&ids, &ids.ones_like()).unwrap().get(0)
    };
    let (first, second) = (run(&[5, 6, 7]), run(&[5, 7, 6]));
    // Of the first token, whose own word and place are the same.
    let apart = (first.get(0) - second.get(0)).norm().double_value(&[]);
    assert!(apart > 1e-3, "{apart}");
}

#[test]
fn trap_18_a_text_of_more_tokens_than_positions_is_refused_not_cut() {
    let encoder = encoder(Family::DistilBert);
    let ids = |length| Tensor::ones([1, length], (Kind::Int64, Device::Cpu));
    assert!(encoder.forward(&ids(POSITIONS), &ids(POSITIONS)).is_ok());
    let refused = encoder.forward(&ids(POSITIONS + 1), &ids(POSITIONS + 1));
    assert_eq!(
        refused.unwrap_err(),
        "129 tokens, where the encoder has positions for 128"
    );
}
