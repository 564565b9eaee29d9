//! LogME: the logarithm of the maximum evidence for a linear model of the labels, given features
//! (You et al. 2021).

use tch::Kind;

use super::{
    spectrum::{Spectrum, numbers},
    targets::Targets,
};
use crate::ticks::tick;

/// Rounds of the fixed point for one class. It takes 3 to 11, and where N < D up to about 40.
const MAX_ROUNDS: u32 = 100;
/// Relative change of the precisions' ratio at which it has converged.
const TOLERANCE: f64 = 1e-3;
/// Keeps precisions finite where features explain everything or nothing, as the authors'
/// implementation does; here for features whose samples have a mean squared length of 1, so that
/// their scale does not matter.
const GUARD: f64 = 1e-5;

/// Evidence per sample, the mean over classes of one against all others. Higher is better; no upper
/// bound.
///
/// Where N < D, the D - N weights that no sample determines cancel out of the evidence. The
/// authors' fast form counts them on one side alone, which favors wide features; elsewhere it says
/// the same.
pub(super) fn score(spectrum: &Spectrum, targets: &Targets) -> f64 {
    let samples = spectrum.samples() as f64;
    let unit = spectrum.squares.sum(Kind::Double) / samples;
    let squares = numbers(&(&spectrum.squares / unit));
    let classes = targets.classes();
    let one_class = |class: i64| {
        tick();
        let projected = numbers(&targets.projected.select(1, class).square());
        let norm = targets.columns.select(1, class).sum(Kind::Double);
        let outside = (norm.double_value(&[]) - projected.iter().sum::<f64>()).max(0.0);
        let fit = Fit {
            squares: &squares,
            projected: &projected,
            outside,
            samples,
        };
        fit.log_evidence() / samples
    };
    (0..classes).map(one_class).sum::<f64>() / classes as f64
}

/// One class's labels, seen from the features' singular vectors.
struct Fit<'a> {
    /// Squared singular values.
    squares: &'a [f64],
    /// Squared components of the labels along the left singular vectors.
    projected: &'a [f64],
    /// Squared length of what of the labels no feature reaches.
    outside: f64,
    samples: f64,
}

impl Fit<'_> {
    /// At the precisions of weights (`alpha`) and noise (`beta`) that maximise it.
    fn log_evidence(&self) -> f64 {
        let (mut alpha, mut beta) = (1.0, 1.0);
        let (mut error, mut length) = (0.0, 0.0);
        for _ in 0..MAX_ROUNDS {
            let ratio: f64 = alpha / beta;
            let effective = self.sum(|square, _| square / (square + ratio));
            length = self.sum(|square, label| square * label / (square + ratio).powi(2));
            error = self.sum(|square, label| label * (ratio / (square + ratio)).powi(2));
            error += self.outside;
            alpha = effective / (length + GUARD);
            beta = (self.samples - effective) / (error + GUARD);
            if (alpha / beta - ratio).abs() <= TOLERANCE * ratio {
                break;
            }
        }
        // The posterior's precision over the prior's: D of the terms are ln α - ln α.
        let log_determinant = self.sum(|square, _| (alpha + beta * square).ln() - alpha.ln());
        0.5 * (self.samples * (beta.ln() - std::f64::consts::TAU.ln())
            - log_determinant
            - beta * error
            - alpha * length)
    }

    /// Over the singular values.
    fn sum(&self, term: impl Fn(f64, f64) -> f64) -> f64 {
        let pairs = self.squares.iter().zip(self.projected);
        pairs.map(|(&square, &label)| term(square, label)).sum()
    }
}
