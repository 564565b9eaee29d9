//! Losses in closed form.

use rehead_trainer::train::loss;
use tch::{Kind as Number, Tensor};

#[test]
fn trap_31_smoothing_with_class_weights_is_the_closed_form() {
    let rows = [[2.0f64, -1.0, 0.5], [0.0, 3.0, 1.0], [1.0, 1.0, -2.0]];
    let (labels, weights, smoothing) = ([0usize, 2, 1], [0.5f64, 1.0, 4.0], 0.1);
    let (mut sum, mut total) = (0.0, 0.0);
    for (row, label) in rows.iter().zip(labels) {
        let log_sum = row.iter().map(|x| x.exp()).sum::<f64>().ln();
        let even: f64 = row
            .iter()
            .zip(weights)
            .map(|(x, w)| w * (log_sum - x))
            .sum();
        let hard = weights[label] * (log_sum - row[label]);
        sum += (1.0 - smoothing) * hard + smoothing / 3.0 * even;
        total += weights[label];
    }
    let logits = Tensor::from_slice(&rows.concat()).view([3, 3]);
    let labels = Tensor::from_slice(&labels.map(|label| label as i64));
    let weights = Tensor::from_slice(&weights).to_kind(Number::Double);
    let found = loss::cross_entropy(&logits, &labels, Some(&weights), smoothing);
    assert!((found.double_value(&[]) - sum / total).abs() < 1e-12);
}
