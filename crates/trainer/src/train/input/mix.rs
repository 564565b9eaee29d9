//! Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): samples of a step are joined in pairs,
//! labels in the same proportion. Drawn for the whole step, so that the batches it runs in do not
//! matter.

use tch::Tensor;

use crate::{
    data::random::Random,
    domain::recipe::Recipe,
    train::rng::{Stream, key},
};

/// Mixing as the recipe has it.
#[derive(Debug, Clone, Copy)]
pub struct Mixing {
    mixup: f64,
    cutmix: f64,
    seed: u64,
}

/// The mixing of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// The share of each sample, and of its label, that is its own.
    pub share: f64,
    /// The part of the sample that CutMix replaces by its partner; `None` for mixup.
    patch: Option<Patch>,
    /// For each sample of the step, the place of its partner in the step: a permutation.
    pub partners: Vec<usize>,
}

/// A part of an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Patch {
    left: i64,
    top: i64,
    width: i64,
    height: i64,
}

impl Mixing {
    pub fn new(recipe: &Recipe) -> Self {
        Self {
            mixup: recipe.mixup,
            cutmix: recipe.cutmix,
            seed: recipe.seed,
        }
    }

    /// The mixing of the `samples` samples of step `step` (from 1). `side` is that of their images
    /// in pixels, `None` where features are joined, from which nothing can be cut. With both kinds,
    /// each step draws one, alike often (as timm's `switch_prob` of 0.5).
    pub fn draw(&self, step: u64, samples: usize, side: Option<u32>) -> Option<Mix> {
        let mut random = Random::new(key(self.seed, Stream::Mix, step));
        let cutmix = side.filter(|_| self.cutmix > 0.0);
        let cutmix = cutmix.filter(|_| self.mixup == 0.0 || random.chance(0.5));
        let alpha = if cutmix.is_some() {
            self.cutmix
        } else {
            self.mixup
        };
        if alpha == 0.0 || samples < 2 {
            return None;
        }
        let share = random.beta(alpha);
        let partners = random.order(samples);
        let patch = cutmix.map(|side| Patch::draw(share, i64::from(side), &mut random));
        // The patch may reach over the edge: what counts is what is seen of it.
        let share = match (patch, side) {
            (Some(patch), Some(side)) => 1.0 - patch.pixels() / f64::from(side).powi(2),
            _ => share,
        };
        Some(Mix {
            share,
            patch,
            partners,
        })
    }
}

impl Mix {
    /// Joins `ours` with `theirs`, both images [N, C, S, S] or features [N, feature_dim], row by
    /// row.
    pub fn apply(&self, ours: &Tensor, theirs: &Tensor) -> Tensor {
        let Some(patch) = self.patch else {
            return ours * self.share + theirs * (1.0 - self.share);
        };
        let mixed = ours.copy();
        patch.of(&mixed).copy_(&patch.of(theirs));
        mixed
    }
}

impl Patch {
    /// A part of a square of this side: `sqrt(1 - share)` of it wide and high, anywhere, cut at the
    /// edges.
    fn draw(share: f64, side: i64, random: &mut Random) -> Self {
        let half = (side as f64 * (1.0 - share).sqrt()) as i64 / 2;
        let mut range = || {
            let center = random.below(side as usize) as i64;
            let (start, end) = ((center - half).max(0), (center + half).min(side));
            (start, end - start)
        };
        let ((left, width), (top, height)) = (range(), range());
        Self {
            left,
            top,
            width,
            height,
        }
    }

    fn pixels(self) -> f64 {
        (self.width * self.height) as f64
    }

    fn of(self, images: &Tensor) -> Tensor {
        images
            .narrow(2, self.top, self.height)
            .narrow(3, self.left, self.width)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    const BOTH: Mixing = Mixing {
        mixup: 0.4,
        cutmix: 1.0,
        seed: 3,
    };

    #[test]
    fn what_is_pasted_is_what_the_label_loses() {
        let only_cutmix = Mixing { mixup: 0.0, ..BOTH };
        let (ours, theirs) = (
            Tensor::zeros([2, 3, 20, 20], (Kind::Float, Device::Cpu)),
            Tensor::ones([2, 3, 20, 20], (Kind::Float, Device::Cpu)),
        );
        let mut shares = Vec::new();
        for step in 1..=50 {
            let mix = only_cutmix.draw(step, 2, Some(20)).unwrap();
            let theirs_share = mix
                .apply(&ours, &theirs)
                .mean(Kind::Double)
                .double_value(&[]);
            assert!((1.0 - mix.share - theirs_share).abs() < 1e-6, "{mix:?}");
            assert_eq!(ours.sum(Kind::Float).double_value(&[]), 0.0);
            shares.push(mix.share);
        }
        assert!(shares.iter().any(|&share| share < 0.5) && shares.iter().any(|&share| share > 0.5));
    }

    #[test]
    fn rows_are_added_up_in_the_drawn_share() {
        let mix = BOTH.draw(1, 4, None).unwrap();
        let (ours, theirs) = (
            Tensor::from_slice(&[2.0f64]),
            Tensor::from_slice(&[-1.0f64]),
        );
        let expected = 2.0 * mix.share - (1.0 - mix.share);
        let found = mix.apply(&ours.view([1, 1]), &theirs.view([1, 1]));
        assert!((found.double_value(&[0, 0]) - expected).abs() < 1e-12);
    }

    #[test]
    fn a_step_decides_what_is_mixed() {
        assert_eq!(BOTH.draw(5, 9, Some(64)), BOTH.draw(5, 9, Some(64)));
        assert_ne!(BOTH.draw(5, 9, Some(64)), BOTH.draw(6, 9, Some(64)));
        let kinds = (1..=200).filter(|&step| BOTH.draw(step, 2, Some(64)).unwrap().patch.is_some());
        assert!((70..130).contains(&kinds.count()));
        // Features have no place to cut at, a lone sample has no partner.
        assert!((1..=20).all(|step| BOTH.draw(step, 2, None).unwrap().patch.is_none()));
        assert_eq!(BOTH.draw(1, 1, Some(64)), None);
        let off = Mixing {
            mixup: 0.0,
            cutmix: 0.0,
            ..BOTH
        };
        assert_eq!(off.draw(1, 8, Some(64)), None);
        let cutmix = Mixing { mixup: 0.0, ..BOTH };
        assert_eq!(cutmix.draw(1, 8, None), None);
    }
}
