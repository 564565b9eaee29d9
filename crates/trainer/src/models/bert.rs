//! BERT (Devlin et al. 2018, <https://arxiv.org/abs/1810.04805>) and DistilBERT (Sanh et al. 2019,
//! <https://arxiv.org/abs/1910.01108>), as in Hugging Face's transformers, without BERT's pooler.
//! Features, at any cut, are the first token's.

use tch::nn;

use super::{
    architecture::{Architecture, Builder, Family},
    attention::{MaskedAttention, TokenEmbedding},
    backbone::{Backbone, Stage},
    layer_norm::LayerNorm,
    linear::Linear,
    ops::Op,
    pass::Activation,
};
use crate::domain::input::{Input, Tokenization};

const EPS: f64 = 1e-12;

/// The configuration of one encoder.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    pub names: &'static Names,
    pub width: i64,
    /// Width between the two linear layers of a block.
    pub inner: i64,
    pub depth: i64,
    pub heads: i64,
}

/// The names of an encoder's parts.
#[derive(Debug)]
pub struct Names {
    /// Prefix of the blocks.
    blocks: &'static str,
    /// Query, key, value and output of attention.
    attention: [&'static str; 4],
    attention_norm: &'static str,
    /// The two linear layers after attention.
    mlp: [&'static str; 2],
    norm: &'static str,
    /// True when texts have segments, whose embeddings are added.
    has_segments: bool,
}

pub static BERT: Names = Names {
    blocks: "encoder.layer",
    attention: [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    ],
    attention_norm: "attention.output.LayerNorm",
    mlp: ["intermediate.dense", "output.dense"],
    norm: "output.LayerNorm",
    has_segments: true,
};

pub static DISTILBERT: Names = Names {
    blocks: "transformer.layer",
    attention: [
        "attention.q_lin",
        "attention.k_lin",
        "attention.v_lin",
        "attention.out_lin",
    ],
    attention_norm: "sa_layer_norm",
    mlp: ["ffn.lin1", "ffn.lin2"],
    norm: "output_layer_norm",
    has_segments: false,
};

/// An uncased English encoder as wide as BERT base.
const fn base(name: &'static str, config: &'static Config) -> Architecture {
    Architecture {
        name,
        library: "transformers",
        feature_dim: config.width as u32,
        classifier: "classifier",
        stem: "embeddings.word_embeddings.weight",
        input: Input::Text(Tokenization {
            vocabulary: 30_522,
            max_tokens: 512,
        }),
        builder: Builder::Text(config),
    }
}

const fn sized(names: &'static Names, depth: i64) -> Config {
    Config {
        names,
        width: 768,
        inner: 3072,
        depth,
        heads: 12,
    }
}

pub(super) static ARCHITECTURES: &[Architecture] = &[
    base("bert-base-uncased", &const { sized(&BERT, 12) }),
    base("distilbert-base-uncased", &const { sized(&DISTILBERT, 6) }),
];

impl Family<Tokenization> for Config {
    /// Stages `embeddings`, then one for each block.
    fn build(&self, root: &nn::Path, input: &Tokenization) -> Backbone {
        let width = self.width;
        let embed = TokenEmbedding::new(root, input, width, self.names.has_segments);
        let norm = LayerNorm::new(root, "embeddings.LayerNorm", width, EPS);
        let embeddings = vec![Op::TokenEmbedding(embed), Op::LayerNorm(norm)];
        let mut stages = vec![Stage::plain("embeddings", embeddings, width)];
        for index in 0..self.depth {
            let name = format!("{}.{index}", self.names.blocks);
            let body = self.block(root, &name);
            stages.push(Stage::plain(&name, body, width));
        }
        Backbone { stages }
    }
}

impl Config {
    /// Attention, then two linear layers, each with a shortcut around and normalized after.
    fn block(&self, root: &nn::Path, name: &str) -> Vec<Op> {
        let part = |part: &str| format!("{name}.{part}");
        let linear =
            |name, sides, activation| Op::Linear(Linear::new(root, &part(name), sides, activation));
        let norm = |name| Op::LayerNorm(LayerNorm::new(root, &part(name), self.width, EPS));
        let names = self.names.attention.map(part);
        let attention = MaskedAttention::new(root, &names, self.width, self.heads);
        let [up, down] = self.names.mlp;
        let (widen, narrow) = ((self.width, self.inner), (self.inner, self.width));
        vec![
            Op::Residual(vec![Op::MaskedAttention(attention)]),
            norm(self.names.attention_norm),
            Op::Residual(vec![
                linear(up, widen, Activation::Gelu),
                linear(down, narrow, Activation::None),
            ]),
            norm(self.names.norm),
        ]
    }
}
