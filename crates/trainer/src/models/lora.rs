//! Low-rank adapters (LoRA, Hu et al. 2021, <https://arxiv.org/abs/2106.09685>) on linear layers,
//! as PEFT's `lora.Linear`: `scale * B A x` is added to a layer's output, and only A and B train. B
//! starts at zero, so that training starts from the base network. Merged into the layer's weight,
//! an adapter costs nothing at inference.

use tch::{Tensor, nn};

use super::{
    init_rng::{dropout_mask, fill, uniform},
    pass::{Masks, Param, ZEROS},
    weights::Tensors,
};
use crate::domain::recipe;

/// Metadata key of a file of adapters: the factor of their products, a number as text.
pub const SCALE: &str = "lora_scale";

/// The trained addition to a linear layer.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// A, [rank, inputs].
    pub down: Param,
    /// B, [outputs, rank].
    pub up: Param,
    pub scale: f64,
    /// Share of the layer's inputs that is dropped before A in training.
    dropout: f64,
    /// Its index among the backbone's adapters: each has masks of its own.
    index: u64,
}

impl Adapter {
    /// An adapter for a layer of this name and weight. A is uniform within 1 / sqrt(inputs), which
    /// is Kaiming's rule with a = sqrt(5) (He et al. 2015), and depends on `seed` and `index`
    /// alone; B is zero.
    pub(super) fn new(
        root: &nn::Path,
        (layer, weight): (&str, &Tensor),
        recipe: &recipe::Adapter,
        (index, seed): (u64, u64),
    ) -> Self {
        let size = weight.size();
        let (outputs, inputs, rank) = (size[0], size[1], i64::from(recipe.rank));
        let [down, up] = recipe::Adapter::tensors_of(layer);
        let down = Param::new(root, down, &[rank, inputs], ZEROS);
        let bound = 1.0 / (inputs as f64).sqrt();
        let seed = seed.wrapping_add(index << 32);
        fill(&down, |i| bound * (2.0 * uniform(seed, i) - 1.0));
        Self {
            down,
            up: Param::new(root, up, &[outputs, rank], ZEROS),
            scale: recipe.scale(),
            dropout: recipe.dropout,
            index,
        }
    }

    /// The addition to the layer's output, [N, .., outputs], for its input [N, .., inputs]. Without
    /// dropout masks nothing is dropped.
    pub(super) fn forward(&self, x: &Tensor, masks: Option<Masks>) -> Tensor {
        let kind = x.kind();
        let (down, up) = (self.down.to_kind(kind), self.up.to_kind(kind));
        let seen = match masks.filter(|_| self.dropout > 0.0) {
            Some(masks) => {
                let mask = dropout_mask(x, self.dropout, masks.of_layer(self.index));
                x * mask.to_kind(kind)
            }
            None => x.shallow_clone(),
        };
        let low = seen.linear(&down, None::<&Tensor>);
        low.linear(&up, None::<&Tensor>) * self.scale
    }
}

/// A layer's weight [outputs, inputs] with an adapter merged: computed in double precision, rounded
/// once.
pub fn merged(weight: &Tensor, down: &Tensor, up: &Tensor, scale: f64) -> Tensor {
    tch::no_grad(|| {
        let double = |one: &Tensor| one.to_device(weight.device()).to_kind(tch::Kind::Double);
        let sum = double(weight) + double(up).matmul(&double(down)) * scale;
        sum.to_kind(weight.kind())
    })
}

/// Merges every adapter among `tensors` into its layer's weight from `base`, and replaces the
/// adapter's tensors by the merged weight. Adapters of other shapes stay as they are.
pub fn merge(tensors: &mut Tensors, base: &[(String, Tensor)], scale: f64) {
    for (name, weight) in base {
        let Some(layer) = name.strip_suffix(".weight") else {
            continue;
        };
        let [down, up] = recipe::Adapter::tensors_of(layer);
        let pair = tensors.get(&down).zip(tensors.get(&up));
        let Some((a, b)) = pair.filter(|(a, b)| fits(weight, a, b)) else {
            continue;
        };
        let sum = merged(weight, a, b, scale);
        tensors.remove(&down);
        tensors.remove(&up);
        tensors.insert(name.clone(), sum);
    }
}

/// A backbone's tensors with every adapter merged into its layer's weight.
pub fn merge_all(named: Vec<(String, Tensor)>, scale: f64) -> Vec<(String, Tensor)> {
    let is_adapter = |(name, _): &(String, Tensor)| recipe::Adapter::is_tensor(name);
    let (adapters, mut base): (Vec<_>, Vec<_>) = named.into_iter().partition(is_adapter);
    let mut merged: Tensors = adapters.into_iter().collect();
    merge(&mut merged, &base, scale);
    for (name, weight) in &mut base {
        if let Some(sum) = merged.remove(name) {
            *weight = sum;
        }
    }
    base
}

fn fits(weight: &Tensor, down: &Tensor, up: &Tensor) -> bool {
    let (weight, down, up) = (weight.size(), down.size(), up.size());
    match (&weight[..], &down[..], &up[..]) {
        ([outputs, inputs], [rank, read], [written, width]) => {
            (outputs, inputs, rank) == (written, read, width)
        }
        _ => false,
    }
}
