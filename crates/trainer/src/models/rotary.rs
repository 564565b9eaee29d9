//! Rotary position embeddings (Su et al. 2021, <https://arxiv.org/abs/2104.09864>) in two
//! dimensions, as in timm 1.0 `layers/pos_embed_sincos.py`: each pair of a query's and a key's
//! channels is rotated by an angle that grows with the patch's row or column.

use std::f64::consts::TAU;

use tch::{Tensor, nn};

use super::pass::Constant;

/// Which channels are a pair, and the angles: the first half of the pairs for rows, the second for
/// columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// EVA-02: neighbors, by positions on a grid of `grid` patches along a side, whatever the
    /// image's own grid.
    Neighbors { grid: i64 },
    /// DINOv3: channels half a head apart, by positions from -1 to 1.
    Halves,
}

/// Rotations of queries and keys.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// [patches, channels of a head], as `cos`.
    sin: Constant,
    cos: Constant,
    /// Tokens before the patches, which are not rotated.
    prefix: i64,
    scheme: Scheme,
}

impl Rotary {
    /// For `grid` patches along an image's side after `prefix` tokens, and heads of `side`
    /// channels.
    pub fn new(root: &nn::Path, scheme: Scheme, (grid, prefix): (i64, i64), side: i64) -> Self {
        let angles = angles(scheme, grid, side);
        let table = |of: fn(f64) -> f64| {
            let numbers: Vec<f32> = angles.iter().map(|&angle| of(angle) as f32).collect();
            let pairs = Tensor::from_slice(&numbers).view([grid * grid, side / 2]);
            let all = match scheme {
                Scheme::Neighbors { .. } => pairs.repeat_interleave_self_int(2, -1, None),
                Scheme::Halves => Tensor::cat(&[&pairs, &pairs], -1),
            };
            Constant::new(root, &all)
        };
        Self {
            sin: table(f64::sin),
            cos: table(f64::cos),
            prefix,
            scheme,
        }
    }

    /// Queries or keys [N, heads, T, side], rotated.
    pub(super) fn rotate(&self, x: &Tensor) -> Tensor {
        let patches = x.slice(2, self.prefix, None, 1);
        let turned = match self.scheme {
            Scheme::Neighbors { .. } => {
                let [even, odd] = [0, 1].map(|first| patches.slice(-1, first, None, 2));
                Tensor::stack(&[-odd, even], -1).flatten(-2, -1)
            }
            Scheme::Halves => {
                let halves = patches.chunk(2, -1);
                Tensor::cat(&[&-&halves[1], &halves[0]], -1)
            }
        };
        let rotated = &patches * &*self.cos + turned * &*self.sin;
        let prefix = x.narrow(2, 0, self.prefix);
        Tensor::cat(&[prefix, rotated.to_kind(x.kind())], 2)
    }
}

impl Rotary {
    /// Cosines and sines [T, side] of all tokens, those of the prefix 1 and 0, and each channel's
    /// partner: a rotation is `x * cos + x[partners] * sin`.
    pub(super) fn tables(&self) -> ([Tensor; 2], Vec<i64>) {
        let side = self.cos.size()[1];
        let partner = |channel: i64| match self.scheme {
            Scheme::Neighbors { .. } => channel ^ 1,
            Scheme::Halves => (channel + side / 2) % side,
        };
        let partners: Vec<i64> = (0..side).map(partner).collect();
        let signs = (0..side).zip(&partners);
        let signs: Vec<f32> = signs
            .map(|(channel, &partner)| if channel < partner { -1.0 } else { 1.0 })
            .collect();
        let prefix = [self.prefix, side];
        let options = (tch::Kind::Float, self.cos.device());
        let cos = Tensor::cat(&[&Tensor::ones(prefix, options), &*self.cos], 0);
        let sin = &*self.sin * Tensor::from_slice(&signs);
        let sin = Tensor::cat(&[Tensor::zeros(prefix, options), sin], 0);
        ([cos, sin], partners)
    }
}

/// Angles of each patch's pairs, row by row: [grid * grid, side / 2].
fn angles(scheme: Scheme, grid: i64, side: i64) -> Vec<f64> {
    // A quarter of the channels, twice, for two dimensions: each angle is one pair's.
    let pairs = side / 4;
    let angle = |position: i64, pair: i64| {
        let share = pair as f64 / pairs as f64;
        match scheme {
            Scheme::Neighbors { grid: usual } => {
                let place = position as f64 / grid as f64 * usual as f64;
                place / 10_000f64.powf(share)
            }
            Scheme::Halves => {
                let place = 2.0 * (position as f64 + 0.5) / grid as f64 - 1.0;
                TAU * place / 100f64.powf(share)
            }
        }
    };
    let of_patch = |(row, column): (i64, i64)| {
        let by = move |position| (0..pairs).map(move |pair| angle(position, pair));
        by(row).chain(by(column)).collect::<Vec<_>>()
    };
    let rows = (0..grid).flat_map(|row| (0..grid).map(move |column| (row, column)));
    rows.flat_map(of_patch).collect()
}
