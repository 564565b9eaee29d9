//! Operations over the channels of each place alone. Channels are the second dimension of maps [N, C, h, w] and the last
//! of tokens [N, T, C].

use tch::{Kind, Tensor, nn};

use super::{
    lora::{self, Adapter},
    ops::{Activation, Pass, at},
};

/// Ba et al. 2016.
#[derive(Debug)]
pub struct LayerNorm {
    pub name: String,
    /// `[C]`, as `bias`.
    pub weight: Tensor,
    pub bias: Tensor,
    pub eps: f64,
}

/// A linear map and an activation. `weight` is [outputs, inputs].
#[derive(Debug)]
pub struct Linear {
    pub name: String,
    pub weight: Tensor,
    pub bias: Tensor,
    pub activation: Activation,
    /// What `Backbone::adapt` gave it.
    pub adapter: Option<Adapter>,
}

/// A factor for each channel (Touvron et al. 2021).
#[derive(Debug)]
pub struct LayerScale {
    /// Of the tensor itself.
    pub name: String,
    /// `[C]`.
    pub gamma: Tensor,
}

/// Applies `f`, which works on the last dimension, to the channels.
fn over_channels(x: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
    if x.dim() == 4 {
        f(&x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2])
    } else {
        f(x)
    }
}

impl LayerNorm {
    /// The identity of what is normalized.
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

    pub(super) fn visit(&self, tell: &mut dyn FnMut(String, &Tensor, bool)) {
        tell(format!("{}.weight", self.name), &self.weight, true);
        tell(format!("{}.bias", self.name), &self.bias, true);
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

impl Linear {
    /// Fresh weights from N(0, 0.02²), bias 0.
    pub fn new(
        root: &nn::Path,
        name: &str,
        (inputs, outputs): (i64, i64),
        activation: Activation,
    ) -> Self {
        let path = at(root, name);
        let init = nn::Init::Randn {
            mean: 0.0,
            stdev: 0.02,
        };
        Self {
            name: name.to_owned(),
            weight: path.var("weight", &[outputs, inputs], init),
            bias: path.var("bias", &[outputs], nn::Init::Const(0.0)),
            activation,
            adapter: None,
        }
    }

    pub fn forward(&self, x: &Tensor, pass: Pass) -> Tensor {
        over_channels(x, |x| {
            let (weight, bias) = (self.weight.to_kind(x.kind()), self.bias.to_kind(x.kind()));
            let out = x.linear(&weight, Some(&bias));
            self.activation.apply(match &self.adapter {
                Some(adapter) => out + adapter.forward(x, pass.dropout),
                None => out,
            })
        })
    }

    pub(super) fn visit(&self, tell: &mut dyn FnMut(String, &Tensor, bool)) {
        tell(format!("{}.weight", self.name), &self.weight, true);
        tell(format!("{}.bias", self.name), &self.bias, true);
        if let Some(adapter) = &self.adapter {
            adapter.visit(&self.name, tell);
        }
    }

    /// With its adapter merged.
    pub(super) fn copy(&self) -> Self {
        Self {
            name: self.name.clone(),
            weight: match &self.adapter {
                Some(Adapter {
                    down, up, scale, ..
                }) => lora::merged(&self.weight, down, up, *scale),
                None => self.weight.copy(),
            },
            bias: self.bias.copy(),
            activation: self.activation,
            adapter: None,
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

    pub(super) fn visit(&self, tell: &mut dyn FnMut(String, &Tensor, bool)) {
        tell(self.name.clone(), &self.gamma, true);
    }

    pub(super) fn copy(&self) -> Self {
        Self {
            name: self.name.clone(),
            gamma: self.gamma.copy(),
        }
    }
}
