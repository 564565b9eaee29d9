//! The operations of transformers: image patches and words as tokens, and attention among tokens.
//! An image's tokens are [N, T, width]: the class token, registers if any, the patches.

use tch::{Kind, Tensor, nn};

use super::{
    conv::{Conv, ConvShape},
    linear::Linear,
    pass::{Activation, NORMAL, Param, Pass},
};
use crate::domain::input::Tokenization;

/// The name of a network's position embeddings.
pub const POSITIONS: &str = "pos_embed";

/// The tokens before an image's patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// The class token, which has a position.
    PositionedClass,
    /// The class token and registers, which have none.
    Class { registers: i64 },
}

/// Images to tokens: a linear map of each patch, after the prefix, plus position embeddings.
#[derive(Debug, Clone)]
pub struct PatchEmbedding {
    /// [1, 1, width].
    pub class_token: Param,
    /// [1, registers, width].
    pub registers: Option<Param>,
    /// [1, 1 + grid * grid, width] where the class token has a position, else one fewer.
    pub positions: Param,
    pub patches: Conv,
    pub prefix: Prefix,
}

impl PatchEmbedding {
    /// The prefix, and positions for `grid` patches along a side, from N(0, 0.02²); patches with or
    /// without a bias.
    pub fn new(
        root: &nn::Path,
        (patches, bias): (ConvShape, bool),
        grid: i64,
        prefix: Prefix,
    ) -> Self {
        let width = patches.outputs;
        let tokens =
            |name: &str, count| Param::new(root, name.to_owned(), &[1, count, width], NORMAL);
        let (positioned, registers) = match prefix {
            Prefix::PositionedClass => (1, 0),
            Prefix::Class { registers } => (0, registers),
        };
        Self {
            class_token: tokens("cls_token", 1),
            registers: (registers > 0).then(|| tokens("reg_token", registers)),
            positions: tokens(POSITIONS, positioned + grid * grid),
            patches: Conv::new(root, "patch_embed.proj", patches, bias),
            prefix,
        }
    }

    /// In timm's order.
    pub(super) fn params(&self) -> Vec<&Param> {
        let tokens = [&self.class_token].into_iter().chain(&self.registers);
        let all = tokens.chain([&self.positions]);
        all.chain(self.patches.params()).collect()
    }

    /// Images [N, C, S, S] to tokens. Pixels right of and below the last whole patch are ignored.
    /// S must be the side that the positions were made for.
    pub fn forward(&self, images: &Tensor) -> Tensor {
        let tokens = self.patches.forward(images).flatten(2, 3).transpose(1, 2);
        let kind = tokens.kind();
        // Expanded by another tensor's shape, not by a number: a traced network must take any N.
        // The smallest input has more patches than there are registers.
        let for_each = |param: &Param| {
            let count = param.size()[1];
            param.to_kind(kind).expand_as(&tokens.narrow(1, 0, count))
        };
        let class = for_each(&self.class_token);
        let positions = self.positions.to_kind(kind);
        match (self.prefix, &self.registers) {
            (Prefix::PositionedClass, _) => Tensor::cat(&[class, tokens], 1) + positions,
            (Prefix::Class { .. }, None) => Tensor::cat(&[class, tokens + positions], 1),
            (Prefix::Class { .. }, Some(registers)) => {
                Tensor::cat(&[class, for_each(registers), tokens + positions], 1)
            }
        }
    }
}

/// Self-attention of several heads (Vaswani et al. 2017).
#[derive(Debug, Clone)]
pub struct Attention {
    /// Queries, keys and values in one: [3 * width, width].
    pub qkv: Linear,
    pub proj: Linear,
    pub heads: i64,
}

impl Attention {
    pub fn new(root: &nn::Path, name: &str, width: i64, heads: i64) -> Self {
        let linear = |part: &str, outputs| {
            let name = format!("{name}.{part}");
            Linear::new(root, &name, (width, outputs), Activation::None)
        };
        Self {
            qkv: linear("qkv", 3 * width),
            proj: linear("proj", width),
            heads,
        }
    }

    /// Tokens [N, T, width] to tokens.
    pub fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Tensor {
        let size = x.size();
        let (tokens, width) = (size[1], size[2]);
        let qkv = self
            .qkv
            .forward(x, pass)
            .reshape([-1, tokens, 3, self.heads, width / self.heads])
            .permute([2, 0, 3, 1, 4]);
        let mixed = attend([qkv.get(0), qkv.get(1), qkv.get(2)], None);
        self.proj.forward(&mixed, pass)
    }
}

/// Mixes values by how well queries fit keys, all [N, heads, T, side], to [N, T, heads * side].
/// Tokens where `mask` [N, T] is 0 are not attended to.
fn attend([q, k, v]: [Tensor; 3], mask: Option<&Tensor>) -> Tensor {
    let (kind, size) = (q.kind(), q.size());
    let mut scores = (q * (size[3] as f64).powf(-0.5)).matmul(&k.transpose(-2, -1));
    if let Some(mask) = mask {
        let ended = mask.eq(0).unsqueeze(1).unsqueeze(1);
        scores = scores.masked_fill(&ended, f64::NEG_INFINITY);
    }
    let shares = scores.softmax(-1, Kind::Float).to_kind(kind);
    let mixed = shares.matmul(&v).transpose(1, 2);
    mixed.reshape([-1, size[2], size[1] * size[3]])
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
        let mixed = attend([query, key, value].map(by_head), pass.mask);
        out.forward(&mixed, pass)
    }
}
