//! Multinomial logistic regression with an L2 penalty on the weights, not on the bias: convex, so it has one optimum and
//! no rate, no epochs, no seed.

use tch::{Kind, Tensor};

use super::lbfgs::{self, Minimum};

/// Iterations for one C; LP-FT's probes take 200 (Kumar et al. 2022), and a path starts each C near its optimum.
const MAX_ITERATIONS: u32 = 1_000;
/// Share of the objective that is certain not to be left to gain.
const TOLERANCE: f64 = 1e-9;

/// Samples with labels.
#[derive(Debug)]
pub struct Labelled {
    /// [N, features] f64
    pub features: Tensor,
    /// `[N]` i64
    pub labels: Tensor,
}

/// A linear classifier: logits are `features · weightᵀ + bias`.
#[derive(Debug)]
pub struct Linear {
    /// [classes, features] f64
    pub weight: Tensor,
    /// `[classes]` f64
    pub bias: Tensor,
}

impl Linear {
    /// All 0.
    pub fn zero(classes: i64, features: i64) -> Self {
        let kind = (Kind::Double, tch::Device::Cpu);
        Self {
            weight: Tensor::zeros([classes, features], kind),
            bias: Tensor::zeros([classes], kind),
        }
    }

    /// Log-probabilities [N, classes] of features [N, features].
    pub fn log_probabilities(&self, features: &Tensor) -> Tensor {
        features
            .linear(&self.weight, Some(&self.bias))
            .log_softmax(1, Kind::Double)
    }

    /// Mean negative log-likelihood.
    pub fn log_loss(&self, data: &Labelled) -> f64 {
        nll(&self.log_probabilities(&data.features), data) / data.labels.size()[0] as f64
    }

    fn flat(&self) -> Tensor {
        Tensor::cat(&[self.weight.reshape([-1]), self.bias.shallow_clone()], 0)
    }

    fn of_flat(flat: &Tensor, classes: i64, features: i64) -> Self {
        let count = classes * features;
        Self {
            weight: flat.narrow(0, 0, count).view([classes, features]),
            bias: flat.narrow(0, count, classes),
        }
    }
}

/// Minimises `c · Σ NLL + ½ ‖weight‖²` from `start`. Returns the optimum, the objective there, and the iterations taken.
/// `stopped` makes it end early, wherever it is.
pub fn fit(
    data: &Labelled,
    c: f64,
    start: &Linear,
    stopped: &dyn Fn() -> bool,
) -> (Linear, f64, u32) {
    let (classes, features) = (start.bias.size()[0], start.weight.size()[1]);
    let evaluate = |flat: &Tensor| objective(data, c, &Linear::of_flat(flat, classes, features));
    // The objective is 1-strongly convex in the weights: what is left to gain is at most ‖gradient‖² / 2.
    let is_done = |value: f64, squared: f64| squared / 2.0 <= TOLERANCE * value || stopped();
    let Minimum {
        point,
        value,
        iterations,
    } = lbfgs::minimize(&start.flat(), MAX_ITERATIONS, evaluate, is_done);
    (
        Linear::of_flat(&point, classes, features),
        value,
        iterations,
    )
}

/// The value and the flat gradient.
fn objective(data: &Labelled, c: f64, at: &Linear) -> (f64, Tensor) {
    let log_probabilities = at.log_probabilities(&data.features);
    let penalty = at.weight.square().sum(Kind::Double).double_value(&[]) / 2.0;
    let value = c * nll(&log_probabilities, data) + penalty;
    let labels = data.labels.unsqueeze(1);
    let minus_one = Tensor::full(labels.size(), -1.0, (Kind::Double, tch::Device::Cpu));
    let excess = log_probabilities.exp().scatter_add(1, &labels, &minus_one) * c;
    let weight = excess.tr().matmul(&data.features) + &at.weight;
    let bias = excess.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
    (value, Tensor::cat(&[weight.reshape([-1]), bias], 0))
}

fn nll(log_probabilities: &Tensor, data: &Labelled) -> f64 {
    let of_label = log_probabilities.gather(1, &data.labels.unsqueeze(1), false);
    -of_label.sum(Kind::Double).double_value(&[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::test_data::digits;

    fn right(linear: &Linear, data: &Labelled) -> i64 {
        let guessed = linear.log_probabilities(&data.features).argmax(1, false);
        guessed
            .eq_tensor(&data.labels)
            .sum(Kind::Int64)
            .int64_value(&[])
    }

    /// Recorded with scikit-learn, newton-cg and L-BFGS agreeing to 1e-6.
    #[test]
    fn the_optimum_on_digits_is_scikit_learns() {
        let (features, labels) = digits();
        let rows = |from: i64, count: i64| Labelled {
            features: features.narrow(0, from, count) / 16.0,
            labels: labels.narrow(0, from, count),
        };
        let (train, test) = (rows(0, 1000), rows(1000, 797));
        let zero = Linear::zero(10, 64);
        for (c, value, norm, count) in [
            (0.1, 71.426_048, 8.036_42, 732),
            (1.0, 230.260_988, 15.519_23, 743),
            (10.0, 636.734_431, 27.617_98, 745),
        ] {
            let (linear, found, iterations) = fit(&train, c, &zero, &|| false);
            assert!(
                (found / value - 1.0).abs() < 1e-6,
                "C {c}: {found} in {iterations}"
            );
            let found = linear.weight.norm().double_value(&[]);
            assert!((found / norm - 1.0).abs() < 1e-4, "C {c}: norm {found}");
            assert_eq!(right(&linear, &test), count, "C {c}");
            let again = fit(&train, c, &zero, &|| false).0;
            assert_eq!(again.flat(), linear.flat(), "the same input, the same bits");
        }
    }

    #[test]
    fn the_gradient_is_that_of_the_value() {
        let (features, labels) = digits();
        let data = Labelled {
            features: features.narrow(0, 0, 50) / 16.0,
            labels: labels.narrow(0, 0, 50),
        };
        let flat = (Tensor::arange(650, (Kind::Double, tch::Device::Cpu)) * 0.7).sin() * 0.1;
        let value = |flat: &Tensor| objective(&data, 3.0, &Linear::of_flat(flat, 10, 64));
        let gradient = value(&flat).1;
        for place in [20, 300, 645] {
            let nudged = |by: f64| {
                let nudged = flat.copy();
                let _ = nudged.get(place).f_add_(&Tensor::from(by)).unwrap();
                value(&nudged).0
            };
            let slope = (nudged(1e-5) - nudged(-1e-5)) / 2e-5;
            let found = gradient.double_value(&[place]);
            assert!(
                (slope - found).abs() < 1e-5 * found.abs().max(1.0),
                "{slope} {found}"
            );
        }
    }
}
