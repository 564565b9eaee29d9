//! Attention among the positions of a map's windows (Swin, Liu et al. 2021), and the merging of
//! neighbors between its stages. Maps are [N, C, h, w]; timm's are channels last.

use tch::{Kind, Tensor, nn};

use super::{
    attention::Attention,
    pass::{Constant, NORMAL, Param, Pass},
};

/// The last part of the name of a table of relative positions.
pub const TABLE: &str = "relative_position_bias_table";
/// Added to the scores of positions that are neighbors by the shift alone.
const APART: f32 = -100.0;

/// How a square map is cut into windows.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// Side of the map.
    pub map: i64,
    /// Side of a window, and by how much they are shifted.
    pub side: i64,
    pub shift: i64,
}

impl Windows {
    /// Windows of `side`, shifted by half of it or not; one window, not shifted, where the map is
    /// not larger.
    pub fn new(map: i64, side: i64, is_shifted: bool) -> Self {
        Self {
            map,
            side: side.min(map),
            shift: if is_shifted && side < map {
                side / 2
            } else {
                0
            },
        }
    }

    /// Windows along a side of the map, the last one in part behind its end.
    pub(super) fn along(self) -> i64 {
        (self.map + self.side - 1) / self.side
    }

    /// Positions of a window.
    const fn area(self) -> i64 {
        self.side * self.side
    }

    /// Rows of the table, for each pair of a window's positions.
    fn pairs(self) -> Vec<i64> {
        let apart = |a: i64, b: i64| a - b + self.side - 1;
        let row = |a: i64, b: i64| {
            let rows = apart(a / self.side, b / self.side);
            rows * (2 * self.side - 1) + apart(a % self.side, b % self.side)
        };
        let all = (0..self.area()).flat_map(|a| (0..self.area()).map(move |b| row(a, b)));
        all.collect()
    }

    /// For each window and pair of its positions, `APART` where the shift alone brought them
    /// together: [windows, positions, positions].
    fn apart(self) -> Vec<f32> {
        let (along, side) = (self.along(), self.side);
        // Shifted, the map's last rows are its former first ones.
        let part = |place: i64| match along * side - place {
            left if left > side => 0,
            left if left > self.shift => 1,
            _ => 2,
        };
        let part_of = |window: i64, position: i64| {
            let row = window / along * side + position / side;
            let column = window % along * side + position % side;
            (part(row), part(column))
        };
        let positions = 0..self.area();
        let of_window = |window: i64| {
            let parts: Vec<_> = positions.clone().map(|one| part_of(window, one)).collect();
            let value = |same| if same { 0.0 } else { APART };
            let of = |a: &_| parts.iter().map(|b| value(a == b)).collect::<Vec<_>>();
            parts.iter().flat_map(of).collect::<Vec<f32>>()
        };
        (0..along * along).flat_map(of_window).collect()
    }
}

/// Self-attention inside of windows, with a bias for each offset of two positions.
#[derive(Debug, Clone)]
pub struct WindowAttention {
    pub attention: Attention,
    /// [(2 * side - 1)², heads].
    pub table: Param,
    pub windows: Windows,
    /// Rows of the table: [positions * positions].
    pub pairs: Constant,
    /// Added to scores, where windows are shifted: [windows, 1, positions, positions].
    pub apart: Option<Constant>,
}

impl WindowAttention {
    pub fn new(root: &nn::Path, name: &str, (width, heads): (i64, i64), windows: Windows) -> Self {
        let offsets = (2 * windows.side - 1).pow(2);
        let count = windows.along().pow(2);
        let area = windows.area();
        let apart = || {
            let numbers = Tensor::from_slice(&windows.apart());
            Constant::new(root, &numbers.view([count, 1, area, area]))
        };
        Self {
            table: Param::new(root, format!("{name}.{TABLE}"), &[offsets, heads], NORMAL),
            attention: Attention::new(root, name, width, heads),
            pairs: Constant::new(root, &Tensor::from_slice(&windows.pairs())),
            apart: (windows.shift > 0).then(apart),
            windows,
        }
    }

    /// A map [N, width, h, w] to the same.
    pub fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Tensor {
        let Windows { map, side, shift } = self.windows;
        let (along, area) = (self.windows.along(), self.windows.area());
        let width = x.size()[1];
        let behind = along * side - map;
        let shifted = |x: &Tensor, by: i64| match shift {
            0 => x.shallow_clone(),
            _ => x.roll([by, by], [1, 2]),
        };
        let x = shifted(&x.permute([0, 2, 3, 1]), -shift);
        let x = match behind {
            0 => x,
            _ => x.constant_pad_nd([0, 0, 0, behind, 0, behind]),
        };
        let windows = x
            .reshape([-1, along, side, along, side, width])
            .permute([0, 1, 3, 2, 4, 5])
            .reshape([-1, area, width]);
        let mixed = self
            .attention
            .mix(&windows, pass, |scores| self.biased(&scores));
        let x = mixed
            .reshape([-1, along, along, side, side, width])
            .permute([0, 1, 3, 2, 4, 5])
            .reshape([-1, along * side, along * side, width]);
        let x = x.narrow(1, 0, map).narrow(2, 0, map);
        shifted(&x, shift).permute([0, 3, 1, 2])
    }

    /// Scores [N * windows, heads, positions, positions] with the biases.
    fn biased(&self, scores: &Tensor) -> Tensor {
        let (area, heads) = (self.windows.area(), self.attention.heads);
        let kind = scores.kind();
        let bias = self.table.to_kind(kind).index_select(0, &self.pairs);
        let bias = bias.view([area, area, heads]).permute([2, 0, 1]);
        let scores = scores + bias.unsqueeze(0);
        let Some(apart) = &self.apart else {
            return scores;
        };
        let by_window = scores.view([-1, apart.size()[0], heads, area, area]);
        let masked = by_window + apart.to_kind(kind);
        masked.view([-1, heads, area, area])
    }
}

/// The channels of four neighbors side by side: [N, C, h, w] to [N, 4 * C, h / 2, w / 2], with
/// zeros behind an odd side.
pub(super) fn merge_patches(x: &Tensor) -> Tensor {
    let size = x.size();
    let (width, height, length) = (size[1], size[2], size[3]);
    let x = x.permute([0, 2, 3, 1]);
    let x = match (height % 2, length % 2) {
        (0, 0) => x,
        (below, right) => x.constant_pad_nd([0, 0, 0, right, 0, below]),
    };
    x.reshape([-1, (height + 1) / 2, 2, (length + 1) / 2, 2, width])
        .permute([0, 1, 3, 4, 2, 5])
        .flatten(3, 5)
        .permute([0, 3, 1, 2])
}

/// A table of relative positions for windows of another side: timm's `resize_rel_pos_bias_table`.
/// Offsets are put on a geometric scale that covers the new ones, between which is interpolated
/// linearly (BEiT, Bao et al. 2021). `None` where one of them is no table of a square window.
pub(super) fn resize_table(table: &Tensor, rows: i64) -> Option<Tensor> {
    let old = odd_side(table.size()[0])?;
    let new = odd_side(rows)?;
    let at = places(old / 2, new / 2);
    let weights: Vec<f32> = (-(new / 2)..=new / 2)
        .flat_map(|offset| shares(&at, offset as f64))
        .collect();
    let weights = Tensor::from_slice(&weights)
        .view([new, old])
        .to_device(table.device());
    let heads = table.size()[1];
    // [heads, old, old]
    let wide = table.to_kind(Kind::Float).transpose(0, 1);
    let wide = wide.reshape([heads, old, old]);
    let resized = weights.matmul(&wide).matmul(&weights.transpose(0, 1));
    Some(resized.reshape([heads, rows]).transpose(0, 1).contiguous())
}

/// The side of a square of so many offsets, which is odd.
fn odd_side(rows: i64) -> Option<i64> {
    let side = rows.max(0).isqrt();
    (side * side == rows && side % 2 == 1).then_some(side)
}

/// Where the old offsets lie among the new ones: 0, ±1, ±(1 + q), ±(1 + q + q²) and so on, with q
/// such that the largest is about `new`.
fn places(old: i64, new: i64) -> Vec<f64> {
    let (mut left, mut right, mut q) = (1.01f64, 1.5f64, 0.0f64);
    while right - left > 1e-6 {
        q = f64::midpoint(left, right);
        if (1.0 - q.powi(old as i32)) / (1.0 - q) > new as f64 {
            right = q;
        } else {
            left = q;
        }
    }
    let mut place = 0.0;
    let above: Vec<f64> = (0..old)
        .map(|step| {
            place += q.powi(step as i32);
            place
        })
        .collect();
    let below = above.iter().rev().map(|place| -place);
    below.chain([0.0]).chain(above.iter().copied()).collect()
}

/// The share of each place in what lies at `x`, by linear interpolation; the last places' beyond
/// them.
fn shares(places: &[f64], x: f64) -> Vec<f32> {
    let right = places.partition_point(|&place| place < x);
    let mut shares = vec![0.0; places.len()];
    if right == 0 {
        shares[0] = 1.0;
    } else if right == places.len() {
        shares[right - 1] = 1.0;
    } else {
        let (before, after) = (places[right - 1], places[right]);
        let share = (x - before) / (after - before);
        shares[right - 1] = (1.0 - share) as f32;
        shares[right] = share as f32;
    }
    shares
}
