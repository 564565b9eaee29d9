//! Low-rank adapters (LoRA, Hu et al. 2021, <https://arxiv.org/abs/2106.09685>) on linear layers, as in PEFT's `lora.Linear`:
//! a layer's output gains `scale * B A x`, and what is trained is A and B alone. B begins at zero, so that the network begins
//! as it was; merged into the layer's weight, an adapter costs nothing any more.

use tch::{Tensor, nn};

use super::{
    backbone::Backbone,
    channels::Linear,
    draws::{dropout_mask, fill, uniform},
    ops::{Op, at},
    weights::Tensors,
};
use crate::domain::recipe;

/// In the header of a file of adapters, what their products are multiplied by: a number as text.
pub const SCALE: &str = "lora_scale";

/// What a linear layer gains.
#[derive(Debug)]
pub struct Adapter {
    /// A, [rank, inputs].
    pub down: Tensor,
    /// B, [outputs, rank].
    pub up: Tensor,
    pub scale: f64,
    /// Share of the layer's inputs that A does not see in training.
    dropout: f64,
    /// Among the backbone's adapters: each has masks of its own.
    place: u64,
}

impl Adapter {
    /// A is uniform within 1 / sqrt(inputs), which is Kaiming's rule with a = sqrt(5) (He et al. 2015), by `seed`; B is zero.
    fn new(
        path: &nn::Path,
        linear: &Linear,
        recipe: &recipe::Adapter,
        place: u64,
        seed: u64,
    ) -> Self {
        let size = linear.weight.size();
        let (outputs, inputs, rank) = (size[0], size[1], i64::from(recipe.rank));
        let down = (path / "lora_A").zeros("weight", &[rank, inputs]);
        let bound = 1.0 / (inputs as f64).sqrt();
        let seed = seed.wrapping_add(place << 32);
        fill(&down, |i| bound * (2.0 * uniform(seed, i) - 1.0));
        Self {
            down,
            up: (path / "lora_B").zeros("weight", &[outputs, rank]),
            scale: recipe.scale(),
            dropout: recipe.dropout,
            place,
        }
    }

    /// What the layer's output gains, [.., outputs], for its input [.., inputs]. `key` is that of the batch's masks; without
    /// one nothing is dropped.
    pub(super) fn forward(&self, x: &Tensor, key: Option<u64>) -> Tensor {
        let kind = x.kind();
        let (down, up) = (self.down.to_kind(kind), self.up.to_kind(kind));
        let seen = match key.filter(|_| self.dropout > 0.0) {
            Some(key) => {
                let mask = dropout_mask(x, self.dropout, key.wrapping_add(self.place << 32));
                x * mask.to_kind(kind)
            }
            None => x.shallow_clone(),
        };
        let low = seen.linear(&down, None::<&Tensor>);
        low.linear(&up, None::<&Tensor>) * self.scale
    }

    pub(super) fn visit(&self, layer: &str, tell: &mut dyn FnMut(String, &Tensor, bool)) {
        let [down, up] = recipe::Adapter::tensors_of(layer);
        tell(down, &self.down, true);
        tell(up, &self.up, true);
    }
}

impl Backbone {
    /// Gives the linear layers that `recipe` names an adapter each, its tensors under `root`. `seed` keys their first numbers.
    ///
    /// # Errors
    /// The first of them that the backbone does not have.
    pub fn adapt(
        &mut self,
        root: &nn::Path,
        recipe: &recipe::Adapter,
        seed: u64,
    ) -> Result<(), String> {
        let mut missing: Vec<&String> = recipe.layers.iter().collect();
        let mut adapt = |linear: &mut Linear| {
            let place = recipe.layers.iter().position(|name| *name == linear.name);
            let Some(place) = place else { return };
            missing.retain(|name| **name != linear.name);
            let path = at(root, &linear.name);
            linear.adapter = Some(Adapter::new(&path, linear, recipe, place as u64, seed));
        };
        for block in self.stages.iter_mut().flat_map(|stage| &mut stage.blocks) {
            let shortcut = block.shortcut.iter_mut().flatten();
            for op in block.body.iter_mut().chain(shortcut) {
                linear_layers(op, &mut adapt);
            }
        }
        match missing.first() {
            Some(name) => Err((*name).clone()),
            None => Ok(()),
        }
    }
}

/// Tells every linear layer inside an operation.
fn linear_layers(op: &mut Op, tell: &mut dyn FnMut(&mut Linear)) {
    match op {
        Op::Linear(linear) => tell(linear),
        Op::Attention(attention) => {
            tell(&mut attention.qkv);
            tell(&mut attention.proj);
        }
        Op::Residual(ops) => {
            for op in ops {
                linear_layers(op, tell);
            }
        }
        _ => {}
    }
}

/// A layer's weight [outputs, inputs] with an adapter in it, in double precision until it is rounded once.
pub fn merged(weight: &Tensor, down: &Tensor, up: &Tensor, scale: f64) -> Tensor {
    tch::no_grad(|| {
        let double = |one: &Tensor| one.to_device(weight.device()).to_kind(tch::Kind::Double);
        let sum = double(weight) + double(up).matmul(&double(down)) * scale;
        sum.to_kind(weight.kind())
    })
}

/// Puts every adapter among `tensors` into its layer's weight, which it takes from `base`, and in whose place it leaves the
/// sum. What does not fit together stays as it is.
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

/// A backbone's tensors with every adapter in its layer's weight.
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
