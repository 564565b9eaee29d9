//! Random parts of an image, for cropping and erasing.

use super::super::{image::Part, random::Random};
use crate::domain::augmentation::RandomResizedCrop;

/// Draws before the fallback, as torchvision's.
const ATTEMPTS: usize = 10;
/// Bounds of what is erased, in shares of the area and as height by width: torchvision's defaults
/// (Zhong et al. 2020).
const ERASED_SCALE: [f64; 2] = [0.02, 0.33];
const ERASED_RATIO: [f64; 2] = [0.3, 3.3];

/// The part that torchvision's `RandomResizedCrop.get_params` draws: area and shape within their
/// bounds; when none of ten draws fits, the largest centered part whose shape is within its bounds.
pub(super) fn crop(width: u32, height: u32, crop: &RandomResizedCrop, random: &mut Random) -> Part {
    let (full_width, full_height) = (f64::from(width), f64::from(height));
    for _ in 0..ATTEMPTS {
        let area = full_width * full_height * random.between(crop.scale[0], crop.scale[1]);
        let ratio = between_logarithms(crop.aspect_ratio, random);
        let part_width = (area * ratio).sqrt().round_ties_even();
        let part_height = (area / ratio).sqrt().round_ties_even();
        if (1.0..=full_width).contains(&part_width) && (1.0..=full_height).contains(&part_height) {
            return Part {
                top: random.below((full_height - part_height) as usize + 1) as f64,
                left: random.below((full_width - part_width) as usize + 1) as f64,
                width: part_width,
                height: part_height,
            };
        }
    }
    let ratio = full_width / full_height;
    let [narrowest, widest] = crop.aspect_ratio;
    let (part_width, part_height) = if ratio < narrowest {
        (full_width, (full_width / narrowest).round_ties_even())
    } else if ratio > widest {
        ((full_height * widest).round_ties_even(), full_height)
    } else {
        (full_width, full_height)
    };
    let (part_width, part_height) = (part_width.max(1.0), part_height.max(1.0));
    Part {
        left: ((full_width - part_width) / 2.0).floor(),
        top: ((full_height - part_height) / 2.0).floor(),
        width: part_width,
        height: part_height,
    }
}

/// Fills a rectangle, as torchvision's `RandomErasing`; nothing when none of ten draws fits.
pub(super) fn erase<const C: usize>(
    pixels: &mut [[u8; C]],
    side: usize,
    fill: [u8; C],
    random: &mut Random,
) {
    let Some((left, top, width, height)) = erased(side, random) else {
        return;
    };
    for row in pixels.chunks_exact_mut(side).skip(top).take(height) {
        row[left..left + width].fill(fill);
    }
}

/// Left, top, width and height of the rectangle, all below `side`.
fn erased(side: usize, random: &mut Random) -> Option<(usize, usize, usize, usize)> {
    for _ in 0..ATTEMPTS {
        let area = (side * side) as f64 * random.between(ERASED_SCALE[0], ERASED_SCALE[1]);
        let ratio = between_logarithms(ERASED_RATIO, random);
        let height = (area * ratio).sqrt().round_ties_even() as usize;
        let width = (area / ratio).sqrt().round_ties_even() as usize;
        if height < side && width < side {
            let top = random.below(side - height + 1);
            let left = random.below(side - width + 1);
            return Some((left, top, width, height));
        }
    }
    None
}

/// Uniform in the logarithm.
fn between_logarithms([low, high]: [f64; 2], random: &mut Random) -> f64 {
    random.between(low.ln(), high.ln()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_lie_inside_and_within_their_bounds() {
        let mut random = Random::new(1);
        let wanted = RandomResizedCrop::default();
        let (mut areas, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..2_000 {
            let part = crop(400, 300, &wanted, &mut random);
            assert!(
                part.left >= 0.0 && part.left + part.width <= 400.0,
                "{part:?}"
            );
            assert!(
                part.top >= 0.0 && part.top + part.height <= 300.0,
                "{part:?}"
            );
            areas.push(part.width * part.height / 120_000.0);
            ratios.push(part.width / part.height);
        }
        let within = |values: &[f64], low: f64, high: f64| {
            let (least, most) = values
                .iter()
                .fold((f64::MAX, 0.0f64), |(least, most), &value| {
                    (least.min(value), most.max(value))
                });
            // The ends are reached, but for rounding to whole pixels.
            assert!(least > low * 0.97 && least < low * 1.05, "{least}");
            assert!(most < high * 1.03 && most > high * 0.95, "{most}");
        };
        within(&areas, 0.08, 1.0);
        within(&ratios, 0.75, 4.0 / 3.0);
        // Less than the middle, 0.54: large areas seldom fit. 200,000 draws by torchvision's rule
        // in Python had this mean.
        let mean = areas.iter().sum::<f64>() / areas.len() as f64;
        assert!((mean - 0.432_6).abs() < 0.02, "{mean}");
    }

    /// torchvision: `w = W, h = round(W / min(ratio))` for tall images, `h = H, w = round(H *
    /// max(ratio))` for wide ones.
    #[test]
    fn where_no_draw_fits_the_largest_centered_part_is_taken() {
        let whole = RandomResizedCrop {
            scale: [1.0, 1.0],
            ..RandomResizedCrop::default()
        };
        let found = |width, height| {
            let part = crop(width, height, &whole, &mut Random::new(1));
            [part.left, part.top, part.width, part.height]
        };
        assert_eq!(found(100, 1_000), [0.0, 433.0, 100.0, 133.0]);
        assert_eq!(found(1_000, 100), [433.0, 0.0, 133.0, 100.0]);
        assert_eq!(found(1, 5_000), [0.0, 2_499.0, 1.0, 1.0]);
    }

    #[test]
    fn what_is_erased_is_within_its_bounds_and_nothing_else_changes() {
        let mut random = Random::new(1);
        for _ in 0..500 {
            let mut pixels = vec![[9; 3]; 100 * 100];
            erase(&mut pixels, 100, [1, 2, 3], &mut random);
            let places: Vec<usize> = (0..10_000)
                .filter(|&place| pixels[place] == [1, 2, 3])
                .collect();
            let rows = places.last().unwrap() / 100 - places[0] / 100 + 1;
            assert_eq!(places.len() % rows, 0, "it is a rectangle");
            let ratio = rows as f64 / (places.len() / rows) as f64;
            assert!((190..3_400).contains(&places.len()), "{}", places.len());
            assert!((0.28..3.5).contains(&ratio), "{ratio}");
            assert!(
                pixels
                    .iter()
                    .all(|pixel| [[9; 3], [1, 2, 3]].contains(pixel))
            );
        }
    }
}
