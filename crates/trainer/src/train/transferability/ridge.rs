//! Ridge regression of one-hot labels, scored by leaving each sample out in turn: exactly, without
//! fitting N times.

use tch::{Kind, Tensor};

use super::{spectrum::Spectrum, targets::Targets};
use crate::ticks::tick;

/// Penalties that are tried, as powers of ten times the samples' number times the features' mean
/// variance.
const LOG10_PENALTIES: std::ops::RangeInclusive<i32> = -5..=3;

/// Predictions [N, C] of each sample by a ridge regression with an unpenalised intercept on all
/// other samples; at the penalty that leaves the least squared error so. `variance` is the
/// features' mean one.
pub(super) fn predictions(spectrum: &Spectrum, targets: &Targets, variance: f64) -> Tensor {
    let unit = spectrum.samples() as f64 * if variance > 0.0 { variance } else { 1.0 };
    let fits = LOG10_PENALTIES.map(|exponent| {
        let predicted = leave_one_out(spectrum, targets, 10f64.powi(exponent) * unit, true);
        let error = (&predicted - &targets.columns).square().sum(Kind::Double);
        (error.double_value(&[]), predicted)
    });
    let best = fits.min_by(|(one, _), (other, _)| one.total_cmp(other));
    let (_, predicted) = best.expect("there are penalties: this is a bug");
    predicted
}

/// Predictions [N, C] for each sample by weights that minimise
/// `Σ ‖label - prediction‖² + penalty · ‖weights‖²` over all others (the hat matrix' identity,
/// Allen 1974).
pub(super) fn leave_one_out(
    spectrum: &Spectrum,
    targets: &Targets,
    penalty: f64,
    intercept: bool,
) -> Tensor {
    tick();
    let Spectrum { left, squares, .. } = spectrum;
    let shrunk = squares / (squares + penalty);
    let residual = |labels: &Tensor, projected: &Tensor| {
        labels - left.matmul(&(shrunk.unsqueeze(1) * projected))
    };
    let mut residuals = residual(&targets.columns, &targets.projected);
    // 1 less each sample's leverage.
    let mut slack: Tensor = 1.0 - left.square().matmul(&shrunk).unsqueeze(1);
    if intercept {
        // The best intercept leaves residuals that are orthogonal to what a constant leaves of
        // itself.
        let ones = slack.ones_like();
        let constant = residual(&ones, &left.tr().matmul(&ones));
        let total = constant.sum(Kind::Double);
        let levels = constant.tr().matmul(&targets.columns) / &total;
        residuals -= constant.matmul(&levels);
        slack -= constant.square() / total;
    }
    &targets.columns - residuals / slack
}

/// Accuracy of predictions [N, C].
pub(super) fn share_right(predicted: &Tensor, targets: &Targets) -> f64 {
    let guessed = predicted.argmax(1, false);
    let labels = targets.columns.argmax(1, false);
    guessed
        .eq_tensor(&labels)
        .mean(Kind::Double)
        .double_value(&[])
}
