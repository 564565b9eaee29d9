//! Evaluation of the network on some samples, with the mean training loss since the last one.

use super::{
    forgetting,
    metrics::{MultiLabel, Regression, Scored, SingleLabel},
};
use crate::{
    domain::{checkpoint::Metrics, recipe::Recipe},
    process::error::TrainError,
    train::{
        counters::{Counters, Exact},
        input::{
            inputs::Inputs,
            samples::{Samples, Targets},
        },
        network::Network,
    },
};

/// Outputs of the network for the samples `members`, in their order, beside their targets.
///
/// # Errors
/// `Io` when the cache cannot be read.
pub fn score(
    inputs: &Inputs,
    network: &Network,
    data: (&Samples, &Recipe),
    members: &[usize],
) -> Result<Scored, TrainError> {
    Ok(scored(inputs.logits(network, members)?, data, members))
}

/// `logits` [N, outputs], row after row, beside the targets of the samples `members`.
pub fn scored(
    logits: Vec<f32>,
    (samples, recipe): (&Samples, &Recipe),
    members: &[usize],
) -> Scored {
    let classes = samples.classes.len();
    match &samples.targets {
        Targets::Class(labels) => Scored::SingleLabel(SingleLabel {
            logits,
            labels: members.iter().map(|&sample| labels[sample]).collect(),
            classes,
        }),
        Targets::Classes(labels) => Scored::MultiLabel(MultiLabel {
            logits,
            labels: members
                .iter()
                .map(|&sample| labels[sample].clone())
                .collect(),
            classes,
        }),
        Targets::Value(values) => {
            let scale = samples.scale();
            let unit = |output: f32| f64::from(output) * scale.std + scale.mean;
            Scored::Regression(Regression {
                predictions: logits.into_iter().map(unit).collect(),
                values: members.iter().map(|&sample| values[sample]).collect(),
                std: scale.std,
                loss: recipe.loss,
            })
        }
    }
}

/// Evaluates the network on the validation split, and resets the mean training loss.
///
/// # Errors
/// `Diverged` when the validation loss is not finite, `Io`.
pub fn evaluate(
    counters: &mut Counters,
    inputs: &Inputs,
    network: &Network,
    data: (&Samples, &Recipe),
) -> Result<Metrics, TrainError> {
    let trained = counters.loss_samples;
    let mut metrics = Metrics {
        step: counters.step,
        epoch: counters.epoch,
        train_loss: (trained > 0).then(|| counters.loss.0 / trained as f64),
        ..Metrics::default()
    };
    let scored = score(inputs, network, data, &data.0.validation)?;
    scored.measure(&mut metrics, data.1.early_stopping.metric);
    if !metrics.valid_loss.is_finite() {
        return Err(TrainError::Diverged {
            step: counters.step,
        });
    }
    if counters.step == 0 {
        counters.at_start = forgetting::at_start(&scored);
    }
    (counters.loss, counters.loss_samples) = (Exact(0.0), 0);
    Ok(metrics)
}
