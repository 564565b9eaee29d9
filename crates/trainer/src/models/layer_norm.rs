//! Layer normalization and layer scale, over the channels of each position.

use tch::{Kind, Tensor, nn};

use super::pass::{ONES, Param, ZEROS, over_channels};

/// Layer normalization (Ba et al. 2016).
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// `[C]`, as `bias`.
    pub weight: Param,
    pub bias: Param,
    pub eps: f64,
}

/// A factor for each channel (Touvron et al. 2021).
#[derive(Debug, Clone)]
pub struct LayerScale {
    /// `[C]`.
    pub gamma: Param,
}

impl LayerNorm {
    /// A fresh layer: weight 1, bias 0.
    pub fn new(root: &nn::Path, name: &str, channels: i64, eps: f64) -> Self {
        let part = |part: &str, init| Param::new(root, format!("{name}.{part}"), &[channels], init);
        Self {
            weight: part("weight", ONES),
            bias: part("bias", ZEROS),
            eps,
        }
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        over_channels(x, |x| {
            let normal = x.to_kind(Kind::Float).layer_norm(
                self.weight.size(),
                Some(&*self.weight),
                Some(&*self.bias),
                self.eps,
                false,
            );
            normal.to_kind(x.kind())
        })
    }
}

impl LayerScale {
    /// Every factor starts as `value`; `name` is the tensor's own.
    pub fn new(root: &nn::Path, name: String, channels: i64, value: f64) -> Self {
        Self {
            gamma: Param::new(root, name, &[channels], nn::Init::Const(value)),
        }
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        over_channels(x, |x| x * self.gamma.to_kind(x.kind()))
    }
}
