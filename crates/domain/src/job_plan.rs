//! Job plans: what a recipe means for a base model and a data set, before anything runs
//! (`POST /v1/fine_tuning/jobs/plan`).

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    base_model::{LayerTensor, Layers},
    estimate::{self, Memory, NUMBER_BYTES, ParameterCounts},
    file::{Dataset, SplitSizes},
    layers,
    problem::Problem,
    recipe::{HeadLayer, Recipe, steps_per_epoch},
};

/// Memory of a trainer before it holds a tensor of its job, in MiB: libtorch, its threads, decoded
/// images.
const PROCESS_MB: u64 = 350;

/// Sizes that follow from a recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct JobPlan {
    /// Samples of each split, as training uses them: with a validation file, the training file's
    /// validation split trains too.
    pub samples: SplitSizes,
    pub steps_per_epoch: u64,
    /// Optimizer steps, unless training stops early.
    pub n_steps: u64,
    pub head: HeadShape,
    pub parameters: ParameterCounts,
    /// Bytes of weights, gradients, optimizer state, best weights and running averages. Activations
    /// come on top: they grow with the batch and the input.
    pub tensor_bytes: u64,
    /// Estimated peak memory; `null` for a base model without measured costs.
    pub memory: Option<Memory>,
}

/// The width of the head's input and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct HeadShape {
    /// Width of the backbone's features.
    pub inputs: u64,
    /// Classes; 1 in regression.
    pub outputs: u64,
}

impl JobPlan {
    /// The plan of `recipe` for the layers and data sets that it was resolved for.
    ///
    /// # Errors
    /// The layers have no such cut.
    pub fn of(
        recipe: &Recipe,
        layers: &Layers,
        training: &Dataset,
        validation: Option<&Dataset>,
    ) -> Result<Self, Vec<Problem>> {
        let left = layers::of_recipe(recipe, layers)?;
        let samples = match validation {
            None => training.splits,
            Some(validation) => SplitSizes {
                train: training.splits.train + training.splits.validation,
                validation: validation.samples,
                test: training.splits.test,
            },
        };
        let step_size = u64::from(recipe.batch_size) * u64::from(recipe.accumulate);
        let steps_per_epoch = steps_per_epoch(samples.train, step_size);
        let head = HeadShape {
            inputs: u64::from(left.feature_dim),
            outputs: recipe.inherited.as_ref().map_or_else(
                || training.outputs(),
                |inherited| inherited.labels.len() as u64,
            ),
        };
        let parameters = count(recipe, &left, head);
        let tensor_bytes = tensor_bytes(parameters, recipe);
        Ok(Self {
            samples,
            steps_per_epoch,
            n_steps: steps_per_epoch * u64::from(recipe.n_epochs),
            head,
            parameters,
            tensor_bytes,
            memory: estimate::memory(recipe, layers, parameters, tensor_bytes, samples),
        })
    }

    /// Estimated device memory of a trainer, in MiB. Too low rather than too high when activations
    /// outweigh tensors: the measured peak of an attempt corrects it.
    pub fn device_mb(&self) -> u32 {
        let mb = PROCESS_MB + self.tensor_bytes.div_ceil(1 << 20);
        u32::try_from(mb).unwrap_or(u32::MAX)
    }
}

fn count(recipe: &Recipe, layers: &Layers, head: HeadShape) -> ParameterCounts {
    let trainable = estimate::trainable_parameters(recipe, layers);
    let all: u64 = layers.parameters().map(LayerTensor::count).sum();
    ParameterCounts {
        frozen: all - trainable,
        trainable,
        head: head_parameters(&recipe.head.layers, head),
    }
}

fn head_parameters(layers: &[HeadLayer], head: HeadShape) -> u64 {
    let mut width = head.inputs;
    let mut count = 0;
    for layer in layers {
        count += match *layer {
            HeadLayer::Linear(outputs) => {
                let inputs = std::mem::replace(&mut width, u64::from(outputs));
                (inputs + 1) * width
            }
            HeadLayer::BatchNorm | HeadLayer::LayerNorm => 2 * width,
            HeadLayer::Dropout(_) | HeadLayer::Relu | HeadLayer::Gelu => 0,
        };
    }
    count + (width + 1) * head.outputs
}

/// Each number that trains needs a weight, a gradient, a best weight, one (SGD) or two (AdamW)
/// moments, and an average if the recipe asks for one.
fn tensor_bytes(parameters: ParameterCounts, recipe: &Recipe) -> u64 {
    let trained = parameters.trainable + parameters.head;
    let moments = recipe.optimizer.moments();
    let averages = u64::from(recipe.ema_decay.is_some());
    NUMBER_BYTES * (parameters.frozen + trained * (3 + moments + averages))
}
