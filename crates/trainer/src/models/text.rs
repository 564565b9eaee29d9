//! Text encoders: BERT (Devlin et al. 2018, <https://arxiv.org/abs/1810.04805>) and DistilBERT (Sanh et al. 2019,
//! <https://arxiv.org/abs/1910.01108>), with the tensors' names of Hugging Face's transformers. No job trains on texts yet:
//! here is the network alone, for numbers that are checked, and the linear layers that adapters fit.

use tch::{Kind, Tensor, nn};

use super::{
    layer_norm::LayerNorm,
    linear::Linear,
    pass::{Activation, Norm, Pass, Visitor, at},
};

const EPS: f64 = 1e-12;
/// Kinds of segments that BERT was trained with: a text and the one that follows it.
const SEGMENTS: i64 = 2;

/// Which network's parts and names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// With embeddings of segments, and a pooling layer.
    Bert,
    DistilBert,
}

/// An encoder's sizes.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    pub family: Family,
    pub vocabulary: i64,
    /// Most tokens of a text.
    pub positions: i64,
    pub width: i64,
    /// Width between the two linear layers of a block.
    pub inner: i64,
    pub depth: i64,
    pub heads: i64,
}

/// Tokens to a vector for each.
#[derive(Debug)]
pub struct TextEncoder {
    config: Config,
    /// [vocabulary, width].
    words: Tensor,
    /// [positions, width].
    positions: Tensor,
    /// [segments, width]; BERT's alone.
    segments: Option<Tensor>,
    norm: LayerNorm,
    blocks: Vec<Block>,
    /// BERT's, from the first token's vector to the text's: no part of `forward`.
    pooler: Option<Linear>,
}

/// Attention, then two linear layers, each with a shortcut around and normalized after.
#[derive(Debug)]
struct Block {
    query: Linear,
    key: Linear,
    value: Linear,
    mixed: Linear,
    attention_norm: LayerNorm,
    outer: Linear,
    inner: Linear,
    norm: LayerNorm,
}

/// The names of a block's parts, in the order of `Block`.
type Names = [&'static str; 8];

const BERT: Names = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
];

const DISTILBERT: Names = [
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
];

impl TextEncoder {
    /// Fresh weights: N(0, 0.02²), biases 0.
    pub fn new(config: Config, root: &nn::Path) -> Self {
        let (width, embeddings) = (config.width, at(root, "embeddings"));
        let init = nn::Init::Randn {
            mean: 0.0,
            stdev: 0.02,
        };
        let table = |name: &str, rows| (&embeddings / name).var("weight", &[rows, width], init);
        let is_bert = config.family == Family::Bert;
        let stem = match config.family {
            Family::Bert => "encoder.layer",
            Family::DistilBert => "transformer.layer",
        };
        Self {
            words: table("word_embeddings", config.vocabulary),
            positions: table("position_embeddings", config.positions),
            segments: is_bert.then(|| table("token_type_embeddings", SEGMENTS)),
            norm: LayerNorm::new(root, "embeddings.LayerNorm", width, EPS),
            blocks: (0..config.depth)
                .map(|index| Block::new(&config, root, &format!("{stem}.{index}")))
                .collect(),
            pooler: is_bert
                .then(|| Linear::new(root, "pooler.dense", (width, width), Activation::None)),
            config,
        }
    }

    /// Vectors [N, T, width] of tokens: `ids` [N, T] of integers, and `mask` [N, T], 1 where there is a token and 0 where the
    /// text has ended; every text has a token. What stands behind a text's end has vectors too, which mean nothing and change
    /// nothing before it. All is one segment.
    ///
    /// # Errors
    /// Texts of more tokens than there are positions: one that does must be cut where it is read, and its reader told.
    pub fn forward(&self, ids: &Tensor, mask: &Tensor) -> Result<Tensor, String> {
        let (tokens, limit) = (ids.size()[1], self.config.positions);
        if tokens > limit {
            return Err(format!(
                "{tokens} tokens, where the encoder has positions for {limit}"
            ));
        }
        let words = Tensor::embedding(&self.words, ids, -1, false, false);
        let mut sum = words + self.positions.narrow(0, 0, tokens);
        if let Some(segments) = &self.segments {
            sum += segments.get(0);
        }
        let mut x = self.norm.forward(&sum);
        // Added to the scores of attention, [N, 1, 1, T]: nobody looks at what is not there.
        let ended = mask.eq(0).unsqueeze(1).unsqueeze(1);
        let away = mask.zeros_like().to_kind(Kind::Float);
        let away = away.unsqueeze(1).unsqueeze(1);
        let away = away.masked_fill(&ended, f64::NEG_INFINITY);
        for block in &self.blocks {
            x = block.forward(&x, &away, self.config.heads);
        }
        Ok(x)
    }

    /// Every tensor with its name, in the order of the published files.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        let mut all = Vec::new();
        let mut table = |name: &str, tensor: &Tensor| {
            all.push((format!("embeddings.{name}.weight"), tensor.shallow_clone()));
        };
        table("word_embeddings", &self.words);
        table("position_embeddings", &self.positions);
        if let Some(segments) = &self.segments {
            table("token_type_embeddings", segments);
        }
        let mut visitor = |name, tensor: &Tensor, _| all.push((name, tensor.shallow_clone()));
        self.norm.visit(&mut visitor);
        for block in &self.blocks {
            block.visit(&mut visitor);
        }
        if let Some(pooler) = &self.pooler {
            pooler.visit(&mut visitor);
        }
        all
    }
}

impl Block {
    fn new(config: &Config, root: &nn::Path, name: &str) -> Self {
        let (width, inner) = (config.width, config.inner);
        let names = match config.family {
            Family::Bert => BERT,
            Family::DistilBert => DISTILBERT,
        };
        let name = |part: usize| format!("{name}.{}", names[part]);
        let linear = |part, sides, activation| Linear::new(root, &name(part), sides, activation);
        let square = |part| linear(part, (width, width), Activation::None);
        let norm = |part| LayerNorm::new(root, &name(part), width, EPS);
        Self {
            query: square(0),
            key: square(1),
            value: square(2),
            mixed: square(3),
            attention_norm: norm(4),
            outer: linear(5, (width, inner), Activation::Gelu),
            inner: linear(6, (inner, width), Activation::None),
            norm: norm(7),
        }
    }

    fn forward(&self, x: &Tensor, away: &Tensor, heads: i64) -> Tensor {
        let size = x.size();
        let (tokens, width) = (size[1], size[2]);
        let pass = Pass::from(Norm::Running);
        let split = |linear: &Linear| {
            let all = linear.forward(x, pass);
            let by_head = all.reshape([-1, tokens, heads, width / heads]);
            by_head.transpose(1, 2)
        };
        let (q, k, v) = (split(&self.query), split(&self.key), split(&self.value));
        let side = (width / heads) as f64;
        let scores = (q * side.powf(-0.5)).matmul(&k.transpose(-2, -1)) + away;
        let mixed = scores.softmax(-1, Kind::Float).matmul(&v);
        let joined = mixed.transpose(1, 2).reshape([-1, tokens, width]);
        let x = self
            .attention_norm
            .forward(&(x + self.mixed.forward(&joined, pass)));
        let inner = self.inner.forward(&self.outer.forward(&x, pass), pass);
        self.norm.forward(&(x + inner))
    }

    fn visit(&self, visitor: &mut Visitor<'_>) {
        for linear in [&self.query, &self.key, &self.value, &self.mixed] {
            linear.visit(visitor);
        }
        self.attention_norm.visit(visitor);
        self.outer.visit(visitor);
        self.inner.visit(visitor);
        self.norm.visit(visitor);
    }
}
