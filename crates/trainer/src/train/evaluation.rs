//! How the network does on some samples, and the loss of the epoch that ends with it.

use super::{
    checkpoint::{Counters, Exact},
    error::TrainError,
    inputs::Inputs,
    metrics::{Scored, Tally},
    network::Network,
    samples::Samples,
};
use crate::domain::checkpoint::Metrics;

/// Logits of the samples `members` beside their labels.
///
/// # Errors
/// `Io` when the cache cannot be read.
pub fn score(
    inputs: &Inputs,
    network: &Network,
    samples: &Samples,
    members: &[usize],
) -> Result<Scored, TrainError> {
    let logits = inputs.logits(network, members)?;
    let labels = members
        .iter()
        .map(|&sample| samples.labels[sample])
        .collect();
    let classes = samples.classes.len();
    Ok(Scored {
        logits,
        labels,
        classes,
    })
}

/// Ends an epoch: its mean loss, and how the network does on the validation split.
///
/// # Errors
/// `Diverged` when the validation loss is not finite, `Io`.
pub fn end_epoch(
    counters: &mut Counters,
    inputs: &Inputs,
    network: &Network,
    samples: &Samples,
) -> Result<Metrics, TrainError> {
    let tally = Tally::of(&score(inputs, network, samples, &samples.validation)?);
    if !tally.log_loss.is_finite() {
        return Err(TrainError::Diverged {
            step: counters.step,
        });
    }
    if counters.step == 0 {
        let labels = 0..samples.classes.len();
        counters.right_at_start = labels.map(|label| tally.confusion[label][label]).collect();
    }
    let trained = counters.epoch_samples;
    let train_loss = (trained > 0).then(|| counters.epoch_loss.0 / trained as f64);
    (counters.epoch_loss, counters.epoch_samples) = (Exact(0.0), 0);
    Ok(Metrics {
        step: counters.step,
        epoch: counters.epoch,
        train_loss,
        valid_loss: tally.log_loss,
        valid_accuracy: tally.accuracy(),
        valid_balanced_accuracy: tally.balanced_accuracy(),
    })
}
