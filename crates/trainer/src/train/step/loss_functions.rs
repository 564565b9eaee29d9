//! The losses of each task, as PyTorch's: `CrossEntropyLoss`, `BCEWithLogitsLoss`, `MSELoss` and
//! `HuberLoss`.

use tch::{Reduction, Tensor};

/// The mean over a batch, in nats.
///
/// `logits` is f32 `[N, classes]`, `labels` i64 `[N]`. `smoothing` is the mass that the true class
/// gives up to be spread evenly over all classes (Szegedy et al. 2016).
///
/// `weights`, f32 `[classes]`, multiply each class's part; the mean is then over the weights of the
/// samples' classes.
pub fn cross_entropy(
    logits: &Tensor,
    labels: &Tensor,
    weights: Option<&Tensor>,
    smoothing: f64,
) -> Tensor {
    let ignore_nothing = -100;
    logits.cross_entropy_loss(labels, weights, Reduction::Mean, ignore_nothing, smoothing)
}

/// The mean over a batch and its classes, in nats, of each label by itself.
///
/// `logits` and `labels` (0 or 1) are f32 `[N, classes]`. `weights`, f32 `[classes]`, multiply the
/// part of those who have the label.
pub fn binary_cross_entropy(logits: &Tensor, labels: &Tensor, weights: Option<&Tensor>) -> Tensor {
    let each_alike: Option<&Tensor> = None;
    logits.binary_cross_entropy_with_logits(labels, each_alike, weights, Reduction::Mean)
}

/// The mean over a batch of the squared errors; both are f32 `[N]`, in deviations of the training
/// split.
pub fn mse(predictions: &Tensor, values: &Tensor) -> Tensor {
    predictions.mse_loss(values, Reduction::Mean)
}

/// The error at which Huber's loss turns from a parabola into a straight line, in deviations of the
/// training split.
pub const HUBER_DELTA: f64 = 1.0;

/// Half of `mse` up to `HUBER_DELTA`, linear beyond.
pub fn huber(predictions: &Tensor, values: &Tensor) -> Tensor {
    predictions.huber_loss(values, Reduction::Mean, HUBER_DELTA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_head_starts_at_the_logarithm_of_the_classes() {
        let logits = Tensor::zeros([4, 3], tch::kind::FLOAT_CPU);
        let labels = Tensor::from_slice(&[0i64, 1, 2, 0]);
        for smoothing in [0.0, 0.1] {
            assert!(
                (cross_entropy(&logits, &labels, None, smoothing).double_value(&[]) - 3f64.ln())
                    .abs()
                    < 1e-6
            );
        }
    }

    #[test]
    fn smoothing_is_the_closed_form() {
        let rows = [[2.0f64, -1.0, 0.5], [0.0, 3.0, 1.0]];
        let labels = [0usize, 2];
        let expected: f64 = rows
            .iter()
            .zip(labels)
            .map(|(row, label)| {
                let log_sum = row.iter().map(|x| x.exp()).sum::<f64>().ln();
                let hard = log_sum - row[label];
                let even = row.iter().map(|x| log_sum - x).sum::<f64>() / 3.0;
                0.9 * hard + 0.1 * even
            })
            .sum::<f64>()
            / 2.0;
        let logits = Tensor::from_slice(&rows.concat()).view([2, 3]);
        let labels = Tensor::from_slice(&labels.map(|label| label as i64));
        assert!(
            (cross_entropy(&logits, &labels, None, 0.1).double_value(&[]) - expected).abs() < 1e-12
        );
    }
}
