//! Random numbers as functions of a seed and an index, for initial weights and dropout.

use tch::{Kind, Tensor};

use super::pass::Masks;
use crate::data::random::{GAMMA, mix};

/// Sets every number of a tensor to `draw` of its index.
pub(super) fn fill(tensor: &Tensor, draw: impl Fn(u64) -> f64) {
    let numbers: Vec<f32> = (0..tensor.numel() as u64).map(|i| draw(i) as f32).collect();
    tch::no_grad(|| {
        let numbers = Tensor::from_slice(&numbers).to_kind(Kind::Float);
        tensor
            .shallow_clone()
            .copy_(&numbers.view(&tensor.size()[..]));
    });
}

/// 0 for a dropped feature, `1 / (1 - share)` for a kept one, shaped as `x`: [N, ..].
pub(super) fn dropout_mask(x: &Tensor, share: f64, masks: Masks) -> Tensor {
    let kept = (1.0 / (1.0 - share)) as f32;
    let draw = |i| {
        if uniform(masks.key, i) < share {
            0.0
        } else {
            kept
        }
    };
    let all = x.numel() as u64;
    let samples = x.size().first().map_or(1, |&samples| samples as u64);
    let first = masks.first as u64 * (all / samples.max(1));
    let mask: Vec<f32> = (first..first + all).map(draw).collect();
    Tensor::from_slice(&mask)
        .view(&x.size()[..])
        .to_device(x.device())
}

/// The `i`-th number in [0, 1) of a seed's SplitMix64 sequence (Steele et al. 2014).
pub(super) fn uniform(seed: u64, i: u64) -> f64 {
    // The seed is mixed first: neighboring seeds would give sequences that are shifts of each
    // other.
    let place = mix(seed).wrapping_add(i.wrapping_add(1).wrapping_mul(GAMMA));
    (mix(place) >> 11) as f64 / (1u64 << 53) as f64
}

/// The `i`-th number from N(0, 1) of a seed (Box & Muller 1958).
pub(super) fn normal(seed: u64, i: u64) -> f64 {
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
