//! The targets of all samples as a loss takes them, and which loss that is.

use tch::{Device, Kind, Tensor};

use super::loss_functions;
use crate::{
    domain::recipe::{Loss, Recipe},
    train::input::samples::{Samples, Targets, indices, select},
};

/// Targets on the device, and the loss that the recipe takes of them.
#[derive(Debug)]
pub struct Objective {
    targets: DeviceTargets,
    /// f32 [classes] on the device.
    class_weights: Option<Tensor>,
    smoothing: f64,
    loss: Loss,
    /// The weight of each sample in a mean, by sample number.
    sample_weights: Vec<f64>,
}

#[derive(Debug)]
enum DeviceTargets {
    /// i64 [samples].
    Class(Tensor),
    /// Made dense batch by batch: all at once would be samples times classes.
    Classes {
        labels: Vec<Vec<usize>>,
        outputs: usize,
        device: Device,
    },
    /// f32 [samples], in deviations of the training split.
    Value(Tensor),
}

impl Objective {
    pub fn new(recipe: &Recipe, samples: &Samples, device: Device) -> Self {
        let weights = recipe.class_weights.as_deref();
        let (targets, sample_weights) = match &samples.targets {
            Targets::Class(labels) => {
                let weight = |&label: &usize| weights.map_or(1.0, |weights| weights[label]);
                let all = labels.iter().map(weight).collect();
                (DeviceTargets::Class(indices(labels, device)), all)
            }
            Targets::Classes(labels) => {
                let targets = DeviceTargets::Classes {
                    labels: labels.clone(),
                    outputs: samples.outputs(),
                    device,
                };
                (targets, vec![1.0; labels.len()])
            }
            Targets::Value(values) => {
                let scale = samples.scale();
                let deviations = values.iter().map(|&value| scale.deviation(value) as f32);
                let deviations: Vec<f32> = deviations.collect();
                let targets = Tensor::from_slice(&deviations).to_device(device);
                (DeviceTargets::Value(targets), vec![1.0; values.len()])
            }
        };
        Self {
            targets,
            class_weights: weights.map(|weights| {
                let weights: Vec<f32> = weights.iter().map(|&weight| weight as f32).collect();
                Tensor::from_slice(&weights).to_device(device)
            }),
            smoothing: recipe.label_smoothing,
            loss: recipe.loss,
            sample_weights,
        }
    }

    /// The mean loss (a scalar) of logits [N, outputs] against the targets of `samples`.
    pub fn mean(&self, logits: &Tensor, samples: &[usize]) -> Tensor {
        let weights = self.class_weights.as_ref();
        match &self.targets {
            DeviceTargets::Class(labels) => {
                let labels = select(labels, samples);
                loss_functions::cross_entropy(logits, &labels, weights, self.smoothing)
            }
            DeviceTargets::Classes {
                labels,
                outputs,
                device,
            } => {
                let labels = dense(labels, samples, *outputs).to_device(*device);
                loss_functions::binary_cross_entropy(logits, &labels.to_kind(Kind::Float), weights)
            }
            DeviceTargets::Value(values) => {
                let values = select(values, samples);
                let predictions = logits.squeeze_dim(1);
                match self.loss {
                    Loss::Huber => loss_functions::huber(&predictions, &values),
                    _ => loss_functions::mse(&predictions, &values),
                }
            }
        }
    }

    /// The weight of these samples in a mean over more.
    pub fn weight(&self, samples: &[usize]) -> f64 {
        let weights = samples.iter().map(|&sample| self.sample_weights[sample]);
        weights.sum()
    }
}

/// u8 [N, outputs]: 1 where a sample has the label.
pub fn dense(labels: &[Vec<usize>], samples: &[usize], outputs: usize) -> Tensor {
    let mut rows = vec![0u8; samples.len() * outputs];
    for (row, &sample) in rows.chunks_exact_mut(outputs).zip(samples) {
        for &label in &labels[sample] {
            row[label] = 1;
        }
    }
    Tensor::from_slice(&rows).view([samples.len() as i64, outputs as i64])
}
