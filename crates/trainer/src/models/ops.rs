//! The operations that blocks are lists of.

use tch::Tensor;

use super::{
    attention::{Attention, AttentionPool, MaskedAttention, PatchEmbedding, TokenEmbedding},
    conv::{BatchNorm, Conv, ConvNorm, SqueezeExcite},
    fused::FusedConv,
    layer_norm::{LayerNorm, LayerScale, ResponseNorm},
    linear::Linear,
    pass::{Activation, Param, Pass},
    windows::{WindowAttention, merge_patches},
};

/// One step of a block.
#[derive(Debug, Clone)]
pub enum Op {
    ConvNorm(ConvNorm),
    /// BatchNorm that follows no convolution, and an activation.
    BatchNorm(BatchNorm, Activation),
    /// A convolution and an activation.
    Conv(Conv, Activation),
    /// The same for inference: what `inference` folds a `ConvNorm` into.
    FusedConv(FusedConv),
    SqueezeExcite(SqueezeExcite),
    LayerNorm(LayerNorm),
    Linear(Linear),
    LayerScale(LayerScale),
    ResponseNorm(ResponseNorm),
    PatchEmbedding(PatchEmbedding),
    Attention(Attention),
    AttentionPool(AttentionPool),
    WindowAttention(WindowAttention),
    TokenEmbedding(TokenEmbedding),
    MaskedAttention(MaskedAttention),
    /// `x + ops(x)`, for blocks with more than one shortcut.
    Residual(Vec<Op>),
    /// The channels of all `ops(x)`, one after the other; a branch without operations is `x`.
    Branches(Vec<Vec<Op>>),
    /// 3x3 at stride 2, one pixel of padding (ResNet's stem).
    MaxPool,
    /// 3x3 at stride 2 without padding; incomplete windows at the edge are pooled too (SqueezeNet).
    MaxPoolCeil,
    /// The same, incomplete windows left out (Inception).
    MaxPoolInside,
    /// The mean of 2x2 at stride 2, incomplete windows at the edge left out (DenseNet).
    AvgPool,
    /// The same, of what lies in incomplete windows too (ResNet-D).
    AvgPoolCeil,
    /// The mean of 3x3 at each position, zeros beyond the edge counted (Inception).
    AvgPoolSame,
    /// The mean over a map's positions, as a map [N, C, 1, 1].
    GlobalPool,
    /// The mean over an image's tokens behind the prefix, as one token [N, 1, C] (EVA).
    PatchMean {
        prefix: i64,
    },
    /// The channels of four neighbors side by side, at stride 2 (Swin).
    MergePatches,
    /// `silu(a) * b`, of the first and the second half of the channels (Shazeer 2020, SwiGLU).
    Gate,
}

impl Op {
    /// The operation's output for `x`.
    pub fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Tensor {
        match self {
            Self::ConvNorm(op) => op
                .activation
                .apply(op.norm.forward(&op.conv.forward(x), pass.norm)),
            Self::BatchNorm(op, activation) => activation.apply(op.forward(x, pass.norm)),
            Self::Conv(conv, activation) => activation.apply(conv.forward(x)),
            Self::FusedConv(op) => op.forward(x),
            Self::SqueezeExcite(op) => op.forward(x),
            Self::LayerNorm(op) => op.forward(x),
            Self::Linear(op) => op.forward(x, pass),
            Self::LayerScale(op) => op.forward(x),
            Self::ResponseNorm(op) => op.forward(x),
            Self::PatchEmbedding(op) => op.forward(x),
            Self::Attention(op) => op.forward(x, pass),
            Self::AttentionPool(op) => op.forward(x, pass),
            Self::WindowAttention(op) => op.forward(x, pass),
            Self::TokenEmbedding(op) => op.forward(x),
            Self::MaskedAttention(op) => op.forward(x, pass),
            Self::Residual(ops) => x + Self::run(ops, x, pass),
            Self::Branches(branches) => {
                let maps = branches.iter().map(|ops| Self::run(ops, x, pass));
                Tensor::cat(&maps.collect::<Vec<_>>(), 1)
            }
            Self::MaxPool => x.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false),
            Self::MaxPoolCeil => x.max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], true),
            Self::MaxPoolInside => x.max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], false),
            Self::AvgPool => average(x, false),
            Self::AvgPoolCeil => average(x, true),
            Self::AvgPoolSame => x.avg_pool2d([3, 3], [1, 1], [1, 1], false, true, None),
            Self::GlobalPool => x.mean_dim(&[2i64, 3][..], true, None),
            Self::PatchMean { prefix } => {
                let patches = x.slice(1, *prefix, None, 1);
                patches.mean_dim([1i64].as_slice(), true, None)
            }
            Self::MergePatches => merge_patches(x),
            Self::Gate => {
                let halves = x.chunk(2, -1);
                halves[0].silu() * &halves[1]
            }
        }
    }

    /// The output of operations in a row.
    pub(super) fn run(ops: &[Self], x: &Tensor, pass: Pass<'_>) -> Tensor {
        ops.iter()
            .fold(x.shallow_clone(), |x, op| op.forward(&x, pass))
    }

    /// Every tensor, in timm's order; none of what is for inference only.
    pub fn params(&self) -> Vec<&Param> {
        match self {
            Self::ConvNorm(op) => [op.conv.params(), op.norm.params()].concat(),
            Self::BatchNorm(op, _) => op.params(),
            Self::Conv(conv, _) => conv.params(),
            Self::SqueezeExcite(op) => [&op.reduce, &op.expand].map(Conv::params).concat(),
            Self::LayerNorm(op) => vec![&op.weight, &op.bias],
            Self::Linear(op) => op.params(),
            Self::LayerScale(op) => vec![&op.gamma],
            Self::ResponseNorm(op) => vec![&op.weight, &op.bias],
            Self::PatchEmbedding(op) => op.params(),
            Self::Attention(op) => op.params(),
            Self::AttentionPool(op) => op.params(),
            Self::WindowAttention(op) => {
                let table = [&op.table].into_iter();
                table.chain(op.attention.params()).collect()
            }
            Self::TokenEmbedding(op) => {
                let tables = [&op.words, &op.positions];
                tables.into_iter().chain(&op.segments).collect()
            }
            Self::MaskedAttention(op) => op.layers.each_ref().map(Linear::params).concat(),
            Self::Residual(ops) => ops.iter().flat_map(Self::params).collect(),
            Self::Branches(branches) => branches.iter().flatten().flat_map(Self::params).collect(),
            Self::FusedConv(_)
            | Self::MaxPool
            | Self::MaxPoolCeil
            | Self::MaxPoolInside
            | Self::AvgPool
            | Self::AvgPoolCeil
            | Self::AvgPoolSame
            | Self::GlobalPool
            | Self::PatchMean { .. }
            | Self::MergePatches
            | Self::Gate => Vec::new(),
        }
    }

    /// Calls `each` on every linear layer inside.
    pub(super) fn for_each_linear(&mut self, each: &mut dyn FnMut(&mut Linear)) {
        match self {
            Self::Linear(linear) => each(linear),
            Self::Attention(attention) => attention.for_each_linear(each),
            Self::AttentionPool(pool) => pool.layers.iter_mut().for_each(each),
            Self::WindowAttention(windows) => windows.attention.for_each_linear(each),
            Self::MaskedAttention(attention) => attention.layers.iter_mut().for_each(each),
            Self::Residual(ops) => ops.iter_mut().for_each(|op| op.for_each_linear(each)),
            Self::Branches(branches) => {
                let ops = branches.iter_mut().flatten();
                ops.for_each(|op| op.for_each_linear(each));
            }
            Self::ConvNorm(_)
            | Self::BatchNorm(..)
            | Self::Conv(..)
            | Self::FusedConv(_)
            | Self::SqueezeExcite(_)
            | Self::LayerNorm(_)
            | Self::LayerScale(_)
            | Self::ResponseNorm(_)
            | Self::PatchEmbedding(_)
            | Self::TokenEmbedding(_)
            | Self::MaxPool
            | Self::MaxPoolCeil
            | Self::MaxPoolInside
            | Self::AvgPool
            | Self::AvgPoolCeil
            | Self::AvgPoolSame
            | Self::GlobalPool
            | Self::PatchMean { .. }
            | Self::MergePatches
            | Self::Gate => {}
        }
    }
}

fn average(x: &Tensor, ceil: bool) -> Tensor {
    // Without padding, all that is counted lies in the map.
    x.avg_pool2d([2, 2], [2, 2], [0, 0], ceil, false, None)
}
