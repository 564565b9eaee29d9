//! Linear layers over the channels of each position, with or without an adapter.

use tch::{Tensor, nn};

use super::{
    lora::{self, Adapter},
    pass::{Activation, NORMAL, Param, Pass, ZEROS, over_channels},
};

/// A linear map and an activation. `weight` is [outputs, inputs].
#[derive(Debug, Clone)]
pub struct Linear {
    pub name: String,
    pub weight: Param,
    pub bias: Param,
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
        let part =
            |part: &str, dims: &[i64], init| Param::new(root, format!("{name}.{part}"), dims, init);
        Self {
            name: name.to_owned(),
            weight: part("weight", &[outputs, inputs], NORMAL),
            bias: part("bias", &[outputs], ZEROS),
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

    pub(super) fn params(&self) -> Vec<&Param> {
        let adapter = self
            .adapter
            .iter()
            .flat_map(|adapter| [&adapter.down, &adapter.up]);
        [&self.weight, &self.bias]
            .into_iter()
            .chain(adapter)
            .collect()
    }

    /// Merges the adapter, if there is one, into the weight.
    pub(super) fn merge_adapter(&mut self) {
        if let Some(Adapter {
            down, up, scale, ..
        }) = self.adapter.take()
        {
            self.weight = self
                .weight
                .replaced(lora::merged(&self.weight, &down, &up, scale));
        }
    }
}
