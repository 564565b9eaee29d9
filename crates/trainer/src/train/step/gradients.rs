//! Loss and gradients of one optimizer step, over one batch or several whose gradients add up.
#![expect(
    unsafe_code,
    reason = "threads share tensors, which tch does not allow by itself"
)]

use std::ops::Range;

use tch::Tensor;

use super::{objective::Objective, optimizer};
use crate::{
    domain::{
        progress::{BatchSizePart, Progress},
        recipe::Recipe,
    },
    models::pass::Statistics,
    process::{
        error::TrainError,
        memory,
        parallel::{self, Shared},
        protocol::Reporter,
    },
    train::{
        input::{
            batches::Batches,
            inputs::{Batch, Inputs},
            mix::Mixing,
        },
        network::{Network, Shard},
    },
};

/// The samples of one optimizer step.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    pub members: &'a [usize],
    /// From 1.
    pub step: u64,
    /// From 1.
    pub epoch: u32,
}

/// Everything a step's loss depends on besides the logits.
#[derive(Debug)]
pub struct Criterion {
    recipe: Recipe,
    /// The recipe's, or less since memory ran out.
    batch_size: usize,
    mixing: Mixing,
    objective: Objective,
    /// Keeps the activations of one stage at a time, since memory ran out.
    recomputes: bool,
}

impl Criterion {
    pub fn new(recipe: &Recipe, objective: Objective) -> Self {
        Self {
            recipe: recipe.clone(),
            batch_size: recipe.batch_size as usize,
            mixing: Mixing::new(recipe),
            objective,
            recomputes: false,
        }
    }

    /// Samples that run through the network together.
    pub fn batch_size(&self) -> u32 {
        u32::try_from(self.batch_size).unwrap_or(u32::MAX)
    }

    /// Lets at most `samples` run together from here on, where memory ran out before.
    pub fn limit(&mut self, samples: u32) {
        self.batch_size = self.batch_size.min(samples.max(1) as usize);
        self.recomputes = true;
    }

    /// Like `gradients`, but when memory runs out, repeats with the activations of one stage at a
    /// time, then in batches of half the size, for this step and all that follow. The failed
    /// attempt has no side effects, BatchNorm's running statistics included.
    ///
    /// # Errors
    /// As `gradients`; `OutOfMemory` when the smallest batch does not fit.
    pub fn gradients_that_fit(
        &mut self,
        network: &mut Network,
        inputs: &Inputs,
        window: Window<'_>,
        reporter: &mut Reporter,
    ) -> Result<(Tensor, Vec<Tensor>), TrainError> {
        let statistics = network.statistics();
        // A single sample has no statistics.
        let least = if statistics.is_some() { 2 } else { 1 };
        loop {
            let tried = memory::guarded(|| self.gradients(network, inputs, window));
            let Err(TrainError::OutOfMemory(_)) = &tried else {
                return tried;
            };
            let smaller = memory::smaller(self.batch_size.min(window.members.len()), least);
            let told = if !self.recomputes && !network.is_backbone_frozen() {
                self.recomputes = true;
                Progress::Recomputes
            } else if let Some(smaller) = smaller {
                self.batch_size = smaller;
                Progress::BatchSizeReduced {
                    what: BatchSizePart::Training,
                    batch_size: self.batch_size(),
                }
            } else {
                return tried;
            };
            drop(tried);
            if let Some(statistics) = &statistics {
                network.put_back(statistics);
            }
            reporter.send(&told);
        }
    }

    /// The mean loss (a scalar) over the samples of a window, and its gradients in parameter order.
    ///
    /// The samples run through the network `batch_size` at a time. Each batch's mean counts by the
    /// weight of its samples, so that loss and gradients are those of all of them at once, whatever
    /// the size of the last batch.
    ///
    /// # Errors
    /// `Io` when the cache cannot be read, `Torch`, `OutOfMemory`.
    pub fn gradients(
        &self,
        network: &Network,
        inputs: &Inputs,
        window: Window<'_>,
    ) -> Result<(Tensor, Vec<Tensor>), TrainError> {
        let members = window.members;
        let batches = Batches::new(members.len(), self.batch_size);
        // Partners are a permutation: their weights sum up to the same.
        let total = self.objective.weight(members);
        let side = inputs.mixed_side(network);
        let mix = self.mixing.draw(window.step, members.len(), side);
        let mut sums: Option<(Tensor, Vec<Tensor>)> = None;
        for number in 1..=batches.per_epoch() {
            let places = batches.locate(number).1;
            let first = places.start;
            let samples = &members[places.clone()];
            let partners: Option<Vec<usize>> = mix.as_ref().map(|mix| {
                let places = mix.partners[places].iter();
                places.map(|&place| members[place]).collect()
            });
            let batch = Batch {
                samples,
                epoch: window.epoch,
                mixed: mix.as_ref().zip(partners.as_deref()),
            };
            let place = (window.step, first);
            let (loss, gradients) = self.of_batch(network, inputs, batch, (place, total))?;
            sums = Some(match sums {
                None => (loss, gradients),
                Some((sum, mut sums)) => {
                    for (sum, gradient) in sums.iter_mut().zip(gradients) {
                        let _ = sum.g_add_(&gradient);
                    }
                    (sum + loss, sums)
                }
            });
        }
        sums.ok_or_else(|| TrainError::Data("a step has no sample".to_owned()))
    }

    /// The part that a batch has in the loss of a window of weight `total`, and its gradients. The
    /// batch begins at sample `first` of step `step`.
    ///
    /// On a CPU, several shards of it run side by side, each on a thread of its own, and their
    /// gradients add up in a fixed order: the result depends on the number of shards, not of
    /// threads. A shard has the same mean over its samples, so that the sum is the batch's.
    fn of_batch(
        &self,
        network: &Network,
        inputs: &Inputs,
        batch: Batch<'_>,
        ((step, first), total): ((u64, usize), f64),
    ) -> Result<(Tensor, Vec<Tensor>), TrainError> {
        let shard = |first| Shard {
            step,
            first,
            ..Shard::default()
        };
        let is_whole = network.is_backbone_frozen() || !network.is_on_cpu();
        let count = self.recipe.shards_of(batch.samples.len());
        if is_whole || count == 1 {
            let passed = self.of_shard(network, inputs, (batch, shard(first)), total)?;
            Statistics::keep([passed.statistics]);
            return Ok((passed.loss, passed.gradients));
        }
        // SAFETY: nothing changes network and inputs during a step's passes, and each thread has
        // its own gradients: `run_backward` stores none in the parameters.
        let shared = unsafe { Shared::new((self, network, inputs)) };
        in_shards(count, batch.samples.len(), |places| {
            let (criterion, network, inputs) = *shared;
            let mixed = batch
                .mixed
                .map(|(mix, partners)| (mix, &partners[places.clone()]));
            let shard = shard(first + places.start);
            let batch = Batch {
                samples: &batch.samples[places],
                mixed,
                ..batch
            };
            criterion.of_shard(network, inputs, (batch, shard), total)
        })
    }

    fn of_shard(
        &self,
        network: &Network,
        inputs: &Inputs,
        (batch, shard): (Batch<'_>, Shard),
        total: f64,
    ) -> Result<Passed, TrainError> {
        let loss = |features: &Tensor| {
            let logits = network.logits_train(features, &shard);
            match batch.mixed {
                None => self.loss(&logits, batch.samples, total),
                Some((mix, partners)) => {
                    self.loss(&logits, batch.samples, total) * mix.share
                        + self.loss(&logits, partners, total) * (1.0 - mix.share)
                }
            }
        };
        let read = inputs.read_train(network, batch)?;
        let (loss, gradients) = if self.recomputes && !network.is_backbone_frozen() {
            network.recompute(&read, &shard, loss)?
        } else {
            let features = match network.is_backbone_frozen() {
                true => read,
                false => network.features_train(&read, &shard),
            };
            let loss = loss(&features);
            let gradients = optimizer::gradients(&loss, &network.parameters)?;
            (loss.detach(), gradients)
        };
        Ok(Passed {
            loss,
            gradients,
            statistics: shard.statistics,
        })
    }

    /// The part that these logits, against the targets of `samples`, have in the loss of a window
    /// of weight `total`.
    ///
    /// Both cross-entropies are linear in the target: the loss of a soft one is the sum of the
    /// losses of its labels, each by its share, with class weights and smoothing as for whole
    /// labels (Zhang et al. 2018 do the same).
    fn loss(&self, logits: &Tensor, samples: &[usize], total: f64) -> Tensor {
        self.objective.mean(logits, samples) * (self.objective.weight(samples) / total)
    }
}

/// The results of a shard of a step.
#[derive(Debug)]
pub struct Passed {
    /// A scalar.
    pub loss: Tensor,
    /// In parameter order.
    pub gradients: Vec<Tensor>,
    pub statistics: Statistics,
}

/// The sums of loss and gradients of `count` shards of `samples` places, as many each or one more,
/// made by `of_shard` of its places. Shards run side by side. Running statistics become the mean of
/// the shards'.
///
/// # Errors
/// Those of the first shard that has one: running statistics are then what they were.
pub fn in_shards(
    count: usize,
    samples: usize,
    of_shard: impl Fn(Range<usize>) -> Result<Passed, TrainError> + Sync,
) -> Result<(Tensor, Vec<Tensor>), TrainError> {
    let threads = parallel::threads();
    let start = |number: usize| number * samples / count;
    let numbers: Vec<usize> = (0..count).collect();
    let passed = parallel::map(&numbers, threads, |&number| {
        of_shard(start(number)..start(number + 1))
    })?;
    let (mut losses, mut gradients, mut statistics) = (Vec::new(), Vec::new(), Vec::new());
    for shard in passed {
        losses.push(shard.loss);
        gradients.push(shard.gradients);
        statistics.push(shard.statistics);
    }
    let loss = Tensor::stack(&losses, 0).sum(None);
    let gradients = sums(gradients, threads)?;
    Statistics::keep(statistics);
    Ok((loss, gradients))
}

/// The sums of the shards' gradients, which are used up: neighbours first, then neighbouring sums.
fn sums(mut shards: Vec<Vec<Tensor>>, threads: usize) -> Result<Vec<Tensor>, TrainError> {
    let tensors: Vec<usize> = (0..shards.first().map_or(0, Vec::len)).collect();
    // SAFETY: each thread changes the gradients of one parameter.
    let shared = unsafe { Shared::new(&shards) };
    parallel::map(&tensors, threads, |&tensor| {
        let mut apart = 1;
        while apart < shared.len() {
            for place in (0..shared.len() - apart).step_by(2 * apart) {
                let other = &shared[place + apart][tensor];
                let _ = shared[place][tensor].shallow_clone().g_add_(other);
            }
            apart *= 2;
        }
        Ok(())
    })?;
    Ok(shards.swap_remove(0))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn sums_are_of_all_parts_in_a_fixed_order() {
        let shard = |number: usize| {
            let value = |factor: f64| Tensor::full([3], factor, (Kind::Float, Device::Cpu));
            vec![value(number as f64), value(10.0 * number as f64)]
        };
        for count in [1, 2, 3, 4, 7] {
            let made = sums((1..=count).map(shard).collect(), 2).unwrap();
            let total = (count * (count + 1) / 2) as f64;
            assert_eq!(made.len(), 2);
            assert_eq!(made[0].double_value(&[0]), total);
            assert_eq!(made[1].double_value(&[2]), 10.0 * total);
        }
        // Neighbours first: 1 is lost beside 1e8 by itself, and two of them are not.
        let values = [1e8, 1.0, 4.0, 4.0].map(|value| Tensor::from_slice(&[value as f32]));
        let shards = values.map(|value| vec![value]).into();
        assert_eq!(sums(shards, 1).unwrap()[0].double_value(&[0]), 1e8 + 8.0);
    }

    #[test]
    fn parts_cover_the_batch_once() {
        for (count, samples) in [(1, 5usize), (2, 16), (2, 17), (4, 130), (4, 5)] {
            let one = |places: Range<usize>| {
                assert!([samples / count, samples.div_ceil(count)].contains(&places.len()));
                Ok(Passed {
                    loss: Tensor::from(places.len() as f64 / samples as f64),
                    gradients: vec![Tensor::from(places.sum::<usize>() as i64)],
                    statistics: Statistics::default(),
                })
            };
            let (loss, gradients) = in_shards(count, samples, one).unwrap();
            assert!((loss.double_value(&[]) - 1.0).abs() < 1e-12);
            let sum = (samples * (samples - 1) / 2) as i64;
            assert_eq!(
                gradients[0].int64_value(&[]),
                sum,
                "{count} shards of {samples}"
            );
        }
    }
}
