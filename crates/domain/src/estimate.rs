//! Estimates of a job's memory and time from the costs of its network: memory as the sum of what is
//! held at once, time from earlier jobs of this installation or, before there are any, from the
//! import of the network.

use std::collections::HashSet;

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    base_model::{LayerTensor, Layers, StageCost},
    file::SplitSizes,
    layers,
    limits::{EVALUATION_BATCH, PROBE_SAMPLES},
    progress::Usage,
    recipe::{HeadInit, Precision, Recipe},
};

/// Bytes of one number: weights and their states are float32.
pub(crate) const NUMBER_BYTES: u64 = 4;
/// Resident memory of a trainer that has torch loaded (112 MiB) and has run its first operations,
/// which load their kernels.
const PROCESS_BYTES: u64 = 200 << 20;
/// Memory that the allocator keeps in blocks which no later tensor fits (30 to 200 MiB were
/// measured over three networks).
const UNUSED_BYTES: u64 = 64 << 20;
/// Bytes that a probe needs for each feature of a sample: as computed, and in double precision as
/// it is and scaled.
const PROBE_BYTES: u64 = 4 + 8 + 8;

/// Samples of a shard whose statistics BatchNorm takes, at least: as many train as well as more do
/// (Wu & He 2018, "Group Normalization", table 2).
const MIN_STATISTICS: u64 = 16;
/// Samples of one of two shards, at least.
const MIN_SHARD: u64 = 4;
/// Multiplications of a shard for each weight's gradient, where there are more than two shards, and
/// bytes of all shards' gradients. With 300 a step took some hundredths longer than with two
/// shards, with 100 a quarter (ResNet-18 at 64 pixels and EfficientNet-Lite0 at 128, two threads).
const SHARD_MACS: u64 = 400;
const SHARD_BYTES: u64 = 1 << 30;
const MAX_SHARDS: u64 = 16;

/// Counts of numbers that train or stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct ParameterCounts {
    /// Numbers of the backbone, after the cut, that stay as they are.
    pub frozen: u64,
    /// Numbers of the backbone that train in any phase; or those of its adapters.
    pub trainable: u64,
    /// Numbers of the new head.
    pub head: u64,
}

/// Estimated peak memory of a trainer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Memory {
    pub peak_bytes: u64,
    /// Part of the peak for the largest batch: inputs, activations kept for the gradient, and the
    /// buffers of an operation.
    pub activation_bytes: u64,
    /// Part of the peak for the process with torch loaded.
    pub process_bytes: u64,
}

/// Estimated running time of a job, without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Time {
    pub seconds: f64,
    /// Number of earlier jobs that it follows from: of the same kind (frozen backbone, or not) or,
    /// if there are none, of the other. With 0, it follows from a few images that ran through the
    /// network at its import, and may be off by a factor.
    pub measured_on: u64,
}

/// An earlier job with its measured usage.
#[derive(Debug, Clone)]
pub struct Measured {
    pub recipe: Recipe,
    pub layers: Layers,
    pub usage: Usage,
}

/// Costs of one sample in the parts of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Costs {
    /// Stages before the first one in which something trains in any phase.
    frozen: StageCost,
    /// All later stages.
    trained: StageCost,
    is_frozen: bool,
    /// Multiplications of a step in the trained part, in forward passes: the backward pass takes
    /// one for the inputs, and one for the weights, unless adapters train instead.
    passes: u64,
}

impl Costs {
    /// `None` for a base model without measured costs.
    fn of(recipe: &Recipe, layers: &Layers) -> Option<Self> {
        let layers = &layers::of_recipe(recipe, layers).ok()?;
        let costs = layers.costs.get(..layers.stages.len())?;
        let trains = |name: &str| {
            let of_stage = |trained: &String| {
                let place = layers.tensors.iter().find(|tensor| tensor.name == *trained);
                place.is_some_and(|tensor| tensor.stage == name)
            };
            recipe.phases().flatten().any(of_stage)
        };
        let first = layers.stage_names().position(trains);
        let first = first.unwrap_or(layers.stages.len());
        let sum = |costs: &[StageCost]| {
            let all = costs.iter();
            all.fold(StageCost::default(), |sum, cost| StageCost {
                macs: sum.macs + cost.macs,
                kept: sum.kept + cost.kept,
                largest: sum.largest.max(cost.largest),
            })
        };
        Some(Self {
            frozen: sum(&costs[..first]),
            trained: sum(&costs[first..]),
            is_frozen: first == layers.stages.len(),
            passes: if recipe.adapter.is_some() { 2 } else { 3 },
        })
    }

    /// Multiplications for a sample of an optimizer step.
    fn step_macs(&self) -> f64 {
        if self.is_frozen {
            return 0.0;
        }
        (self.frozen.macs + self.passes * self.trained.macs) as f64
    }
}

/// The number of shards for a recipe that has none yet, and the reason: two for two threads, and
/// more for more threads where that costs little. Each shard has gradients of all weights, which
/// take time and memory to make and to add up.
pub fn shards(recipe: &Recipe, layers: &Layers) -> (u64, &'static str) {
    if recipe.phases().all(<[String]>::is_empty) {
        return (1, "the whole backbone is frozen");
    }
    let has_statistics = recipe.has_batch_statistics();
    let least = if has_statistics { MIN_STATISTICS } else { 1 };
    let samples_of = |shards: u64| u64::from(recipe.batch_size) / shards;
    if samples_of(2) < least.max(MIN_SHARD) {
        let reason = match has_statistics {
            true => "16 samples and more have usable statistics",
            false => "the batch is too small to divide",
        };
        return (1, reason);
    }
    let left = layers::of_recipe(recipe, layers);
    let weights = left.map_or(0, |layers| trainable_parameters(recipe, &layers));
    let macs = Costs::of(recipe, layers).map_or(0, |costs| costs.frozen.macs + costs.trained.macs);
    let is_worth = |shards: u64| {
        let samples = samples_of(shards);
        samples >= least
            && samples * macs >= SHARD_MACS * weights
            && shards * weights * NUMBER_BYTES <= SHARD_BYTES
    };
    let mut shards = 2;
    while shards < MAX_SHARDS && is_worth(2 * shards) {
        shards *= 2;
    }
    (shards, "more would cost more than they gain")
}

/// Numbers of the backbone that train in any phase, of layers as `layers::of_recipe` gives them.
pub(crate) fn trainable_parameters(recipe: &Recipe, layers: &Layers) -> u64 {
    let trained: HashSet<&String> = recipe.phases().flatten().collect();
    let trained = layers
        .parameters()
        .filter(|tensor| trained.contains(&tensor.name));
    trained.map(LayerTensor::count).sum()
}

/// Estimates memory; `None` for a base model without measured costs.
pub fn memory(
    recipe: &Recipe,
    layers: &Layers,
    parameters: ParameterCounts,
    tensor_bytes: u64,
    samples: SplitSizes,
) -> Option<Memory> {
    let costs = Costs::of(recipe, layers)?;
    let features = u64::from(layers::of_recipe(recipe, layers).ok()?.feature_dim);
    let trained = parameters.trainable + parameters.head;
    let all = parameters.frozen + trained;
    let batch = u64::from(recipe.batch_size);
    let kept = match recipe.precision {
        Precision::Float32 => costs.trained.kept,
        Precision::Bfloat16 => costs.trained.kept / 2,
    };
    let largest = costs.frozen.largest.max(costs.trained.largest);
    let training = if costs.is_frozen {
        0
    } else {
        // The backward pass of an operation needs gradients of its size, and its inputs in another
        // order.
        batch * (kept + 2 * largest)
    };
    let shards = if costs.is_frozen {
        1
    } else {
        u64::from(recipe.shards)
    };
    let activation_bytes = NUMBER_BYTES * training.max(EVALUATION_BATCH as u64 * largest)
        + NUMBER_BYTES * (shards - 1) * trained;
    // The frozen part is copied for computing; a checkpoint is copied before it is written, and a
    // bundle is read back.
    let copied = NUMBER_BYTES * parameters.frozen;
    let saving = NUMBER_BYTES * trained * (1 + recipe.optimizer.moments());
    let reading = NUMBER_BYTES * 2 * all;
    let probing = match recipe.head.init {
        HeadInit::Probe => {
            let most = PROBE_SAMPLES as u64;
            let rows = samples.train.min(most) + samples.validation.min(most);
            PROBE_BYTES * rows * features
        }
        HeadInit::Zero | HeadInit::Normal => 0,
    };
    let peak_bytes = PROCESS_BYTES
        + UNUSED_BYTES
        + tensor_bytes
        + copied
        + activation_bytes.max(saving).max(reading).max(probing);
    Some(Memory {
        peak_bytes,
        activation_bytes,
        process_bytes: PROCESS_BYTES,
    })
}

/// Estimates time from what a multiplication took in earlier jobs; `None` for a base model without
/// measured costs. `head` is the number of its parameters, which equals its multiplications.
pub fn time(
    recipe: &Recipe,
    layers: &Layers,
    samples: SplitSizes,
    head: u64,
    earlier: &[Measured],
) -> Option<Time> {
    let costs = Costs::of(recipe, layers)?;
    let (mut sums, mut others) = (Sums::default(), Sums::default());
    for one in earlier {
        match Costs::of(&one.recipe, &one.layers) {
            Some(known) if known.is_frozen == costs.is_frozen => sums.add(&known, &one.usage),
            Some(known) => others.add(&known, &one.usage),
            None => {}
        }
    }
    let all = (samples.train + samples.validation + samples.test) as f64;
    let trained = (samples.train * u64::from(recipe.n_epochs)) as f64;
    let prepared_macs = all * costs.frozen.macs as f64;
    let measured = || {
        Some(if costs.is_frozen {
            prepared_macs * sums.seconds_per_prepared_mac()?
                + trained * sums.seconds_per_trained_sample()?
        } else {
            trained * costs.step_macs() * sums.seconds_per_trained_mac()?
        })
    };
    let head = trained * (costs.passes * head) as f64;
    let macs = if costs.is_frozen {
        prepared_macs + head
    } else {
        trained * costs.step_macs() + head
    };
    let (seconds, measured_on) = match (measured(), others.seconds_per_mac()) {
        (Some(seconds), _) => (seconds, sums.jobs),
        (None, Some(speed)) => (macs * speed, others.jobs),
        (None, None) => (macs * (layers.picoseconds_per_mac? as f64 * 1e-12), 0),
    };
    Some(Time {
        seconds,
        measured_on,
    })
}

/// Sums over earlier jobs.
#[derive(Debug, Default)]
struct Sums {
    jobs: u64,
    preparing_seconds: f64,
    prepared_macs: f64,
    training_seconds: f64,
    trained_samples: f64,
    trained_macs: f64,
}

impl Sums {
    fn add(&mut self, costs: &Costs, usage: &Usage) {
        self.jobs += 1;
        // Cache hits took no time, so a job with nothing but hits is no measurement.
        if usage.prepared_samples > 0 {
            self.preparing_seconds += usage.preparing_seconds;
            self.prepared_macs += usage.prepared_samples as f64 * costs.frozen.macs as f64;
        }
        self.training_seconds += usage.training_seconds;
        self.trained_samples += usage.trained_samples as f64;
        self.trained_macs += usage.trained_samples as f64 * costs.step_macs();
    }

    fn seconds_per_prepared_mac(&self) -> Option<f64> {
        (self.prepared_macs > 0.0).then(|| self.preparing_seconds / self.prepared_macs)
    }

    fn seconds_per_trained_sample(&self) -> Option<f64> {
        (self.trained_samples > 0.0).then(|| self.training_seconds / self.trained_samples)
    }

    /// Time of a multiplication in the backbone; those of a head are too few to count.
    fn seconds_per_mac(&self) -> Option<f64> {
        self.seconds_per_trained_mac()
            .or_else(|| self.seconds_per_prepared_mac())
    }

    fn seconds_per_trained_mac(&self) -> Option<f64> {
        (self.trained_macs > 0.0).then(|| self.training_seconds / self.trained_macs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        recipe::{Head, Optimizer, Task},
        test_data,
    };

    const COUNTS: ParameterCounts = ParameterCounts {
        frozen: 0,
        trainable: 1_000,
        head: 10,
    };
    const SAMPLES: SplitSizes = SplitSizes {
        train: 80,
        validation: 10,
        test: 10,
    };

    fn known() -> Layers {
        let mut layers = test_data::layers();
        let cost = |stage: u64| StageCost {
            macs: 1_000_000 * stage,
            kept: 1_000_000,
            largest: 10_000,
        };
        layers.costs = (1..=layers.stages.len() as u64).map(cost).collect();
        layers
    }

    fn recipe(trainable: &[&str]) -> Recipe {
        let trainable = trainable.iter().map(|name| (*name).to_owned()).collect();
        Recipe {
            trainable,
            batch_size: 8,
            n_epochs: 2,
            head: Head {
                layers: Vec::new(),
                init: HeadInit::Probe,
            },
            optimizer: Optimizer::Adamw,
            ..Recipe::base(Task::SingleLabelClassification)
        }
    }

    #[test]
    fn memory_grows_with_the_batch_and_with_what_trains() {
        let layers = known();
        let names: Vec<&str> = layers.parameters().map(|one| one.name.as_str()).collect();
        let peak_of = |recipe: &Recipe, samples| {
            let memory = memory(recipe, &layers, COUNTS, 4_000, samples);
            memory.unwrap().peak_bytes
        };
        let peak = |recipe: &Recipe| peak_of(recipe, SAMPLES);
        let (all, last) = (recipe(&names), recipe(&names[names.len() - 1..]));
        let larger = Recipe {
            batch_size: 16,
            ..all.clone()
        };
        let half = Recipe {
            precision: Precision::Bfloat16,
            ..all.clone()
        };
        assert!(peak(&larger) > peak(&all) && peak(&all) > peak(&last));
        assert!(peak(&half) < peak(&all) && peak(&last) > peak(&recipe(&[])));
        let unknown = test_data::layers();
        assert_eq!(memory(&all, &unknown, COUNTS, 4_000, SAMPLES), None);

        // A probe holds features of so many samples, and no more.
        let many = |train| SplitSizes { train, ..SAMPLES };
        let probed = |train| peak_of(&recipe(&[]), many(train));
        let most = PROBE_SAMPLES as u64;
        let zero = Recipe {
            head: Head {
                init: HeadInit::Zero,
                ..all.head.clone()
            },
            ..recipe(&[])
        };
        assert!(probed(most) > peak_of(&zero, many(most)));
        assert_eq!(probed(most), probed(most + 1));
    }

    #[test]
    fn time_follows_earlier_jobs_of_the_same_kind() {
        let layers = known();
        let first = layers.parameters().next().unwrap().name.clone();
        let all = recipe(&[&first]);
        let earlier = Measured {
            recipe: all.clone(),
            layers: layers.clone(),
            usage: Usage {
                trained_samples: 320,
                training_seconds: 10.0,
                ..Usage::default()
            },
        };
        let time = |recipe: &Recipe, layers: &Layers, earlier: &[Measured]| {
            time(recipe, layers, SAMPLES, 10, earlier)
        };
        assert_eq!(time(&all, &layers, &[]), None);
        let measured = std::slice::from_ref(&earlier);
        let found = time(&all, &layers, measured).unwrap();
        assert!((found.seconds - 5.0).abs() < 1e-9 && found.measured_on == 1);

        // Nothing was measured with a frozen backbone: a pass for each sample and the head's steps,
        // at the measured time of a multiplication.
        let macs = |stage: u64| 1_000_000 * stage;
        let forward = (1..=layers.stages.len() as u64).map(macs).sum::<u64>();
        let frozen = (100 * forward + 160 * 3 * 10) as f64;
        let speed = 10.0 / (320 * 3 * forward) as f64;
        let found = time(&recipe(&[]), &layers, measured).unwrap();
        assert!(
            (found.seconds / (frozen * speed) - 1.0).abs() < 1e-9,
            "{found:?}"
        );
        assert_eq!(found.measured_on, 1);

        // Before any job, the estimate follows from the import.
        let imported = Layers {
            picoseconds_per_mac: Some(500),
            ..layers.clone()
        };
        let found = time(&recipe(&[]), &imported, &[]).unwrap();
        assert!(
            (found.seconds / (frozen * 5e-10) - 1.0).abs() < 1e-9,
            "{found:?}"
        );
        assert_eq!(found.measured_on, 0);
    }
}
