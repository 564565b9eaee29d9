//! The new last layers of a fine-tuned model: dropout, then one linear layer. Named `head.weight` and `head.bias` while
//! training, and as timm names the architecture's classifier when exported. What is random here follows from a seed alone,
//! never from torch's generator, so that a resumed job draws the same masks on any device.

use tch::{Tensor, nn};

use crate::domain::recipe::{self, HeadInit, HeadLayer};

/// Where the head sits under the `VarStore`'s root, and the prefix of its tensors' names.
pub const NAME: &str = "head";

/// Standard deviation of `HeadInit::Normal` (Caron et al. 2021 and DINOv2's linear heads).
const NORMAL_STDEV: f64 = 0.01;

/// Features [N, feature_dim] in, logits [N, classes] out.
#[derive(Debug)]
pub struct Head {
    /// Share of features dropped, of each dropout layer in order.
    dropouts: Vec<f64>,
    /// [classes, feature_dim]
    pub weight: Tensor,
    /// `[classes]`
    pub bias: Tensor,
}

impl Head {
    /// A fresh head under `root` (the root of the `VarStore`). `seed` keys the initial weights.
    pub fn new(
        root: &nn::Path,
        recipe: &recipe::Head,
        feature_dim: u32,
        classes: u32,
        seed: u64,
    ) -> Self {
        let path = root / NAME;
        let dims = [i64::from(classes), i64::from(feature_dim)];
        let weight = path.var("weight", &dims, nn::Init::Const(0.0));
        if recipe.init == HeadInit::Normal {
            let numbers: Vec<f32> = (0..weight.numel() as u64)
                .map(|i| (NORMAL_STDEV * normal(seed, i)) as f32)
                .collect();
            tch::no_grad(|| {
                weight
                    .shallow_clone()
                    .copy_(&Tensor::from_slice(&numbers).view(dims))
            });
        }
        Self {
            dropouts: recipe
                .layers
                .iter()
                .map(|HeadLayer::Dropout(share)| *share)
                .collect(),
            weight,
            bias: path.var("bias", &[i64::from(classes)], nn::Init::Const(0.0)),
        }
    }

    /// Logits [N, classes] in evaluation: no dropout.
    pub fn forward(&self, features: &Tensor) -> Tensor {
        features.linear(&self.weight, Some(&self.bias))
    }

    /// Logits [N, classes] in training. `seed` keys the masks: give each step its own.
    pub fn forward_train(&self, features: &Tensor, seed: u64) -> Tensor {
        let dropped = (0..)
            .zip(&self.dropouts)
            .filter(|(_, share)| **share > 0.0)
            .fold(features.shallow_clone(), |x, (layer, &share)| {
                x * dropout_mask(features, share, seed.wrapping_add(layer << 32))
            });
        self.forward(&dropped)
    }

    /// `head.weight` and `head.bias`, sharing storage with the head.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        self.named_as(NAME)
    }

    /// The same under another name: the architecture's `classifier`, for export.
    pub fn named_as(&self, name: &str) -> Vec<(String, Tensor)> {
        vec![
            (format!("{name}.weight"), self.weight.shallow_clone()),
            (format!("{name}.bias"), self.bias.shallow_clone()),
        ]
    }
}

/// 0 for a dropped feature, `1 / (1 - share)` for a kept one, shaped as `x`.
fn dropout_mask(x: &Tensor, share: f64, seed: u64) -> Tensor {
    let kept = (1.0 / (1.0 - share)) as f32;
    let draw = |i| if uniform(seed, i) < share { 0.0 } else { kept };
    let mask: Vec<f32> = (0..x.numel() as u64).map(draw).collect();
    Tensor::from_slice(&mask)
        .view(&x.size()[..])
        .to_device(x.device())
}

/// The `i`-th number in [0, 1) of a seed: SplitMix64 (Steele et al. 2014) at that place of its sequence.
fn uniform(seed: u64, i: u64) -> f64 {
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    // The seed is mixed first: neighbouring seeds would give sequences that are shifts of each other.
    let place = mix(seed).wrapping_add(i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    (mix(place) >> 11) as f64 / (1u64 << 53) as f64
}

/// The `i`-th number from N(0, 1) of a seed (Box & Muller 1958).
fn normal(seed: u64, i: u64) -> f64 {
    let (radius, angle) = (1.0 - uniform(seed, 2 * i), uniform(seed, 2 * i + 1));
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_seed_are_spread_as_they_should_be() {
        let count = 100_000u64;
        let mean = |draw: &dyn Fn(u64) -> f64| (0..count).map(draw).sum::<f64>() / count as f64;
        assert!((mean(&|i| uniform(3, i)) - 0.5).abs() < 0.005);
        assert!(mean(&|i| normal(3, i)).abs() < 0.015);
        assert!((mean(&|i| normal(3, i).powi(2)) - 1.0).abs() < 0.03);
        assert!(
            (mean(&|i| uniform(3, i) * uniform(4, i)) - 0.25).abs() < 0.005,
            "seeds are independent"
        );
    }
}
