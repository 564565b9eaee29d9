//! Geometric operations.

/// Mirrors left and right.
pub(super) fn flip<const C: usize>(pixels: &mut [[u8; C]], side: usize) {
    for row in pixels.chunks_exact_mut(side) {
        row.reverse();
    }
}

/// Where an output pixel is taken from: `x' = a x + b y + c`, `y' = d x + e y + f` for `[a, b, c,
/// d, e, f]`, in pixels, of pixels' centers.
pub(super) type Matrix = [f64; 6];

/// Affine transform with nearest-neighbor sampling, the default of Pillow and torchvision; `fill`
/// outside the image.
pub(super) fn affine<const C: usize>(
    pixels: &mut [[u8; C]],
    side: usize,
    matrix: Matrix,
    fill: [u8; C],
) {
    let source = pixels.to_vec();
    let [a, b, c, d, e, f] = matrix;
    let inside = |at: f64| (0.0..side as f64).contains(&at).then_some(at as usize);
    for (y, row) in pixels.chunks_exact_mut(side).enumerate() {
        let y = y as f64 + 0.5;
        for (x, pixel) in row.iter_mut().enumerate() {
            let x = x as f64 + 0.5;
            let from = inside(a * x + b * y + c).zip(inside(d * x + e * y + f));
            *pixel = from.map_or(fill, |(x, y)| source[y * side + x]);
        }
    }
}

/// Moves each row by `share` of its distance from the top.
pub(super) fn shear_x(share: f64) -> Matrix {
    [1.0, share, 0.0, 0.0, 1.0, 0.0]
}

/// Moves each column by `share` of its distance from the left.
pub(super) fn shear_y(share: f64) -> Matrix {
    [1.0, 0.0, 0.0, share, 1.0, 0.0]
}

/// Moves by whole pixels, to the right and down.
pub(super) fn shift(right: i32, down: i32) -> Matrix {
    [1.0, 0.0, -f64::from(right), 0.0, 1.0, -f64::from(down)]
}

/// Rotates counter-clockwise around the center.
pub(super) fn rotation(degrees: f64, side: usize) -> Matrix {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let center = side as f64 / 2.0;
    // The output pixel at an offset (x, y) from the center, y down, was at that offset turned
    // clockwise.
    let stay = |a: f64, b: f64| center - a * center - b * center;
    [cos, -sin, stay(cos, -sin), sin, cos, stay(sin, cos)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0 1 2 / 3 4 5 / 6 7 8
    fn moved(change: impl Fn(&mut [[u8; 3]])) -> Vec<u8> {
        let mut pixels: Vec<[u8; 3]> = (0..9).map(|value| [value; 3]).collect();
        change(&mut pixels);
        pixels.iter().map(|pixel| pixel[0]).collect()
    }

    #[test]
    fn pixels_go_where_they_should() {
        assert_eq!(moved(|pixels| flip(pixels, 3)), [2, 1, 0, 5, 4, 3, 8, 7, 6]);
        let warped = |matrix| moved(|pixels| affine(pixels, 3, matrix, [9; 3]));
        assert_eq!(warped(shift(1, 0)), [9, 0, 1, 9, 3, 4, 9, 6, 7]);
        assert_eq!(warped(shift(0, -1)), [3, 4, 5, 6, 7, 8, 9, 9, 9]);
        assert_eq!(warped(rotation(90.0, 3)), [2, 5, 8, 1, 4, 7, 0, 3, 6]);
        assert_eq!(warped(rotation(180.0, 3)), [8, 7, 6, 5, 4, 3, 2, 1, 0]);
        // Row y is taken from x + y / 2 + 1/4.
        assert_eq!(warped(shear_x(0.5)), [0, 1, 2, 4, 5, 9, 7, 8, 9]);
        assert_eq!(warped(shear_y(-0.5)), [0, 9, 9, 3, 1, 2, 6, 4, 5]);
    }
}
