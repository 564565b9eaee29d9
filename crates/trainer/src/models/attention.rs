//! The operations of Vision Transformers: image patches as tokens, and attention among tokens.
//! Tokens are [N, 1 + patches, width], the class token first.

use tch::{Kind, Tensor, nn};

use super::{
    conv::{Conv, ConvShape},
    linear::Linear,
    pass::{Activation, Pass, Visitor},
};

/// The name of a network's position embeddings.
pub const POSITIONS: &str = "pos_embed";

/// Images to tokens: a linear map of each patch, after the class token, plus position embeddings.
#[derive(Debug)]
pub struct PatchEmbedding {
    /// [1, 1, width].
    pub class_token: Tensor,
    /// [1, 1 + grid * grid, width].
    pub positions: Tensor,
    pub patches: Conv,
}

impl PatchEmbedding {
    /// The class token, and positions for `grid` patches along a side, from N(0, 0.02²).
    pub fn new(root: &nn::Path, patches: ConvShape, grid: i64) -> Self {
        let init = nn::Init::Randn {
            mean: 0.0,
            stdev: 0.02,
        };
        let width = patches.outputs;
        Self {
            class_token: root.var("cls_token", &[1, 1, width], init),
            positions: root.var(POSITIONS, &[1, 1 + grid * grid, width], init),
            patches: Conv::new(root, "patch_embed.proj", patches, true),
        }
    }

    /// Images [N, C, S, S] to tokens. Pixels right of and below the last whole patch are ignored.
    /// S must be the side that the positions were made for.
    pub fn forward(&self, images: &Tensor) -> Tensor {
        let tokens = self.patches.forward(images).flatten(2, 3).transpose(1, 2);
        let kind = tokens.kind();
        // Expanded by another tensor's shape, not by a number: a traced network must take any N.
        let class = self.class_token.to_kind(kind);
        let class = class.expand_as(&tokens.narrow(1, 0, 1));
        Tensor::cat(&[class, tokens], 1) + self.positions.to_kind(kind)
    }

    pub(super) fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor("cls_token".to_owned(), &self.class_token, true);
        visitor(POSITIONS.to_owned(), &self.positions, true);
        self.patches.visit(visitor);
    }
}

/// Self-attention of several heads (Vaswani et al. 2017).
#[derive(Debug)]
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
    pub fn forward(&self, x: &Tensor, pass: Pass) -> Tensor {
        let size = x.size();
        let (tokens, width) = (size[1], size[2]);
        let side = width / self.heads;
        let qkv = self
            .qkv
            .forward(x, pass)
            .reshape([-1, tokens, 3, self.heads, side])
            .permute([2, 0, 3, 1, 4]);
        let (q, k, v) = (qkv.get(0), qkv.get(1), qkv.get(2));
        let scores = (q * (side as f64).powf(-0.5)).matmul(&k.transpose(-2, -1));
        let shares = scores.softmax(-1, Kind::Float).to_kind(x.kind());
        let mixed = shares.matmul(&v);
        let joined = mixed.transpose(1, 2).reshape([-1, tokens, width]);
        self.proj.forward(&joined, pass)
    }

    pub(super) fn visit(&self, visitor: &mut Visitor<'_>) {
        self.qkv.visit(visitor);
        self.proj.visit(visitor);
    }
}
