//! The operations of transformers: image patches and words as tokens, and attention among tokens.
//! An image's tokens are [N, T, width]: the class token, registers if any, the patches. Without a
//! class token they are a map [N, width, h, w].

use tch::{Kind, Tensor, nn};

use super::{
    conv::{Conv, ConvShape},
    linear::Linear,
    pass::{Activation, NORMAL, Param, Pass, over_tokens, tokens},
    rotary::Rotary,
};
use crate::domain::input::Tokenization;

/// The name of a network's position embeddings.
pub const POSITIONS: &str = "pos_embed";

/// The tokens before an image's patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// None: the patches stay a map.
    None,
    /// The class token, which has a position.
    PositionedClass,
    /// The class token and registers, which have none.
    Class { registers: i64 },
}

impl Prefix {
    /// Number of these tokens.
    pub const fn tokens(self) -> i64 {
        match self {
            Self::None => 0,
            Self::PositionedClass => 1,
            Self::Class { registers } => 1 + registers,
        }
    }
}

/// Images to tokens: a linear map of each patch, after the prefix, plus position embeddings.
#[derive(Debug, Clone)]
pub struct PatchEmbedding {
    /// [1, 1, width].
    pub class_token: Option<Param>,
    /// [1, registers, width].
    pub registers: Option<Param>,
    /// [1, 1 + grid * grid, width] where the class token has a position, else one fewer.
    pub positions: Option<Param>,
    pub patches: Conv,
    pub prefix: Prefix,
}

impl PatchEmbedding {
    /// The prefix, and positions for `grid` patches along a side, if any, from N(0, 0.02²); patches
    /// with or without a bias.
    pub fn new(
        root: &nn::Path,
        (patches, bias): (ConvShape, bool),
        grid: Option<i64>,
        prefix: Prefix,
    ) -> Self {
        let width = patches.outputs;
        let tokens = |name: &str, count: i64| {
            let new = || Param::new(root, name.to_owned(), &[1, count, width], NORMAL);
            (count > 0).then(new)
        };
        let class = i64::from(prefix != Prefix::None);
        let positioned = i64::from(prefix == Prefix::PositionedClass);
        Self {
            class_token: tokens("cls_token", class),
            registers: tokens("reg_token", prefix.tokens() - class),
            positions: tokens(POSITIONS, grid.map_or(0, |grid| positioned + grid * grid)),
            patches: Conv::new(root, "patch_embed.proj", patches, bias),
            prefix,
        }
    }

    /// In timm's order.
    pub(super) fn params(&self) -> Vec<&Param> {
        let tokens = self.class_token.iter().chain(&self.registers);
        let all = tokens.chain(&self.positions);
        all.chain(self.patches.params()).collect()
    }

    /// Images [N, C, S, S] to tokens. Pixels right of and below the last whole patch are ignored.
    /// S must be the side that the positions were made for.
    pub fn forward(&self, images: &Tensor) -> Tensor {
        let map = self.patches.forward(images);
        let kind = map.kind();
        let positions = self.positions.as_ref().map(|all| all.to_kind(kind));
        let add = |x: Tensor| match &positions {
            Some(positions) => x + positions,
            None => x,
        };
        if self.prefix == Prefix::None {
            return over_tokens(&map, add);
        }
        let patches = tokens(&map);
        // Expanded by another tensor's shape, not by a number: a traced network must take any N.
        // The smallest input has no fewer patches than there are registers.
        let for_each = |param: &Param| {
            let count = param.size()[1];
            param.to_kind(kind).expand_as(&patches.narrow(1, 0, count))
        };
        let mut parts: Vec<Tensor> = self.class_token.iter().map(for_each).collect();
        parts.extend(self.registers.iter().map(for_each));
        if self.prefix == Prefix::PositionedClass {
            parts.push(patches);
            return add(Tensor::cat(&parts, 1));
        }
        parts.push(add(patches));
        Tensor::cat(&parts, 1)
    }
}

/// Self-attention of several heads (Vaswani et al. 2017).
#[derive(Debug, Clone)]
pub struct Attention {
    /// Queries, keys and values in one: [3 * width, width].
    pub qkv: Linear,
    pub proj: Linear,
    pub heads: i64,
    /// Rotates queries and keys by their positions.
    pub rotary: Option<Rotary>,
}

impl Attention {
    pub fn new(root: &nn::Path, name: &str, width: i64, heads: i64) -> Self {
        let qkv = format!("{name}.qkv");
        let qkv = Linear::new(root, &qkv, (width, 3 * width), Activation::None);
        Self::with_qkv(root, name, (qkv, heads), None)
    }

    /// The same with queries, keys and values by this layer, and rotary positions.
    pub(super) fn with_qkv(
        root: &nn::Path,
        name: &str,
        (qkv, heads): (Linear, i64),
        rotary: Option<Rotary>,
    ) -> Self {
        let width = qkv.weight.size()[1];
        let proj = format!("{name}.proj");
        Self {
            qkv,
            proj: Linear::new(root, &proj, (width, width), Activation::None),
            heads,
            rotary,
        }
    }

    pub(super) fn params(&self) -> Vec<&Param> {
        [&self.qkv, &self.proj].map(Linear::params).concat()
    }

    pub(super) fn for_each_linear(&mut self, each: &mut dyn FnMut(&mut Linear)) {
        each(&mut self.qkv);
        each(&mut self.proj);
    }

    /// Tokens, or a map, to the same.
    pub fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Tensor {
        over_tokens(x, |x| self.mix(&x, pass, |scores| scores))
    }

    /// Tokens [N, T, width] to the same, by shares that follow from `altered` scores [N, heads, T,
    /// T].
    pub(super) fn mix(
        &self,
        x: &Tensor,
        pass: Pass<'_>,
        altered: impl Fn(Tensor) -> Tensor,
    ) -> Tensor {
        let size = x.size();
        let (tokens, width) = (size[1], size[2]);
        let qkv = self
            .qkv
            .forward(x, pass)
            .reshape([-1, tokens, 3, self.heads, width / self.heads])
            .permute([2, 0, 3, 1, 4]);
        let rotated = |x: Tensor| match &self.rotary {
            Some(rotary) => rotary.rotate(&x),
            None => x,
        };
        let parts = [rotated(qkv.get(0)), rotated(qkv.get(1)), qkv.get(2)];
        self.proj.forward(&attend(parts, altered), pass)
    }
}

/// Mixes values by how well queries fit keys, all [N, heads, T, side], to [N, T, heads * side].
/// The scores are `altered` before they become shares.
fn attend([q, k, v]: [Tensor; 3], altered: impl Fn(Tensor) -> Tensor) -> Tensor {
    let (kind, size) = (q.kind(), q.size());
    let scores = (q * (size[3] as f64).powf(-0.5)).matmul(&k.transpose(-2, -1));
    let shares = altered(scores).softmax(-1, Kind::Float).to_kind(kind);
    let mixed = shares.matmul(&v).transpose(1, 2);
    mixed.reshape([-1, size[2], size[1] * size[3]])
}

/// Attention by one query that is a parameter, to one token (Zhai et al. 2022,
/// <https://arxiv.org/abs/2106.04560>): SigLIP's pooling.
#[derive(Debug, Clone)]
pub struct AttentionPool {
    /// [1, 1, width].
    pub latent: Param,
    /// Query, keys with values, and output. Boxed, because other operations are far smaller.
    pub layers: Box<[Linear; 3]>,
    pub heads: i64,
}

impl AttentionPool {
    pub fn new(root: &nn::Path, name: &str, width: i64, heads: i64) -> Self {
        let linear = |part: &str, outputs| {
            let name = format!("{name}.{part}");
            Linear::new(root, &name, (width, outputs), Activation::None)
        };
        Self {
            latent: Param::new(root, format!("{name}.latent"), &[1, 1, width], NORMAL),
            layers: Box::new([
                linear("q", width),
                linear("kv", 2 * width),
                linear("proj", width),
            ]),
            heads,
        }
    }

    /// In timm's order.
    pub(super) fn params(&self) -> Vec<&Param> {
        let layers = self.layers.iter().flat_map(Linear::params);
        [&self.latent].into_iter().chain(layers).collect()
    }

    /// Tokens, or a map, to one token [N, 1, width].
    pub fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Tensor {
        let x = tokens(x);
        let size = x.size();
        let (count, side) = (size[1], size[2] / self.heads);
        let [query, keys_values, out] = &*self.layers;
        // One for each sample, as the masks of an adapter's dropout are.
        let latent = self.latent.to_kind(x.kind()).expand_as(&x.narrow(1, 0, 1));
        let q = query.forward(&latent, pass);
        let q = q.reshape([-1, 1, self.heads, side]).transpose(1, 2);
        let kv = keys_values.forward(&x, pass);
        let kv = kv.reshape([-1, count, 2, self.heads, side]);
        let kv = kv.permute([2, 0, 3, 1, 4]);
        out.forward(&attend([q, kv.get(0), kv.get(1)], |scores| scores), pass)
    }
}

/// Token ids to vectors: the sum of a token's, its position's and the first segment's embedding.
#[derive(Debug, Clone)]
pub struct TokenEmbedding {
    /// [vocabulary, width].
    pub words: Param,
    /// [max_tokens, width].
    pub positions: Param,
    /// [2, width]: a text and the one that follows it. All is one segment here.
    pub segments: Option<Param>,
}

impl TokenEmbedding {
    /// Fresh tables from N(0, 0.02²).
    pub fn new(root: &nn::Path, input: &Tokenization, width: i64, has_segments: bool) -> Self {
        let table = |name: &str, rows: i64| {
            let name = format!("embeddings.{name}.weight");
            Param::new(root, name, &[rows, width], NORMAL)
        };
        Self {
            words: table("word_embeddings", i64::from(input.vocabulary)),
            positions: table("position_embeddings", i64::from(input.max_tokens)),
            segments: has_segments.then(|| table("token_type_embeddings", 2)),
        }
    }

    /// Token ids [N, T] to vectors [N, T, width].
    ///
    /// # Panics
    /// When T is above the number of positions: texts are truncated where they are read, and their
    /// readers told.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        let (tokens, limit) = (ids.size()[1], self.positions.size()[0]);
        assert!(
            tokens <= limit,
            "a text of {tokens} tokens, where the encoder has {limit} positions"
        );
        let words = Tensor::embedding(&self.words, ids, -1, false, false);
        let mut sum = words + self.positions.narrow(0, 0, tokens);
        if let Some(segments) = &self.segments {
            sum += segments.get(0);
        }
        sum
    }
}

/// Self-attention of several heads with a layer each for queries, keys and values, in which nothing
/// attends to what lies behind a text's end.
#[derive(Debug, Clone)]
pub struct MaskedAttention {
    /// Queries, keys, values and output. Boxed, because other operations are far smaller.
    pub layers: Box<[Linear; 4]>,
    pub heads: i64,
}

impl MaskedAttention {
    /// `names` are the layers' full names.
    pub fn new(root: &nn::Path, names: &[String; 4], width: i64, heads: i64) -> Self {
        let linear = |name: &String| Linear::new(root, name, (width, width), Activation::None);
        Self {
            layers: Box::new(names.each_ref().map(linear)),
            heads,
        }
    }

    /// Tokens [N, T, width] to tokens; `pass.mask` says where texts end.
    pub fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Tensor {
        let size = x.size();
        let (tokens, side) = (size[1], size[2] / self.heads);
        let [query, key, value, out] = &*self.layers;
        let by_head = |linear: &Linear| {
            let all = linear.forward(x, pass);
            all.reshape([-1, tokens, self.heads, side]).transpose(1, 2)
        };
        let masked = |scores: Tensor| match pass.mask {
            Some(mask) => {
                let ended = mask.eq(0).unsqueeze(1).unsqueeze(1);
                scores.masked_fill(&ended, f64::NEG_INFINITY)
            }
            None => scores,
        };
        let mixed = attend([query, key, value].map(by_head), masked);
        out.forward(&mixed, pass)
    }
}
