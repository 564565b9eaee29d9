//! The operations that blocks are lists of.

use tch::Tensor;

use super::{
    attention::{Attention, MaskedAttention, PatchEmbedding, TokenEmbedding},
    conv::{Conv, ConvNorm, Fire, SqueezeExcite},
    layer_norm::{LayerNorm, LayerScale},
    linear::Linear,
    pass::{Activation, Pass, Visitor},
};

/// One step of a block.
#[derive(Debug)]
pub enum Op {
    ConvNorm(ConvNorm),
    /// A convolution with bias and an activation: what `inference` folds a `ConvNorm` into.
    Conv {
        conv: Conv,
        activation: Activation,
    },
    SqueezeExcite(SqueezeExcite),
    Fire(Fire),
    LayerNorm(LayerNorm),
    Linear(Linear),
    LayerScale(LayerScale),
    PatchEmbedding(PatchEmbedding),
    Attention(Attention),
    TokenEmbedding(TokenEmbedding),
    MaskedAttention(MaskedAttention),
    /// `x + ops(x)`, for blocks with more than one shortcut.
    Residual(Vec<Op>),
    /// 3x3 at stride 2, one pixel of padding (ResNet's stem).
    MaxPool,
    /// 3x3 at stride 2 without padding; incomplete windows at the edge are pooled too (SqueezeNet).
    MaxPoolCeil,
    /// The mean over a map's positions, as a map [N, C, 1, 1].
    GlobalPool,
}

impl Op {
    /// The operation's output for `x`.
    pub fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Tensor {
        match self {
            Self::ConvNorm(op) => op
                .activation
                .apply(op.norm.forward(&op.conv.forward(x), pass.norm)),
            Self::Conv { conv, activation } => activation.apply(conv.forward(x)),
            Self::SqueezeExcite(op) => op.forward(x),
            Self::Fire(op) => op.forward(x),
            Self::LayerNorm(op) => op.forward(x),
            Self::Linear(op) => op.forward(x, pass),
            Self::LayerScale(op) => op.forward(x),
            Self::PatchEmbedding(op) => op.forward(x),
            Self::Attention(op) => op.forward(x, pass),
            Self::TokenEmbedding(op) => op.forward(x),
            Self::MaskedAttention(op) => op.forward(x, pass),
            Self::Residual(ops) => {
                x + ops
                    .iter()
                    .fold(x.shallow_clone(), |x, op| op.forward(&x, pass))
            }
            Self::MaxPool => x.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false),
            Self::MaxPoolCeil => x.max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], true),
            Self::GlobalPool => x.mean_dim(&[2i64, 3][..], true, None),
        }
    }

    /// Visits every tensor, in timm's order.
    pub fn visit(&self, visitor: &mut Visitor<'_>) {
        match self {
            Self::ConvNorm(op) => {
                op.conv.visit(visitor);
                let norm = &op.norm;
                visitor(format!("{}.weight", norm.name), &norm.weight, true);
                visitor(format!("{}.bias", norm.name), &norm.bias, true);
                visitor(
                    format!("{}.running_mean", norm.name),
                    &norm.running_mean,
                    false,
                );
                visitor(
                    format!("{}.running_var", norm.name),
                    &norm.running_var,
                    false,
                );
            }
            Self::Conv { conv, .. } => conv.visit(visitor),
            Self::SqueezeExcite(op) => {
                op.reduce.visit(visitor);
                op.expand.visit(visitor);
            }
            Self::Fire(op) => {
                op.squeeze.visit(visitor);
                op.expand1.visit(visitor);
                op.expand3.visit(visitor);
            }
            Self::LayerNorm(op) => op.visit(visitor),
            Self::Linear(op) => op.visit(visitor),
            Self::LayerScale(op) => op.visit(visitor),
            Self::PatchEmbedding(op) => op.visit(visitor),
            Self::Attention(op) => op.visit(visitor),
            Self::TokenEmbedding(op) => op.visit(visitor),
            Self::MaskedAttention(op) => {
                op.layers().into_iter().for_each(|one| one.visit(visitor));
            }
            Self::Residual(ops) => {
                for op in ops {
                    op.visit(visitor);
                }
            }
            Self::MaxPool | Self::MaxPoolCeil | Self::GlobalPool => {}
        }
    }

    /// Calls `each` on every linear layer inside.
    pub(super) fn for_each_linear(&mut self, each: &mut dyn FnMut(&mut Linear)) {
        match self {
            Self::Linear(linear) => each(linear),
            Self::Attention(attention) => {
                each(&mut attention.qkv);
                each(&mut attention.proj);
            }
            Self::MaskedAttention(attention) => {
                each(&mut attention.query);
                each(&mut attention.key);
                each(&mut attention.value);
                each(&mut attention.out);
            }
            Self::Residual(ops) => ops.iter_mut().for_each(|op| op.for_each_linear(each)),
            Self::ConvNorm(_)
            | Self::Conv { .. }
            | Self::SqueezeExcite(_)
            | Self::Fire(_)
            | Self::LayerNorm(_)
            | Self::LayerScale(_)
            | Self::PatchEmbedding(_)
            | Self::TokenEmbedding(_)
            | Self::MaxPool
            | Self::MaxPoolCeil
            | Self::GlobalPool => {}
        }
    }
}
