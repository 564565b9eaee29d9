//! Linear layers over the channels of each position, with or without an adapter.

use tch::{Tensor, nn};

use super::{
    lora::{self, Adapter},
    pass::{Activation, Pass, Visitor, at, over_channels},
};

/// A linear map and an activation. `weight` is [outputs, inputs].
#[derive(Debug)]
pub struct Linear {
    pub name: String,
    pub weight: Tensor,
    pub bias: Tensor,
    pub activation: Activation,
    /// Added by `Backbone::add_adapters`.
    pub adapter: Option<Adapter>,
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

    pub fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Tensor {
        over_channels(x, |x| {
            let (weight, bias) = (self.weight.to_kind(x.kind()), self.bias.to_kind(x.kind()));
            let out = x.linear(&weight, Some(&bias));
            self.activation.apply(match &self.adapter {
                Some(adapter) => out + adapter.forward(x, pass.dropout),
                None => out,
            })
        })
    }

    pub(super) fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor(format!("{}.weight", self.name), &self.weight, true);
        visitor(format!("{}.bias", self.name), &self.bias, true);
        if let Some(adapter) = &self.adapter {
            adapter.visit(&self.name, visitor);
        }
    }

    /// A copy with the adapter merged.
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
