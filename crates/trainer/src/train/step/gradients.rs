//! Loss and gradients of one optimizer step, over one batch or several whose gradients add up.

use tch::Tensor;

use super::{objective::Objective, optimizer};
use crate::{
    domain::{
        progress::{BatchSizePart, Progress},
        recipe::Recipe,
    },
    process::{error::TrainError, memory, protocol::Reporter},
    train::{
        input::{
            batches::Batches,
            inputs::{Batch, Inputs},
            mix::Mixing,
        },
        network::Network,
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
    /// The recipe's, or less since memory ran out.
    batch_size: usize,
    /// Samples of a whole step.
    step_size: usize,
    mixing: Mixing,
    objective: Objective,
}

impl Criterion {
    pub fn new(recipe: &Recipe, objective: Objective) -> Self {
        Self {
            batch_size: recipe.batch_size as usize,
            step_size: recipe.batch_size as usize * recipe.accumulate as usize,
            mixing: Mixing::new(recipe),
            objective,
        }
    }

    /// Samples that run through the network together.
    pub fn batch_size(&self) -> u32 {
        u32::try_from(self.batch_size).unwrap_or(u32::MAX)
    }

    /// Lets at most `samples` run together from here on.
    pub fn limit(&mut self, samples: u32) {
        self.batch_size = self.batch_size.min(samples.max(1) as usize);
    }

    /// Like `gradients`, but when memory runs out, repeats in batches of half the size, for this
    /// step and all that follow. The failed attempt has no side effects, BatchNorm's running
    /// statistics included.
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
            let smaller = memory::smaller(self.batch_size.min(window.members.len()), least);
            let (Err(TrainError::OutOfMemory(_)), Some(smaller)) = (&tried, smaller) else {
                return tried;
            };
            drop(tried);
            self.batch_size = smaller;
            if let Some(statistics) = &statistics {
                network.put_back(statistics);
            }
            reporter.send(&Progress::BatchSizeReduced {
                what: BatchSizePart::Training,
                batch_size: self.batch_size(),
            });
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
        let most = self.step_size.div_ceil(self.batch_size) as u64;
        let mut sums: Option<(Tensor, Vec<Tensor>)> = None;
        for number in 1..=batches.per_epoch() {
            let places = batches.locate(number).1;
            let samples = &members[places.clone()];
            let partners: Option<Vec<usize>> = mix.as_ref().map(|mix| {
                let places = mix.partners[places].iter();
                places.map(|&place| members[place]).collect()
            });
            let key = (window.step - 1) * most + number;
            let batch = Batch {
                samples,
                epoch: window.epoch,
                number: key,
                mixed: mix.as_ref().zip(partners.as_deref()),
            };
            let features = inputs.features_train(network, batch)?;
            let logits = network.logits_train(&features, key);
            let loss = match batch.mixed {
                None => self.loss(&logits, samples, total),
                Some((mix, partners)) => {
                    self.loss(&logits, samples, total) * mix.share
                        + self.loss(&logits, partners, total) * (1.0 - mix.share)
                }
            };
            let gradients = optimizer::gradients(&loss, &network.parameters)?;
            let loss = loss.detach();
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
