//! Random numbers as a function of a key, the same on every machine and thread.

use std::f64::consts::TAU;

/// Distance of a sequence's numbers before they are mixed.
pub const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// A stream of numbers that its key decides: SplitMix64 (Steele et al. 2014).
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    pub fn new(key: u64) -> Self {
        Self { state: key }
    }

    /// 64 random bits.
    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        finalize(self.state)
    }

    /// Uniform in `0..1`, 1 left out.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform between `low` and `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + self.unit() * (high - low)
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A whole number below `limit`, which is above 0.
    pub fn below(&mut self, limit: usize) -> usize {
        // The high half of a 128-bit product is uniform, but for a bias below 2^-32 for any limit
        // below 2^32.
        ((u128::from(self.bits()) * limit as u128) >> 64) as usize
    }

    /// Each of `0..count` once: Fisher-Yates (Knuth 1969, algorithm P).
    pub fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }

    /// From Beta(alpha, alpha): the share of one of two Gamma(alpha) in their sum. In logarithms,
    /// so that a small alpha gives 0 or 1, not 0 / 0.
    pub fn beta(&mut self, alpha: f64) -> f64 {
        // Gamma(alpha) is Gamma(alpha + 1) times u^(1/alpha) (Marsaglia & Tsang 2000, section 6).
        let mut draw = || (self.gamma(alpha + 1.0).ln(), (1.0 - self.unit()).ln());
        let ((a, a_boost), (b, b_boost)) = (draw(), draw());
        1.0 / (1.0 + ((b - a) + (b_boost - a_boost) / alpha).exp())
    }

    /// From Gamma(shape) with a shape of at least 1 (Marsaglia & Tsang 2000).
    fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            let u = 1.0 - self.unit();
            if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// From N(0, 1) (Box & Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }
}

/// A number of one step of SplitMix64: nearby numbers become unlike ones.
pub fn finalize(x: u64) -> u64 {
    mix(x.wrapping_add(GAMMA))
}

/// SplitMix64's finalizer, which leaves 0 unchanged.
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(draw: impl FnMut() -> f64) -> (f64, f64) {
        let count = 20_000;
        let values: Vec<f64> = std::iter::repeat_with(draw).take(count).collect();
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares = values.iter().map(|value| (value - mean).powi(2));
        (mean, squares.sum::<f64>() / count as f64)
    }

    #[test]
    fn numbers_are_spread_as_their_distributions_are() {
        let mut random = Random::new(1);
        let (mean, variance) = moments(|| random.unit());
        assert!((mean - 0.5).abs() < 0.01 && (variance - 1.0 / 12.0).abs() < 0.002);
        let (mean, variance) = moments(|| random.normal());
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04);
        // The variance of Beta(a, a) is 1 / (4 (2a + 1)).
        for alpha in [0.1, 0.5, 1.0, 3.0] {
            let (mean, variance) = moments(|| random.beta(alpha));
            let expected = 0.25 / (2.0 * alpha + 1.0);
            assert!((mean - 0.5).abs() < 0.012, "{alpha}: {mean}");
            assert!(
                (variance / expected - 1.0).abs() < 0.05,
                "{alpha}: {variance}"
            );
        }
    }

    #[test]
    fn the_smallest_alpha_gives_whole_shares() {
        let mut random = Random::new(2);
        for alpha in [1e-300, f64::MIN_POSITIVE] {
            let share = random.beta(alpha);
            assert!(share == 0.0 || share == 1.0, "{share}");
        }
    }

    #[test]
    fn a_key_decides_all_numbers() {
        let mut order = Random::new(7).order(50);
        assert_eq!(order, Random::new(7).order(50));
        assert_ne!(order, Random::new(8).order(50));
        order.sort_unstable();
        assert!(order.into_iter().eq(0..50));
    }
}
