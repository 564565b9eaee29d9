//! A few operations of one strength, drawn from a list (Cubuk et al. 2020), with torchvision's
//! ranges.

use super::{
    super::random::Random,
    color,
    warp::{self, affine},
};
use crate::domain::augmentation::RandAugment;

/// The strongest magnitude: torchvision has 31 bins.
const STRONGEST: f64 = 30.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Identity,
    ShearX,
    ShearY,
    ShiftX,
    ShiftY,
    Rotate,
    Brightness,
    Saturation,
    Contrast,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

/// torchvision's list without sharpness.
const OPS: [Op; 13] = [
    Op::Identity,
    Op::ShearX,
    Op::ShearY,
    Op::ShiftX,
    Op::ShiftY,
    Op::Rotate,
    Op::Brightness,
    Op::Saturation,
    Op::Contrast,
    Op::Posterize,
    Op::Solarize,
    Op::AutoContrast,
    Op::Equalize,
];

pub(super) fn apply<const C: usize>(
    pixels: &mut [[u8; C]],
    side: usize,
    wanted: RandAugment,
    fill: [u8; C],
    random: &mut Random,
) {
    for _ in 0..wanted.n_ops {
        let op = OPS[random.below(OPS.len())];
        // torchvision's signed operations take either sign equally often.
        let sign = if random.chance(0.5) { -1.0 } else { 1.0 };
        apply_one(pixels, side, (op, f64::from(wanted.magnitude), sign), fill);
    }
}

fn apply_one<const C: usize>(
    pixels: &mut [[u8; C]],
    side: usize,
    (op, magnitude, sign): (Op, f64, f64),
    fill: [u8; C],
) {
    let share = magnitude / STRONGEST;
    let factor = 1.0 + sign * 0.9 * share;
    let shift = (sign * share * side as f64 * 150.0 / 331.0) as i32;
    let mut moved = |matrix| affine(pixels, side, matrix, fill);
    match op {
        Op::Identity => {}
        Op::ShearX => moved(warp::shear_x(sign * 0.3 * share)),
        Op::ShearY => moved(warp::shear_y(sign * 0.3 * share)),
        Op::ShiftX => moved(warp::shift(shift, 0)),
        Op::ShiftY => moved(warp::shift(0, shift)),
        Op::Rotate => moved(warp::rotation(sign * 30.0 * share, side)),
        Op::Brightness => color::brighten(pixels, factor),
        Op::Saturation => color::saturate(pixels, factor),
        Op::Contrast => color::contrast(pixels, factor),
        Op::Posterize => {
            let bits = 8 - (magnitude / (STRONGEST / 4.0)).round_ties_even() as u32;
            color::look_up(pixels, |value| value & (0xff_u32 << (8 - bits)) as u8);
        }
        Op::Solarize => {
            let threshold = 255.0 * (1.0 - share);
            let solarized = |value: u8| {
                if f64::from(value) >= threshold {
                    255 - value
                } else {
                    value
                }
            };
            color::look_up(pixels, solarized);
        }
        Op::AutoContrast => by_channel(pixels, |counts| {
            let low = counts.iter().position(|&count| count > 0).unwrap_or(0);
            let high = counts.iter().rposition(|&count| count > 0).unwrap_or(0);
            (low < high).then(|| {
                std::array::from_fn(|value| {
                    (value.saturating_sub(low) * 255 / (high - low)).min(255) as u8
                })
            })
        }),
        Op::Equalize => by_channel(pixels, equalized),
    }
}

/// Maps each color channel by a table made from its histogram; without a table it stays unchanged.
fn by_channel<const C: usize>(
    pixels: &mut [[u8; C]],
    table: impl Fn(&[usize; 256]) -> Option<[u8; 256]>,
) {
    for channel in 0..C.min(color::COLORS) {
        let mut counts = [0; 256];
        for pixel in pixels.iter() {
            counts[usize::from(pixel[channel])] += 1;
        }
        if let Some(table) = table(&counts) {
            for pixel in pixels.iter_mut() {
                pixel[channel] = table[usize::from(pixel[channel])];
            }
        }
    }
}

/// Pillow's `ImageOps.equalize`: each value becomes the share of pixels below it, a step being a
/// 255th of all but those of the highest value.
fn equalized(counts: &[usize; 256]) -> Option<[u8; 256]> {
    let highest = counts.iter().rev().find(|&&count| count > 0)?;
    let step = (counts.iter().sum::<usize>() - highest) / 255;
    let mut below = step / 2;
    (step > 0).then(|| {
        std::array::from_fn(|value| {
            let level = (below / step).min(255) as u8;
            below += counts[value];
            level
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(op: Op, magnitude: f64, values: &[u8]) -> Vec<u8> {
        let side = values.len().isqrt();
        let mut pixels: Vec<[u8; 3]> = values.iter().map(|&value| [value; 3]).collect();
        apply_one(&mut pixels, side, (op, magnitude, 1.0), [0; 3]);
        assert!(pixels.iter().all(|&[r, g, b]| r == g && g == b));
        pixels.iter().map(|pixel| pixel[0]).collect()
    }

    /// torchvision: posterize keeps `8 - round(m / 7.5)` bits, solarize inverts from `255 (1 - m /
    /// 30)` up.
    #[test]
    fn magnitudes_are_torchvisions() {
        let values = [0, 100, 201, 255];
        assert_eq!(after(Op::Posterize, 0.0, &values), values);
        assert_eq!(after(Op::Posterize, 9.0, &values), [0, 100, 200, 254]);
        assert_eq!(after(Op::Posterize, 30.0, &values), [0, 96, 192, 240]);
        assert_eq!(after(Op::Solarize, 15.0, &values), [0, 100, 54, 0]);
        assert_eq!(after(Op::Solarize, 30.0, &values), [255, 155, 54, 0]);
        assert_eq!(after(Op::Brightness, 10.0, &values), [0, 130, 255, 255]);
        assert_eq!(after(Op::Identity, 30.0, &values), values);
        // 150 / 331 of 8 pixels at a third of the strength: 1.2, cut off.
        let row: Vec<u8> = (0..64).map(|place| place % 8 + 1).collect();
        assert_eq!(after(Op::ShiftX, 10.0, &row)[..8], [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    /// By hand from Pillow's formulas.
    #[test]
    fn histograms_are_stretched_as_pillow_does() {
        assert_eq!(
            after(Op::AutoContrast, 0.0, &[50, 100, 101, 150]),
            [0, 127, 130, 255]
        );
        assert_eq!(after(Op::AutoContrast, 0.0, &[9; 4]), [9; 4]);
        // 4096 pixels, half of them 10, a quarter 20 and 30: a step of 3072 / 255 = 12 pixels.
        let values: Vec<u8> = (0..4_096)
            .map(|place| [10, 10, 20, 30][place % 4])
            .collect();
        let found = after(Op::Equalize, 0.0, &values);
        assert_eq!(found[..4], [0, 0, 171, 255]);
        assert_eq!(after(Op::Equalize, 0.0, &[9; 4]), [9; 4]);
    }

    #[test]
    fn every_operation_is_drawn() {
        let start: Vec<[u8; 3]> = (0..=255).map(|i| [i, 255 - i, i / 2]).collect();
        let mut random = Random::new(1);
        let mut found = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let mut pixels = start.clone();
            apply(
                &mut pixels,
                16,
                RandAugment {
                    n_ops: 1,
                    magnitude: 9,
                },
                [7; 3],
                &mut random,
            );
            found.insert(pixels);
        }
        // Identity, eight that go both ways, and three more: equalize finds nothing to do here.
        assert_eq!(found.len(), 20);
    }
}
