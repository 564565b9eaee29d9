//! Linear layers over the channels of each position, with or without an adapter.

use tch::{Kind, Tensor, nn};

use super::{
    fused::FusedLinear,
    lora::{self, Adapter},
    pass::{Activation, NORMAL, Param, Pass, ZEROS, over_channels},
};

/// The numbers that a linear layer adds to its outputs.
#[derive(Debug, Clone)]
pub enum Bias {
    None,
    All(Param),
    /// Queries' and values' of a layer that computes both, with the keys between them, which have
    /// none (EVA).
    QueriesAndValues(Box<[Param; 2]>),
}

/// A linear map and an activation. `weight` is [outputs, inputs].
#[derive(Debug, Clone)]
pub struct Linear {
    pub name: String,
    pub weight: Param,
    pub bias: Bias,
    pub activation: Activation,
    /// Added by `Backbone::add_adapters`.
    pub adapter: Option<Adapter>,
    /// For inference, in place of `weight`: what `inference` folds a layer into.
    fused: Option<FusedLinear>,
}

impl Bias {
    /// The value for each output; `None` where none is added.
    pub fn value(&self) -> Option<Tensor> {
        match self {
            Self::None => None,
            Self::All(bias) => Some(bias.shallow_clone()),
            Self::QueriesAndValues(both) => {
                let [queries, values] = both.each_ref().map(|one| one.shallow_clone());
                let keys = queries.zeros_like();
                Some(Tensor::cat(&[queries, keys, values], 0))
            }
        }
    }

    /// Changes it, for inference.
    fn replace(&mut self, change: impl Fn(&Tensor) -> Tensor) {
        let Some(value) = self.value() else { return };
        *self = match std::mem::replace(self, Self::None) {
            Self::None => Self::None,
            Self::All(param) => Self::All(param.replaced(change(&value))),
            Self::QueriesAndValues(both) => Self::All(both[0].replaced(change(&value))),
        };
    }
}

impl Linear {
    /// Fresh weights from N(0, 0.02²), bias 0.
    pub fn new(root: &nn::Path, name: &str, sides: (i64, i64), activation: Activation) -> Self {
        let bias = Param::new(root, format!("{name}.bias"), &[sides.1], ZEROS);
        Self::with_bias(root, name, sides, (Bias::All(bias), activation))
    }

    /// The same with this bias.
    pub(super) fn with_bias(
        root: &nn::Path,
        name: &str,
        (inputs, outputs): (i64, i64),
        (bias, activation): (Bias, Activation),
    ) -> Self {
        let weight = format!("{name}.weight");
        Self {
            name: name.to_owned(),
            weight: Param::new(root, weight, &[outputs, inputs], NORMAL),
            bias,
            activation,
            adapter: None,
            fused: None,
        }
    }

    pub fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Tensor {
        over_channels(x, |x| {
            let bias = self.bias.value().map(|bias| bias.to_kind(x.kind()));
            let bias = bias.as_ref();
            let fused = self.fused.as_ref();
            if let Some(out) = fused.and_then(|it| it.forward(x, bias, self.activation)) {
                return out;
            }
            let weight = fused.map_or_else(|| self.weight.shallow_clone(), FusedLinear::weight);
            let weight = weight.to_kind(x.kind());
            let out = x.linear(&weight, bias);
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
        let own: Vec<&Param> = match &self.bias {
            Bias::None => vec![&self.weight],
            Bias::All(bias) => vec![&self.weight, bias],
            // They are parameters of the module around this layer.
            Bias::QueriesAndValues(both) => vec![&both[0], &both[1], &self.weight],
        };
        own.into_iter().chain(adapter).collect()
    }

    /// The weight with the adapter merged, if there is one.
    pub(super) fn whole_weight(&self) -> Tensor {
        match (&self.fused, &self.adapter) {
            (Some(fused), _) => fused.weight(),
            (None, Some(adapter)) => {
                lora::merged(&self.weight, &adapter.down, &adapter.up, adapter.scale)
            }
            (None, None) => self.weight.shallow_clone(),
        }
    }

    /// Scales its outputs, which have no activation, by a factor for each.
    pub(super) fn scale_outputs(&mut self, factors: &Tensor) {
        self.merge_adapter();
        self.weight = self.weight.replaced(&*self.weight * factors.unsqueeze(1));
        self.bias.replace(|bias| bias * factors);
    }

    /// Makes it a layer for inference with numbers of this kind.
    pub(super) fn fuse(&mut self, kind: Kind) {
        if self.fused.is_none() {
            self.merge_adapter();
            self.fused = Some(FusedLinear::new(self.weight.to_kind(kind)));
            self.weight = self.weight.replaced(Tensor::new());
            self.bias.replace(|bias| bias.to_kind(kind));
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
