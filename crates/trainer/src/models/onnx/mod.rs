//! A network as ONNX (<https://onnx.ai>), written from its description: the stages of a backbone
//! folded for inference, pooling, the head. Samples [N, C, S, S] f32 in, logits [N, outputs] out,
//! for any N.

use super::{head::Head, inference::Extractor};
use crate::domain::base_model::Preprocessing;

mod graph;
mod layers;

/// The messages of an ONNX file.
pub mod proto;

/// ONNX's version of each operator that is written, and the version of the file that goes with it.
/// Runtimes of 2022 and later read them.
const OPERATOR_SET: i64 = 17;
const IR_VERSION: i64 = 8;

/// Name of the graph's input: preprocessed images.
pub const INPUT: &str = "images";
/// Name of the graph's output.
pub const OUTPUT: &str = "logits";

/// The file of a network that reads images, with these facts in its `metadata_props`.
///
/// # Panics
/// When the network reads text.
pub fn model(
    backbone: &Extractor,
    head: &Head,
    input: &Preprocessing,
    metadata: Vec<(String, String)>,
) -> proto::Model {
    let entries = metadata.into_iter();
    proto::Model {
        ir_version: IR_VERSION,
        producer_name: "rehead".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(tch::no_grad(|| graph(backbone, head, input))),
        opset_import: vec![proto::OperatorSet {
            domain: String::new(),
            version: OPERATOR_SET,
        }],
        metadata_props: entries
            .map(|(key, value)| proto::Entry { key, value })
            .collect(),
    }
}

fn graph(backbone: &Extractor, head: &Head, input: &Preprocessing) -> proto::Graph {
    let mut graph = graph::GraphBuilder::default();
    let [channels, side] = [input.channels, input.input_size].map(i64::from);
    let images = graph.input(INPUT, &[channels, side, side]);
    let features = layers::backbone(&mut graph, backbone.folded(), &images);
    let logits = layers::head(&mut graph, head, features);
    graph.finish(&images, &logits, OUTPUT)
}
