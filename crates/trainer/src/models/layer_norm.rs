//! Layer normalization and layer scale, over the channels of each position.

use tch::{Kind, Tensor, nn};

use super::pass::{Visitor, at, over_channels};

/// Layer normalization (Ba et al. 2016).
#[derive(Debug)]
pub struct LayerNorm {
    pub name: String,
    /// `[C]`, as `bias`.
    pub weight: Tensor,
    pub bias: Tensor,
    pub eps: f64,
}

/// A factor for each channel (Touvron et al. 2021).
#[derive(Debug)]
pub struct LayerScale {
    /// The tensor's own name.
    pub name: String,
    /// `[C]`.
    pub gamma: Tensor,
}

impl LayerNorm {
    /// A fresh layer: weight 1, bias 0.
    pub fn new(root: &nn::Path, name: &str, channels: i64, eps: f64) -> Self {
        let path = at(root, name);
        Self {
            name: name.to_owned(),
            weight: path.var("weight", &[channels], nn::Init::Const(1.0)),
            bias: path.var("bias", &[channels], nn::Init::Const(0.0)),
            eps,
        }
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        over_channels(x, |x| {
            let normal = x.to_kind(Kind::Float).layer_norm(
                self.weight.size(),
                Some(&self.weight),
                Some(&self.bias),
                self.eps,
                false,
            );
            normal.to_kind(x.kind())
        })
    }

    pub(super) fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor(format!("{}.weight", self.name), &self.weight, true);
        visitor(format!("{}.bias", self.name), &self.bias, true);
    }

    pub(super) fn copy(&self) -> Self {
        Self {
            name: self.name.clone(),
            weight: self.weight.copy(),
            bias: self.bias.copy(),
            eps: self.eps,
        }
    }
}

impl LayerScale {
    /// Every factor starts as `value`.
    pub fn new(root: &nn::Path, name: &str, channels: i64, value: f64) -> Self {
        let (module, tensor) = name.rsplit_once('.').unwrap_or(("", name));
        Self {
            name: name.to_owned(),
            gamma: at(root, module).var(tensor, &[channels], nn::Init::Const(value)),
        }
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        over_channels(x, |x| x * self.gamma.to_kind(x.kind()))
    }

    pub(super) fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor(self.name.clone(), &self.gamma, true);
    }

    pub(super) fn copy(&self) -> Self {
        Self {
            name: self.name.clone(),
            gamma: self.gamma.copy(),
        }
    }
}
