//! Linear layers over the channels of each position, with or without an adapter.

use tch::{Kind, Tensor, nn};

use super::{
    fused::FusedLinear,
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
    /// For inference, in place of `weight`: what `inference` folds a layer into.
    fused: Option<FusedLinear>,
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
            fused: None,
        }
    }

    pub fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Tensor {
        over_channels(x, |x| {
            let bias = self.bias.to_kind(x.kind());
            let fused = self.fused.as_ref();
            if let Some(out) = fused.and_then(|it| it.forward(x, &bias, self.activation)) {
                return out;
            }
            let weight = fused.map_or_else(|| self.weight.shallow_clone(), FusedLinear::weight);
            let weight = weight.to_kind(x.kind());
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

    /// Scales its outputs, which have no activation, by a factor for each.
    pub(super) fn scale_outputs(&mut self, factors: &Tensor) {
        self.merge_adapter();
        self.weight = self.weight.replaced(&*self.weight * factors.unsqueeze(1));
        self.bias = self.bias.replaced(&*self.bias * factors);
    }

    /// Makes it a layer for inference with numbers of this kind.
    pub(super) fn fuse(&mut self, kind: Kind) {
        if self.fused.is_none() {
            self.merge_adapter();
            self.fused = Some(FusedLinear::new(self.weight.to_kind(kind)));
            self.weight = self.weight.replaced(Tensor::new());
            self.bias = self.bias.replaced(self.bias.to_kind(kind));
        }
    }

    /// Merges the adapter, if there is one, into the weight.
    fn merge_adapter(&mut self) {
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
