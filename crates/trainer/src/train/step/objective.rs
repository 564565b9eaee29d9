//! The targets of all samples as a loss takes them, and which loss that is.

use tch::{Device, Kind, Tensor};

use super::loss_functions;
use crate::{
    domain::recipe::{Loss, Recipe},
    train::input::samples::{Samples, Scale, Targets},
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
        outputs: i64,
        device: Device,
    },
    /// f32 [samples], in deviations of the training split.
    Value(Tensor),
}

impl Objective {
    pub fn new(recipe: &Recipe, samples: &Samples, device: Device) -> Self {
        let scale = samples.scale();
        Self::of(recipe, (&samples.targets, samples.outputs(), scale), device)
    }

    /// Takes `outputs` outputs for each target; `scale` normalizes numbers.
    pub fn of(
        recipe: &Recipe,
        (targets, outputs, scale): (&Targets, usize, Scale),
        device: Device,
    ) -> Self {
        let weights = recipe.class_weights.as_deref();
        let (targets, sample_weights) = match targets {
            Targets::Class(labels) => {
                let weight = |&label: &usize| weights.map_or(1.0, |weights| weights[label]);
                let all = labels.iter().map(weight).collect();
                (DeviceTargets::Class(indices(labels, device)), all)
            }
            Targets::Classes(labels) => {
                let targets = DeviceTargets::Classes {
                    labels: labels.clone(),
                    outputs: outputs as i64,
                    device,
                };
                (targets, vec![1.0; labels.len()])
            }
            Targets::Value(values) => {
                let deviations: Vec<f32> = values
                    .iter()
                    .map(|value| ((value - scale.mean) / scale.std) as f32)
                    .collect();
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
                let labels = labels.index_select(0, &indices(samples, labels.device()));
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
                let values = values.index_select(0, &indices(samples, values.device()));
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
fn dense(labels: &[Vec<usize>], samples: &[usize], outputs: i64) -> Tensor {
    let width = outputs as usize;
    let mut rows = vec![0u8; samples.len() * width];
    for (place, &sample) in samples.iter().enumerate() {
        for &label in &labels[sample] {
            rows[place * width + label] = 1;
        }
    }
    Tensor::from_slice(&rows).view([samples.len() as i64, outputs])
}

/// Numbers as torch takes them: i64 on the device.
fn indices(numbers: &[usize], device: Device) -> Tensor {
    let numbers: Vec<i64> = numbers.iter().map(|&number| number as i64).collect();
    Tensor::from_slice(&numbers).to_device(device)
}
