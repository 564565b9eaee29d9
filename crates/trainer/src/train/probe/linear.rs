//! Linear models of fixed features with an L2 penalty on the weights, not on the bias: multinomial
//! logistic regression, one logistic regression for each label. Convex, so there is one optimum and
//! no rate, no epochs, no seed.
#![expect(
    unsafe_code,
    reason = "threads share tensors, which tch does not allow by itself"
)]

use tch::{Kind, Tensor};

use super::lbfgs;
use crate::{
    process::parallel::{self, Shared},
    ticks::tick,
};

/// Iterations for one C; LP-FT's probes take 200 (Kumar et al. 2022), and a path starts each C near
/// its optimum.
pub const MAX_ITERATIONS: u32 = 1_000;
/// Outputs that are computed together where only their loss is wanted: 32 MB.
const BLOCK: i64 = 1 << 22;
/// Multiplications of features and weights below which one thread computes a slope.
const SMALL: i64 = 1 << 26;
/// Samples of a block of a slope, at least, and blocks at most: each has a slope of its own.
const BLOCK_SAMPLES: i64 = 256;
const MAX_BLOCKS: i64 = 8;
/// The share of the objective that can be left to gain at an optimum.
pub const TOLERANCE: f64 = 1e-9;

/// Samples with their targets.
#[derive(Debug)]
pub struct Wanted {
    /// [N, features] f64
    pub features: Tensor,
    pub outputs: Outputs,
}

/// Targets of N samples.
#[derive(Debug)]
pub enum Outputs {
    /// One of the classes: `[N]` i64.
    Class(Tensor),
    /// 1 for each label that a sample has, else 0: [N, labels] f64.
    Labels(Tensor),
    /// Numbers: [N, 1] f64.
    Values(Tensor),
}

impl Wanted {
    /// The results of `work` for each `rows` samples in turn, computed side by side.
    fn in_blocks<R: Send>(&self, rows: i64, work: impl Fn(Self) -> R + Sync) -> Vec<R> {
        let samples = self.features.size()[0];
        let starts: Vec<i64> = (0..samples).step_by(rows.max(1) as usize).collect();
        // SAFETY: samples are only read.
        let shared = unsafe { Shared::new(self) };
        parallel::over(&starts, parallel::threads(), |&from| {
            work(shared.narrow(from, rows.min(samples - from)))
        })
    }

    /// `count` samples from this one on.
    fn narrow(&self, from: i64, count: i64) -> Self {
        let rows = |table: &Tensor| table.narrow(0, from, count);
        Self {
            features: rows(&self.features),
            outputs: match &self.outputs {
                Outputs::Class(labels) => Outputs::Class(rows(labels)),
                Outputs::Labels(labels) => Outputs::Labels(rows(labels)),
                Outputs::Values(values) => Outputs::Values(rows(values)),
            },
        }
    }
}

impl Outputs {
    /// The summed loss of outputs [N, outputs]: negative log-likelihood, or half the squares.
    fn loss(&self, found: &Tensor) -> f64 {
        let loss = match self {
            Self::Class(labels) => {
                -found
                    .log_softmax(1, Kind::Double)
                    .gather(1, &labels.unsqueeze(1), false)
            }
            Self::Labels(labels) => found.softplus() - labels * found,
            Self::Values(values) => (found - values).square() / 2.0,
        };
        loss.sum(Kind::Double).double_value(&[])
    }

    /// The loss's slope in each output.
    fn slope(&self, found: &Tensor) -> Tensor {
        match self {
            Self::Class(labels) => {
                let labels = labels.unsqueeze(1);
                let kind = (Kind::Double, tch::Device::Cpu);
                let minus_one = Tensor::full(labels.size(), -1.0, kind);
                found
                    .softmax(1, Kind::Double)
                    .scatter_add(1, &labels, &minus_one)
            }
            Self::Labels(labels) => found.sigmoid() - labels,
            Self::Values(values) => found - values,
        }
    }
}

/// A linear model: outputs are `features · weightᵀ + bias`.
#[derive(Debug)]
pub struct Linear {
    /// [outputs, features] f64
    pub weight: Tensor,
    /// `[outputs]` f64
    pub bias: Tensor,
}

impl Linear {
    /// All 0.
    pub fn zero(outputs: i64, features: i64) -> Self {
        let kind = (Kind::Double, tch::Device::Cpu);
        Self {
            weight: Tensor::zeros([outputs, features], kind),
            bias: Tensor::zeros([outputs], kind),
        }
    }

    pub fn copy(&self) -> Self {
        Self {
            weight: self.weight.copy(),
            bias: self.bias.copy(),
        }
    }

    /// Outputs [N, outputs] of features [N, features].
    pub fn outputs(&self, features: &Tensor) -> Tensor {
        features.linear(&self.weight, Some(&self.bias))
    }

    /// Mean loss of a sample.
    pub fn loss(&self, data: &Wanted) -> f64 {
        self.losses(data, [1.0])[0]
    }

    /// The same with its outputs multiplied by the factor of these that makes the loss lowest.
    pub fn calibrated<const N: usize>(self, data: &Wanted, factors: [f64; N]) -> Self {
        let losses = self.losses(data, factors);
        let both = losses.iter().zip(factors);
        let lowest = both.min_by(|one, other| one.0.total_cmp(other.0));
        let factor = lowest.map_or(1.0, |(_, factor)| factor);
        Self {
            weight: self.weight * factor,
            bias: self.bias * factor,
        }
    }

    /// Mean losses of a sample with outputs multiplied by each of these factors. Outputs are
    /// computed once, for some samples at a time.
    fn losses<const N: usize>(&self, data: &Wanted, factors: [f64; N]) -> [f64; N] {
        let samples = data.features.size()[0];
        let rows = (BLOCK / self.bias.numel() as i64).clamp(1, samples.max(1));
        // SAFETY: the model is only read.
        let shared = unsafe { Shared::new(self) };
        let parts = data.in_blocks(rows, |part| {
            tick();
            let outputs = shared.outputs(&part.features);
            factors.map(|factor| part.outputs.loss(&(&outputs * factor)))
        });
        let mut sums = [0.0; N];
        for part in parts {
            for (sum, loss) in sums.iter_mut().zip(part) {
                *sum += loss;
            }
        }
        sums.map(|sum| sum / samples as f64)
    }

    fn flat(&self) -> Tensor {
        Tensor::cat(&[self.weight.reshape([-1]), self.bias.shallow_clone()], 0)
    }

    fn of_flat(flat: &Tensor, outputs: i64, features: i64) -> Self {
        let count = outputs * features;
        Self {
            weight: flat.narrow(0, 0, count).view([outputs, features]),
            bias: flat.narrow(0, count, outputs),
        }
    }
}

/// Minimises `c · Σ loss + ½ ‖weight‖²` from `start`. Returns the optimum, the objective there, and
/// the iterations taken. It stops once no more than the share `tolerance` of the objective can be
/// left to gain, or where `stopped`, which is asked in each iteration, says so.
pub fn fit(
    data: &Wanted,
    c: f64,
    start: &Linear,
    tolerance: f64,
    stopped: &mut dyn FnMut() -> bool,
) -> (Linear, f64, u32) {
    let (outputs, features) = (start.bias.size()[0], start.weight.size()[1]);
    let evaluate = |flat: &Tensor| objective(data, c, &Linear::of_flat(flat, outputs, features));
    // The objective is 1-strongly convex in the weights: what is left to gain is at most
    // ‖gradient‖² / 2.
    let is_done = |value: f64, squared: f64| stopped() || squared / 2.0 <= tolerance * value;
    let found = lbfgs::minimize(&start.flat(), MAX_ITERATIONS, evaluate, is_done);
    let linear = Linear::of_flat(&found.point, outputs, features);
    (linear, found.value, found.iterations)
}

/// The value and the flat gradient.
fn objective(data: &Wanted, c: f64, at: &Linear) -> (f64, Tensor) {
    let samples = data.features.size()[0];
    // As many as follow from the sizes alone: so do the sums' roundings.
    let blocks = match data.features.numel() as i64 * at.bias.numel() as i64 {
        ..SMALL => 1,
        _ => (samples / BLOCK_SAMPLES).clamp(1, MAX_BLOCKS),
    };
    // SAFETY: the model is only read.
    let shared = unsafe { Shared::new(at) };
    let parts = data.in_blocks((samples + blocks - 1) / blocks, |part| {
        tick();
        let found = shared.outputs(&part.features);
        let slope = part.outputs.slope(&found) * c;
        let weight = slope.tr().matmul(&part.features);
        let bias = slope.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
        (part.outputs.loss(&found), weight, bias)
    });
    let mut value = at.weight.square().sum(Kind::Double).double_value(&[]) / 2.0;
    let (mut weight, mut bias) = (at.weight.copy(), at.bias.zeros_like());
    for (loss, of_weight, of_bias) in parts {
        value += c * loss;
        weight += of_weight;
        bias += of_bias;
    }
    (value, Tensor::cat(&[weight.reshape([-1]), bias], 0))
}

/// Ridge regression: the same for numbers, whose optimum needs no search.
#[derive(Debug)]
pub struct Ridge {
    /// [features, features], of features less their means.
    gram: Tensor,
    /// [features, outputs]
    moments: Tensor,
    /// `[features]`, `[outputs]`
    means: (Tensor, Tensor),
}

impl Ridge {
    /// Takes features [N, features] and values [N, outputs], both f64.
    pub fn new(features: &Tensor, values: &Tensor) -> Self {
        let mean = |table: &Tensor| table.mean_dim([0i64].as_slice(), false, Kind::Double);
        let means = (mean(features), mean(values));
        let centered = features - &means.0;
        Self {
            gram: centered.tr().matmul(&centered),
            moments: centered.tr().matmul(&(values - &means.1)),
            means,
        }
    }

    /// The optimum of `c · ½ Σ (output - value)² + ½ ‖weight‖²`.
    pub fn fit(&self, c: f64) -> Linear {
        tick();
        let eye = Tensor::eye(self.gram.size()[0], (Kind::Double, tch::Device::Cpu));
        let factor = (&self.gram + eye / c).linalg_cholesky(false);
        let weight = self.moments.cholesky_solve(&factor, false).tr();
        let bias = &self.means.1 - weight.mv(&self.means.0);
        Linear {
            weight: weight.contiguous(),
            bias,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::test_data::digits;

    fn right(linear: &Linear, data: &Wanted) -> i64 {
        let Outputs::Class(labels) = &data.outputs else {
            unreachable!("digits have one class each")
        };
        let guessed = linear.outputs(&data.features).argmax(1, false);
        guessed.eq_tensor(labels).sum(Kind::Int64).int64_value(&[])
    }

    /// Recorded with scikit-learn, newton-cg and L-BFGS agreeing to 1e-6.
    #[test]
    fn golden_g4_the_optimum_on_digits_is_scikit_learns() {
        let (features, labels) = digits();
        let rows = |from: i64, count: i64| Wanted {
            features: features.narrow(0, from, count) / 16.0,
            outputs: Outputs::Class(labels.narrow(0, from, count)),
        };
        let (train, test) = (rows(0, 1000), rows(1000, 797));
        let zero = Linear::zero(10, 64);
        for (c, value, norm, count) in [
            (0.1, 71.426_048, 8.036_42, 732),
            (1.0, 230.260_988, 15.519_23, 743),
            (10.0, 636.734_431, 27.617_98, 745),
        ] {
            let (linear, found, iterations) = fit(&train, c, &zero, TOLERANCE, &mut || false);
            assert!(
                (found - value).abs() < 1e-6,
                "C {c}: {found} in {iterations}"
            );
            let found = linear.weight.norm().double_value(&[]);
            assert!((found / norm - 1.0).abs() < 1e-4, "C {c}: norm {found}");
            assert_eq!(right(&linear, &test), count, "C {c}");
            let again = fit(&train, c, &zero, TOLERANCE, &mut || false).0;
            assert_eq!(again.flat(), linear.flat(), "the same input, the same bits");
        }
    }

    /// The first digits, and what of each kind could be asked of them.
    fn asked() -> (Tensor, [Outputs; 3]) {
        let (features, labels) = digits();
        let (features, labels) = (features.narrow(0, 0, 50) / 16.0, labels.narrow(0, 0, 50));
        let values = labels.unsqueeze(1).to_kind(Kind::Double) / 3.0;
        let several = Tensor::cat(
            &[
                &labels.remainder(2).unsqueeze(1),
                &labels.ge(5).unsqueeze(1).to_kind(Kind::Int64),
            ],
            1,
        );
        let labels = Outputs::Labels(several.to_kind(Kind::Double));
        let class = Outputs::Class(digits().1.narrow(0, 0, 50));
        (features, [class, labels, Outputs::Values(values)])
    }

    #[test]
    fn the_gradient_is_that_of_the_value() {
        let (features, all) = asked();
        for (outputs, width) in all.into_iter().zip([10, 2, 1]) {
            let data = Wanted {
                features: features.shallow_clone(),
                outputs,
            };
            let count = width * 65;
            let flat = (Tensor::arange(count, (Kind::Double, tch::Device::Cpu)) * 0.7).sin() * 0.1;
            let value = |flat: &Tensor| objective(&data, 3.0, &Linear::of_flat(flat, width, 64));
            let gradient = value(&flat).1;
            for place in [20, count / 2, count - 1] {
                let nudged = |by: f64| {
                    let nudged = flat.copy();
                    let _ = nudged.get(place).f_add_(&Tensor::from(by)).unwrap();
                    value(&nudged).0
                };
                let slope = (nudged(1e-5) - nudged(-1e-5)) / 2e-5;
                let found = gradient.double_value(&[place]);
                assert!(
                    (slope - found).abs() < 1e-5 * found.abs().max(1.0),
                    "{width}: {slope} {found}"
                );
            }
        }
    }

    /// Each is fitted by another path to the same optimum.
    #[test]
    fn probe_of_labels_is_independent_and_of_numbers_is_ridge() {
        let (features, [_, labels, values]) = asked();
        let fitted = |outputs: Outputs, width: i64| {
            let data = Wanted {
                features: features.shallow_clone(),
                outputs,
            };
            fit(&data, 2.0, &Linear::zero(width, 64), TOLERANCE, &mut || {
                false
            })
            .0
        };
        let apart = |one: &Tensor, other: &Tensor| (one - other).abs().max().double_value(&[]);

        let Outputs::Labels(table) = &labels else {
            unreachable!("asked for above")
        };
        for label in 0..2 {
            let one = Outputs::Labels(table.narrow(1, label, 1));
            let alone = fitted(one, 1);
            let together = fitted(Outputs::Labels(table.copy()), 2);
            assert!(apart(&alone.weight, &together.weight.narrow(0, label, 1)) < 1e-4);
        }

        let Outputs::Values(numbers) = &values else {
            unreachable!("asked for above")
        };
        let ridge = Ridge::new(&features, numbers).fit(2.0);
        let searched = fitted(Outputs::Values(numbers.copy()), 1);
        assert!(apart(&ridge.weight, &searched.weight) < 1e-4);
        assert!(apart(&ridge.bias, &searched.bias) < 1e-4);
    }
}
