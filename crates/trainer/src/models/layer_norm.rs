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

/// Global response normalization (Woo et al. 2023, <https://arxiv.org/abs/2301.00808>): a channel
/// is scaled by its norm over a map, relative to the mean of all channels' norms.
#[derive(Debug, Clone)]
pub struct ResponseNorm {
    /// `[C]`, as `bias`.
    pub weight: Param,
    pub bias: Param,
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

impl ResponseNorm {
    pub(super) const EPS: f64 = 1e-6;

    /// A fresh layer changes nothing.
    pub fn new(root: &nn::Path, name: &str, channels: i64) -> Self {
        let part = |part: &str| Param::new(root, format!("{name}.{part}"), &[channels], ZEROS);
        Self {
            weight: part("weight"),
            bias: part("bias"),
        }
    }

    /// [N, C, h, w] to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let wide = x.to_kind(Kind::Float);
        let norms = wide
            .square()
            .sum_dim_intlist([2i64, 3].as_slice(), true, Kind::Float)
            .sqrt();
        let response = &norms / (norms.mean_dim([1i64].as_slice(), true, Kind::Float) + Self::EPS);
        let [weight, bias] = [&self.weight, &self.bias].map(|param| param.view([1, -1, 1, 1]));
        (&wide + weight * (&wide * response) + bias).to_kind(x.kind())
    }
}
