//! Changes of color, by torchvision's formulas for 8-bit tensors: results are truncated.

use super::super::random::Random;
use crate::domain::augmentation::ColorJitter;

/// Red, green and blue in gray, as torchvision's `rgb_to_grayscale` (ITU-R 601).
const GRAY: [f32; 3] = [0.2989, 0.587, 0.114];

/// Number of color channels; a fourth is alpha.
pub(super) const COLORS: usize = 3;

/// torchvision's `ColorJitter`: the four in a random order.
pub(super) fn jitter<const C: usize>(
    pixels: &mut [[u8; C]],
    wanted: &ColorJitter,
    random: &mut Random,
) {
    let factor =
        |bound: f64, random: &mut Random| random.between((1.0 - bound).max(0.0), 1.0 + bound);
    for which in random.order(4) {
        match which {
            0 if wanted.brightness > 0.0 => brighten(pixels, factor(wanted.brightness, random)),
            1 if wanted.contrast > 0.0 => contrast(pixels, factor(wanted.contrast, random)),
            2 if wanted.saturation > 0.0 => saturate(pixels, factor(wanted.saturation, random)),
            3 if wanted.hue > 0.0 => turn(pixels, random.between(-wanted.hue, wanted.hue)),
            _ => {}
        }
    }
}

/// `factor` times as bright.
pub(super) fn brighten<const C: usize>(pixels: &mut [[u8; C]], factor: f64) {
    look_up(pixels, |value| (factor * f64::from(value)) as u8);
}

/// `factor` times as far from the mean gray.
pub(super) fn contrast<const C: usize>(pixels: &mut [[u8; C]], factor: f64) {
    let sum: u64 = pixels.iter().map(|pixel| u64::from(gray(pixel))).sum();
    let mean = sum as f64 / pixels.len() as f64;
    look_up(pixels, |value| {
        (factor * f64::from(value) + (1.0 - factor) * mean) as u8
    });
}

/// `factor` times as far from the pixel's own gray.
pub(super) fn saturate<const C: usize>(pixels: &mut [[u8; C]], factor: f64) {
    let factor = factor as f32;
    if C < COLORS {
        return;
    }
    for pixel in pixels {
        let rest = (1.0 - factor) * f32::from(gray(pixel));
        for value in colors(pixel) {
            *value = (factor * f32::from(*value) + rest) as u8;
        }
    }
}

/// Turns the hue by `turns` of the color wheel, at most half of one, by way of HSV (Smith 1978).
pub(super) fn turn<const C: usize>(pixels: &mut [[u8; C]], turns: f64) {
    // Half a turn at most: one wrap brings any angle back.
    let wrapped = |sixths: f32| {
        let high = if sixths >= 6.0 { sixths - 6.0 } else { sixths };
        if high < 0.0 { high + 6.0 } else { high }
    };
    let turned = 6.0 * turns as f32;
    for pixel in pixels {
        let Some(pixel) = pixel.first_chunk_mut::<COLORS>() else {
            return;
        };
        let [red, green, blue] = pixel.map(f32::from);
        let (most, least) = (red.max(green).max(blue), red.min(green).min(blue));
        let chroma = most - least;
        if chroma == 0.0 {
            continue;
        }
        let sixths = if most == red {
            (green - blue) / chroma
        } else if most == green {
            2.0 + (blue - red) / chroma
        } else {
            4.0 + (red - green) / chroma
        };
        let sixths = wrapped(sixths + turned);
        // Distance of each channel below the largest: a trapezium around the wheel, two sixths
        // apart.
        *pixel = [5.0, 3.0, 1.0].map(|shift| {
            let at = wrapped(sixths + shift);
            let below = at.min(4.0 - at).clamp(0.0, 1.0);
            (most - chroma * below + 0.5) as u8
        });
    }
}

/// Each color's value by a function of it alone.
pub(super) fn look_up<const C: usize>(pixels: &mut [[u8; C]], of: impl Fn(u8) -> u8) {
    let table: [u8; 256] = std::array::from_fn(|value| of(value as u8));
    for pixel in pixels {
        for value in colors(pixel) {
            *value = table[usize::from(*value)];
        }
    }
}

/// The color channels of a pixel, without alpha.
pub(super) fn colors<const C: usize>(pixel: &mut [u8; C]) -> &mut [u8] {
    &mut pixel[..C.min(COLORS)]
}

fn gray<const C: usize>(pixel: &[u8; C]) -> u8 {
    let Some(pixel) = pixel.first_chunk::<COLORS>() else {
        return pixel[0];
    };
    let [red, green, blue] = pixel.map(f32::from);
    (GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(pixels: &[[u8; 3]], change: impl Fn(&mut [[u8; 3]])) -> Vec<[u8; 3]> {
        let mut pixels = pixels.to_vec();
        change(&mut pixels);
        pixels
    }

    /// By hand from `ratio * image + (1 - ratio) * other`, clamped, cut off.
    #[test]
    fn blends_are_torchvisions() {
        let pixels = [[10, 100, 200], [255, 1, 0]];
        assert_eq!(
            changed(&pixels, |pixels| brighten(pixels, 1.5)),
            [[15, 150, 255], [255, 1, 0]]
        );
        // Grays 84 (84.489) and 76 (76.8065): the mean is 80.
        assert_eq!(
            changed(&pixels, |pixels| contrast(pixels, 0.5)),
            [[45, 90, 140], [167, 40, 40]]
        );
        assert_eq!(
            changed(&pixels, |pixels| contrast(pixels, 2.0)),
            [[0, 120, 255], [255, 0, 0]]
        );
        assert_eq!(
            changed(&pixels, |pixels| saturate(pixels, 0.0)),
            [[84; 3], [76; 3]]
        );
        assert_eq!(
            changed(&pixels, |pixels| saturate(pixels, 1.5)),
            [[0, 108, 255], [255, 0, 0]]
        );
    }

    /// ReportContext colors on the wheel, a sixth apart: red, yellow, green, cyan, blue, magenta.
    #[test]
    fn hues_turn_around_the_wheel() {
        let wheel = [
            [255, 0, 0],
            [255, 255, 0],
            [0, 255, 0],
            [0, 255, 255],
            [0, 0, 255],
            [255, 0, 255],
        ];
        let turned = changed(&wheel, |pixels| turn(pixels, 1.0 / 6.0));
        assert_eq!(
            turned,
            [wheel[1], wheel[2], wheel[3], wheel[4], wheel[5], wheel[0]]
        );
        let back = changed(&wheel, |pixels| turn(pixels, -0.5));
        assert_eq!(
            back,
            [wheel[3], wheel[4], wheel[5], wheel[0], wheel[1], wheel[2]]
        );
        // HSV (30 degrees, 0.5, 200) to (90 degrees, 0.5, 200), and a gray, which has no hue.
        let pale = changed(&[[200, 150, 100], [7; 3]], |pixels| turn(pixels, 1.0 / 6.0));
        assert_eq!(pale, [[150, 200, 100], [7; 3]]);
        let some: Vec<[u8; 3]> = (0..=255).map(|i| [i, 255 - i, i / 2]).collect();
        assert_eq!(changed(&some, |pixels| turn(pixels, 0.0)), some);
    }

    #[test]
    fn what_is_not_asked_for_does_not_move() {
        let pixels = [[10, 100, 200], [255, 1, 0]];
        let none = ColorJitter::default();
        let hue = ColorJitter { hue: 0.5, ..none };
        let with = |wanted: &ColorJitter| {
            changed(&pixels, |pixels| {
                jitter(pixels, wanted, &mut Random::new(1))
            })
        };
        assert_eq!(with(&none), pixels);
        let most = |pixels: &[[u8; 3]]| {
            pixels
                .iter()
                .map(|pixel| *pixel.iter().max().unwrap())
                .collect::<Vec<_>>()
        };
        assert_ne!(with(&hue), pixels);
        assert_eq!(most(&with(&hue)), most(&pixels), "value stays");
    }
}
