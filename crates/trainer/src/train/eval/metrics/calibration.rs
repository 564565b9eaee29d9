//! Temperature scaling (Guo, Pleiss, Sun & Weinberger 2017): one number that makes confidence match
//! accuracy. Plain arithmetic in f64 on the host.

use super::{labelled::SingleLabel, single::argmax};
use crate::{domain::report::Calibration, ticks::tick};

/// Range of temperatures: a split that is all right, or all wrong, has no minimum of its own.
pub const TEMPERATURES: [f64; 2] = [0.05, 20.0];
/// Bins of the expected calibration error, equally wide.
const BINS: usize = 15;
/// Steps of the search; each leaves 0.618 of the interval of log T, which ends below 1e-9.
const STEPS: usize = 48;

/// Calibration of `scored` under `temperature`; slightly optimistic on the split that it was fitted
/// on.
pub fn measure(scored: &SingleLabel, temperature: f64) -> Calibration {
    Calibration {
        temperature,
        log_loss_before: log_loss(scored, 1.0),
        log_loss_after: log_loss(scored, temperature),
        ece_before: calibration_error(scored, 1.0),
        ece_after: calibration_error(scored, temperature),
    }
}

/// The temperature within `TEMPERATURES` of the least negative log-likelihood, by golden-section
/// search over its logarithm (Kiefer 1953): the loss is convex in 1/T, and so has one valley in log
/// T. 1 over no samples.
pub fn fit(scored: &SingleLabel) -> f64 {
    if scored.labels.is_empty() {
        return 1.0;
    }
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let loss = |log: f64| log_loss(scored, log.exp());
    let [mut low, mut high] = TEMPERATURES.map(f64::ln);
    let (mut left, mut right) = (high - golden * (high - low), low + golden * (high - low));
    let (mut left_loss, mut right_loss) = (loss(left), loss(right));
    for _ in 0..STEPS {
        if left_loss <= right_loss {
            (high, right, right_loss) = (right, left, left_loss);
            left = high - golden * (high - low);
            left_loss = loss(left);
        } else {
            (low, left, left_loss) = (left, right, right_loss);
            right = low + golden * (high - low);
            right_loss = loss(right);
        }
    }
    let [lowest, highest] = TEMPERATURES;
    f64::midpoint(low, high).exp().clamp(lowest, highest)
}

fn log_loss(scored: &SingleLabel, temperature: f64) -> f64 {
    tick();
    let losses = scored.rows().map(|(row, &label)| {
        let top = f64::from(row[argmax(row)]);
        let scaled = |logit: f32| (f64::from(logit) - top) / temperature;
        let sum: f64 = row.iter().map(|&logit| scaled(logit).exp()).sum();
        sum.ln() - scaled(row[label])
    });
    losses.sum::<f64>() / scored.labels.len() as f64
}

/// Mean distance of confidence and accuracy over the bins, weighted by their samples; `NaN` over no
/// samples.
fn calibration_error(scored: &SingleLabel, temperature: f64) -> f64 {
    let mut gaps = [0.0; BINS];
    for (row, &label) in scored.rows() {
        let chosen = argmax(row);
        let top = f64::from(row[chosen]);
        let scaled = |logit: f32| ((f64::from(logit) - top) / temperature).exp();
        let confidence = 1.0 / row.iter().map(|&logit| scaled(logit)).sum::<f64>();
        let bin = ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
        gaps[bin] += f64::from(u8::from(chosen == label)) - confidence;
    }
    gaps.iter().map(|gap: &f64| gap.abs()).sum::<f64>() / scored.labels.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::rng::permutation;

    /// 20,000 rows of 3 logits whose labels follow softmax(logits / `temperature`).
    fn drawn(temperature: f64) -> SingleLabel {
        const SAMPLES: usize = 20_000;
        let uniform = |epoch: u32| {
            let places = permutation(7, epoch, SAMPLES);
            places
                .into_iter()
                .map(|place| (place as f64 + 0.5) / SAMPLES as f64)
        };
        let mut scored = SingleLabel {
            logits: Vec::new(),
            labels: Vec::new(),
            classes: 3,
        };
        for ((a, b), mut draw) in uniform(1).zip(uniform(2)).zip(uniform(3)) {
            let row = [(a * 12.0) as f32, (b * 12.0) as f32, 6.0];
            let weights = row.map(|logit| (f64::from(logit) / temperature).exp());
            let total: f64 = weights.iter().sum();
            let mut label = 0;
            while label < 2 && draw > weights[label] / total {
                draw -= weights[label] / total;
                label += 1;
            }
            scored.logits.extend(row);
            scored.labels.push(label);
        }
        scored
    }

    #[test]
    fn trap_29_the_temperature_of_synthetic_logits_is_recovered() {
        let scored = drawn(2.5);
        let temperature = fit(&scored);
        assert!((temperature - 2.5).abs() < 0.1, "{temperature}");
        let found = measure(&scored, temperature);
        assert!(
            found.ece_before > 0.1 && found.ece_after < 0.02,
            "{found:?}"
        );
        assert!(found.log_loss_after < found.log_loss_before, "{found:?}");
    }

    /// The first two samples share a bin; with any other number of bins up to 39 the error would be
    /// another.
    #[test]
    fn the_calibration_error_has_fifteen_bins() {
        let logit = |confidence: f64| (confidence / (1.0 - confidence)).ln() as f32;
        let scored = SingleLabel {
            logits: [0.61, 0.66, 0.68, 0.74]
                .map(|confidence| [logit(confidence), 0.0])
                .concat(),
            labels: vec![1, 0, 0, 1],
            classes: 2,
        };
        let found = measure(&scored, 1.0).ece_before;
        let expected = ((0.61 - 0.34) + 0.32 + 0.74) / 4.0;
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }

    #[test]
    fn calibrated_logits_keep_their_temperature() {
        let temperature = fit(&drawn(1.0));
        assert!((temperature - 1.0).abs() < 0.05, "{temperature}");
    }

    #[test]
    fn a_split_without_a_minimum_ends_at_a_limit() {
        let scored = |label| SingleLabel {
            logits: vec![2.0, 0.0],
            labels: vec![label],
            classes: 2,
        };
        assert!((fit(&scored(0)) - TEMPERATURES[0]).abs() < 1e-6);
        assert!((fit(&scored(1)) - TEMPERATURES[1]).abs() < 1e-6);
        let none = SingleLabel {
            logits: Vec::new(),
            labels: Vec::new(),
            classes: 2,
        };
        assert_eq!(fit(&none), 1.0);
    }
}
