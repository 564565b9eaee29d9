//! Losses of steps, left on the device until they are fetched together: a step waits for nothing. A loss that is not
//! finite is found at its own step all the same.

use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};

use super::{
    checkpoint::{Counters, Exact},
    error::TrainError,
    protocol::Reporter,
};
use crate::domain::progress::Step;

/// Steps that may be waiting: bounds what a device's queue holds.
const MAX_PENDING: usize = 256;
/// How long a step may wait.
const FETCH_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Pending {
    step: u64,
    epoch: u32,
    samples: usize,
    learning_rate: f64,
}

#[derive(Debug)]
pub struct Losses {
    n_steps: u64,
    n_epochs: u32,
    tensors: Vec<Tensor>,
    pending: Vec<Pending>,
    fetched: Instant,
}

impl Losses {
    pub fn new(n_steps: u64, n_epochs: u32) -> Self {
        Self {
            n_steps,
            n_epochs,
            tensors: Vec::new(),
            pending: Vec::new(),
            fetched: Instant::now(),
        }
    }

    /// Takes the loss of a step, a scalar on any device.
    pub fn push(
        &mut self,
        loss: &Tensor,
        step: u64,
        epoch: u32,
        samples: usize,
        learning_rate: f64,
    ) {
        self.tensors.push(loss.detach());
        self.pending.push(Pending {
            step,
            epoch,
            samples,
            learning_rate,
        });
    }

    pub fn due(&self) -> bool {
        self.pending.len() >= MAX_PENDING || self.fetched.elapsed() >= FETCH_EVERY
    }

    /// Fetches what is pending, adds it to the sums, and says it (when due, or `now`).
    ///
    /// # Errors
    /// `Diverged` at the first step whose loss is not finite; its line is said before.
    pub fn fetch(
        &mut self,
        counters: &mut Counters,
        say: &mut Reporter,
        now: bool,
    ) -> Result<(), TrainError> {
        if self.pending.is_empty() {
            say.steps(Vec::new(), self.n_steps, self.n_epochs, now);
            return Ok(());
        }
        let values = Tensor::stack(&self.tensors, 0)
            .to_device(Device::Cpu)
            .to_kind(Kind::Double);
        let values = Vec::<f64>::try_from(&values)?;
        self.tensors.clear();
        let samples: usize = self.pending.iter().map(|pending| pending.samples).sum();
        let samples_per_second = samples as f64 / self.fetched.elapsed().as_secs_f64().max(1e-6);
        self.fetched = Instant::now();

        let mut steps = Vec::with_capacity(values.len());
        let mut diverged = None;
        for (
            Pending {
                step,
                epoch,
                samples,
                learning_rate,
            },
            loss,
        ) in self.pending.drain(..).zip(values)
        {
            let train_loss = loss.is_finite().then_some(loss);
            steps.push(Step {
                step,
                epoch,
                train_loss,
                learning_rate,
                samples_per_second,
            });
            if train_loss.is_none() {
                diverged = Some(step);
                break;
            }
            counters.loss = Exact(counters.loss.0 + loss * samples as f64);
            counters.loss_samples += samples as u64;
        }
        say.steps(
            steps,
            self.n_steps,
            self.n_epochs,
            now || diverged.is_some(),
        );
        diverged.map_or(Ok(()), |step| Err(TrainError::Diverged { step }))
    }
}
