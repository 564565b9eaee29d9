//! The training loop: steps, evaluations, checkpoints.
#![expect(
    unsafe_code,
    reason = "threads share tensors, which tch does not allow by itself"
)]

use std::thread;

use super::Run;
use crate::{
    domain::{
        checkpoint::Metrics,
        job::Phase,
        progress::{BatchSizePart, Progress, Step},
    },
    process::{error::TrainError, parallel::Shared},
    train::{
        eval::{evaluation, selection},
        input::inputs::Inputs,
        rng::permutation,
        step::{gradients::Window, optimizer::Rates, pending_losses::PendingLosses, schedule},
    },
};

impl Run<'_> {
    /// Takes steps until training is over.
    pub(super) fn train(&mut self, inputs: &mut Inputs) -> Result<(), TrainError> {
        self.enter(Phase::Training);
        let recipe = self.recipe();
        let train = &self.data.samples.train;
        let mut losses = PendingLosses::new(self.n_steps, recipe.n_epochs);
        let mut order = (0, Vec::new());
        let batches = self.batches;
        // The epoch and the samples of a step.
        let mut members_of = |step| {
            let (epoch, places) = batches.locate(step);
            if order.0 != epoch {
                order = (epoch, permutation(recipe.seed, epoch, train.len()));
            }
            let members = order.1[places].iter().map(|&place| train[place]);
            (epoch, members.collect::<Vec<usize>>())
        };
        let mut next = None;
        while self.counters.is_training(self.n_steps) {
            let step = self.counters.step + 1;
            let (epoch, members) = next.take().unwrap_or_else(|| members_of(step));
            self.enter_phases(epoch, inputs)?;
            let window = Window {
                members: &members,
                step,
                epoch,
            };
            next = (step < self.n_steps).then(|| members_of(step + 1));
            let ahead = next.as_ref().filter(|_| self.reads_ahead());
            // SAFETY: reading changes nothing but the images that were read ahead, behind a lock.
            let shared = unsafe { Shared::new(&*inputs) };
            thread::scope(|scope| {
                if let Some((epoch, members)) = ahead {
                    scope.spawn(|| shared.read_ahead(members, *epoch));
                }
                self.step(window, inputs, &mut losses)
            })?;
            self.evaluate_and_save(inputs, &mut losses)?;
        }
        self.reporter.usage.training_seconds = self.since.elapsed().as_secs_f64();
        Ok(())
    }

    /// True when the next step's images are read while a GPU computes this one's. On a CPU, whose
    /// threads are all at work, that would only take memory; steps of several batches read less at
    /// a time.
    fn reads_ahead(&self) -> bool {
        let is_whole = self.criterion.batch_size() == self.recipe().batch_size;
        let trains = !self.network.is_backbone_frozen() && !self.network.is_on_cpu();
        trains && is_whole && self.recipe().accumulate == 1
    }

    /// Enters the phases of the freeze schedule that begin with this epoch, with the inputs they
    /// need.
    fn enter_phases(&mut self, epoch: u32, inputs: &mut Inputs) -> Result<(), TrainError> {
        let (recipe, steps) = (self.recipe(), self.batches.per_epoch());
        let entered = self
            .optimizer
            .enter_phases(&mut self.network, recipe, epoch, steps)?;
        if entered && !inputs.fit(&self.network) {
            // Steps since the last checkpoint are repeated after an interrupt here.
            *inputs = Inputs::pixels(&self.data, self.reporter)?;
        }
        Ok(())
    }

    /// Takes one optimizer step.
    fn step(
        &mut self,
        window: Window<'_>,
        inputs: &Inputs,
        losses: &mut PendingLosses,
    ) -> Result<(), TrainError> {
        let recipe = self.recipe();
        let Window {
            members,
            step,
            epoch,
        } = window;
        let (network, reporter) = (&mut self.network, &mut *self.reporter);
        let found = self
            .criterion
            .gradients_that_fit(network, inputs, window, reporter);
        let (loss, gradients) = found?;
        let size = Some(self.criterion.batch_size());
        self.counters.micro_batch = size.filter(|&size| size < recipe.batch_size);
        let rates = Rates {
            warmup: schedule::warmup_steps(recipe.warmup_fraction, self.n_steps),
            ..Rates::at(recipe, schedule::factor(recipe, step, self.n_steps))
        };
        self.optimizer
            .step(&mut self.network.parameters, gradients, step, rates);
        let taken = Step {
            step,
            epoch,
            train_loss: None,
            learning_rate: rates.head,
            samples_per_second: 0.0,
        };
        losses.push(&loss, taken, members.len());
        self.reporter.usage.trained_samples += members.len() as u64;
        (self.counters.step, self.counters.epoch) = (step, epoch);
        Ok(())
    }

    /// Evaluates and saves after a step, where either is due.
    fn evaluate_and_save(
        &mut self,
        inputs: &Inputs,
        losses: &mut PendingLosses,
    ) -> Result<(), TrainError> {
        let (step, epoch) = (self.counters.step, self.counters.epoch);
        // Read once a step: what is saved below must be what was fetched here.
        let interrupted = self.data.interrupt.requested();
        let saving = interrupted || self.saver.due();
        // Stopping early keeps the best so far, which may be what there is now.
        let stopping = self.data.interrupt.stops_early();
        let every = self.recipe().evaluate_every;
        let due = every.is_due(step, epoch, self.batches.is_last(step));
        let evaluates = step == self.n_steps || stopping || due;
        if evaluates || saving || losses.due() {
            losses.fetch(&mut self.counters, self.reporter, evaluates || saving)?;
        }
        let mut evaluated = None;
        if evaluates {
            self.swap_averages();
            evaluated = Some(self.evaluate(inputs)?);
            self.swap_averages();
            self.counters.stopped_early |= stopping && step < self.n_steps;
        }
        if self.counters.is_training(self.n_steps) && (saving || (evaluates && self.saver.due())) {
            self.swap_averages();
            let state = (&self.network, &self.optimizer, &self.counters);
            self.saver.save(state, evaluated, self.reporter)?;
            self.swap_averages();
            if interrupted {
                return Err(TrainError::Interrupted);
            }
        }
        Ok(())
    }

    pub(super) fn swap_averages(&mut self) {
        self.optimizer.swap_averages(&mut self.network.parameters);
    }

    /// Measures the network on the validation split, and keeps its tensors where they are the best
    /// so far.
    pub(super) fn evaluate(&mut self, inputs: &Inputs) -> Result<Metrics, TrainError> {
        let recipe = self.recipe();
        let data = (self.data.samples, recipe);
        let metrics = evaluation::evaluate(&mut self.counters, inputs, &self.network, data)?;
        self.report_reduced_size(inputs);
        let best = selection::judge(&mut self.counters, metrics, &recipe.early_stopping);
        if best {
            self.saver.keep_best(&self.network);
        }
        self.reporter.send(&Progress::Evaluated { metrics, best });
        Ok(metrics)
    }

    /// Reports when evaluation runs fewer samples together than before.
    pub(super) fn report_reduced_size(&mut self, inputs: &Inputs) {
        let size = inputs.reduced_evaluation();
        if let Some(batch_size) = size.filter(|_| size != self.reported_size) {
            let what = BatchSizePart::Evaluation;
            self.reporter
                .send(&Progress::BatchSizeReduced { what, batch_size });
            self.reported_size = size;
        }
    }
}
