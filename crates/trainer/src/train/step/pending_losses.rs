//! Losses of steps, kept on the device until they are fetched together, so that no step waits for
//! one. A loss that is not finite is still attributed to its own step.

use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};

use crate::{
    domain::progress::Step,
    process::{error::TrainError, protocol::Reporter},
    train::counters::{Counters, Exact},
};

/// The most steps that may be pending: bounds the queue of a device.
const MAX_PENDING: usize = 256;
/// The longest time between two fetches.
const FETCH_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub struct PendingLosses {
    n_steps: u64,
    n_epochs: u32,
    tensors: Vec<Tensor>,
    /// Steps whose losses are on the device, and how many samples each has.
    pending: Vec<(Step, usize)>,
    fetched: Instant,
}

impl PendingLosses {
    pub fn new(n_steps: u64, n_epochs: u32) -> Self {
        Self {
            n_steps,
            n_epochs,
            tensors: Vec::new(),
            pending: Vec::new(),
            fetched: Instant::now(),
        }
    }

    /// Takes a step over `samples` samples, and its loss, a scalar on any device.
    pub fn push(&mut self, loss: &Tensor, step: Step, samples: usize) {
        self.tensors.push(loss.detach());
        self.pending.push((step, samples));
    }

    pub fn due(&self) -> bool {
        self.pending.len() >= MAX_PENDING || self.fetched.elapsed() >= FETCH_EVERY
    }

    /// Fetches pending losses, adds them to the sums, and reports them when due, or `now`.
    ///
    /// # Errors
    /// `Diverged` at the first step whose loss is not finite, after reporting it.
    pub fn fetch(
        &mut self,
        counters: &mut Counters,
        reporter: &mut Reporter,
        now: bool,
    ) -> Result<(), TrainError> {
        if self.pending.is_empty() {
            reporter.steps(Vec::new(), self.n_steps, self.n_epochs, now);
            return Ok(());
        }
        let values = Tensor::stack(&self.tensors, 0)
            .to_device(Device::Cpu)
            .to_kind(Kind::Double);
        let values = Vec::<f64>::try_from(&values)?;
        self.tensors.clear();
        let samples: usize = self.pending.iter().map(|(_, samples)| samples).sum();
        let samples_per_second = samples as f64 / self.fetched.elapsed().as_secs_f64().max(1e-6);
        self.fetched = Instant::now();

        let mut steps = Vec::with_capacity(values.len());
        let mut diverged = None;
        for ((mut step, samples), loss) in self.pending.drain(..).zip(values) {
            step.train_loss = loss.is_finite().then_some(loss);
            step.samples_per_second = samples_per_second;
            steps.push(step);
            if step.train_loss.is_none() {
                diverged = Some(step.step);
                break;
            }
            counters.loss = Exact(counters.loss.0 + loss * samples as f64);
            counters.loss_samples += samples as u64;
        }
        let now = now || diverged.is_some();
        reporter.steps(steps, self.n_steps, self.n_epochs, now);
        diverged.map_or(Ok(()), |step| Err(TrainError::Diverged { step }))
    }
}
