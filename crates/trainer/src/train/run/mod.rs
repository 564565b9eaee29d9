//! A training run from plan to bundle, in the order in which it happens: load, prepare, train,
//! select, report, export.

/// The training loop.
mod steps;

/// After training: best checkpoint, reports, bundle.
mod finish;

use std::{path::Path, time::Instant};

use tch::Tensor;

use super::{
    counters::Counters,
    eval::sample_report,
    input::{
        batches::Batches,
        feature_cache,
        inputs::Inputs,
        meter::Meter,
        preparation::Preparation,
        samples::{Samples, select},
    },
    network::Network,
    output::{
        checkpoint::{self, Checkpoint, Identity},
        saver::Saver,
    },
    probe,
    step::{gradients::Criterion, objective::Objective, optimizer::Optimizer},
    transferability,
};
use crate::{
    domain::{
        job::Phase,
        progress::Progress,
        recipe::{HeadInit, Precision, Recipe, Task},
        work::{PLAN, TrainPlan},
    },
    process::{
        device,
        error::TrainError,
        json, memory, parallel,
        protocol::{Interrupt, Reporter},
    },
};

/// Runs the plan in `folder` to its end.
///
/// # Errors
/// `Interrupted`: the state is saved. For the others see `TrainError`; checkpoints saved so far
/// stay.
pub fn run(
    folder: &Path,
    interrupt: &Interrupt,
    reporter: &mut Reporter,
) -> Result<(), TrainError> {
    let plan: TrainPlan = json::read(&folder.join(PLAN))?;
    let device = device::open(&plan.device)?;
    device::allow_tf32(plan.recipe.precision == Precision::Bfloat16);
    parallel::use_threads(plan.threads as usize);
    memory::keep_freed();
    reporter.send(&Progress::Ready {
        device: device::name(device),
        threads: plan.threads,
        pid: std::process::id(),
    });
    let phase = Phase::Preparing;
    reporter.send(&Progress::Phase { phase });
    let samples = Samples::open(&plan)?;
    let data = Preparation {
        plan: &plan,
        samples: &samples,
        device,
        interrupt,
    };
    let (mut run, checkpoint) = Run::load(folder, data, reporter)?;
    let ended = run.complete(checkpoint);
    if let Err(TrainError::Interrupted) = ended {
        let step = run.counters.step;
        run.reporter.send(&Progress::Interrupted { step });
    }
    ended
}

/// A run under way.
struct Run<'a> {
    folder: &'a Path,
    data: Preparation<'a>,
    reporter: &'a mut Reporter,
    network: Network,
    optimizer: Optimizer,
    criterion: Criterion,
    batches: Batches,
    n_steps: u64,
    counters: Counters,
    saver: Saver,
    /// True when the run continues from a checkpoint.
    resumes: bool,
    /// When the phase under way began.
    since: Instant,
    /// The reduced size of evaluation batches that the parent knows of.
    reported_size: Option<u32>,
}

impl<'a> Run<'a> {
    /// Loads the network, and the checkpoint to resume from, if any.
    fn load(
        folder: &'a Path,
        data: Preparation<'a>,
        reporter: &'a mut Reporter,
    ) -> Result<(Self, Option<Checkpoint>), TrainError> {
        let Preparation {
            plan,
            samples,
            device,
            ..
        } = data;
        let recipe = &plan.recipe;
        let identity = identity(plan, samples);
        // An unfit checkpoint is refused before anything is computed.
        let resume = plan.resume.as_deref();
        let checkpoint = resume.map(|folder| checkpoint::load(folder, &identity));
        let checkpoint = checkpoint.transpose()?;
        let saved = checkpoint.as_ref().map(|saved| &saved.state.counters);
        let counters = saved.cloned().unwrap_or_default();
        let scale = (recipe.task == Task::Regression).then(|| samples.scale());
        let step_size = recipe.batch_size as usize * recipe.accumulate as usize;
        let batches = Batches::new(samples.train.len(), step_size);
        let network = Network::build(&plan.base_model, recipe, samples.outputs(), device)?;
        if network.features_precision() != recipe.features_precision {
            reporter.send(&Progress::FeaturesInFloat32);
        }
        let run = Self {
            folder,
            data,
            reporter,
            network,
            // Its state takes memory that the features at the start may need.
            optimizer: Optimizer::new(recipe, &[]),
            criterion: Criterion::new(recipe, Objective::new(recipe, samples, device)),
            batches,
            n_steps: batches.per_epoch() * u64::from(recipe.n_epochs),
            counters,
            saver: Saver::new(folder, identity, scale),
            resumes: checkpoint.is_some(),
            since: Instant::now(),
            reported_size: None,
        };
        Ok((run, checkpoint))
    }

    fn recipe(&self) -> &'a Recipe {
        &self.data.plan.recipe
    }

    fn enter(&mut self, phase: Phase) {
        self.since = Instant::now();
        self.reporter.send(&Progress::Phase { phase });
    }

    /// All that follows loading.
    fn complete(&mut self, checkpoint: Option<Checkpoint>) -> Result<(), TrainError> {
        self.enter(Phase::CachingFeatures);
        // Features of the backbone as it was loaded: the head may start from them, and near
        // duplicates are found by them. A resumed run mostly finds them in the cache.
        let start = feature_cache::of_samples(&self.data, &self.network, self.reporter)?;
        self.start_steps(checkpoint)?;
        let originals = sample_report::originals(self.data.samples, &start)?;
        let mut inputs = self.prepare(start)?;
        self.train(&mut inputs)?;
        let best = self.select()?;
        let (report, decoding) = self.report(&inputs, best)?;
        let (data, decoded) = ((self.data.samples, self.recipe()), (&decoding, &originals));
        let (read, interrupt) = ((&self.network, &inputs), self.data.interrupt);
        sample_report::write(self.folder, data, read, decoded, interrupt)?;
        self.export(best, &report, &decoding)
    }

    /// Puts network and optimizer where training begins, or where the checkpoint left them.
    fn start_steps(&mut self, checkpoint: Option<Checkpoint>) -> Result<(), TrainError> {
        let (network, optimizer) = (&mut self.network, &mut self.optimizer);
        optimizer.regroup(&network.parameters, 0);
        if let Some(checkpoint) = checkpoint {
            let epoch_steps = self.batches.per_epoch();
            self.saver
                .resume(checkpoint, network, optimizer, epoch_steps)?;
            if !self.counters.finished {
                self.swap_averages();
            }
        }
        let known = [self.counters.micro_batch, self.data.plan.micro_batch];
        for size in known.into_iter().flatten() {
            self.criterion.limit(size);
        }
        Ok(())
    }

    /// Prepares what training reads, and the head where it starts from the features at the `start`.
    fn prepare(&mut self, start: Tensor) -> Result<Inputs, TrainError> {
        let Preparation {
            samples, interrupt, ..
        } = self.data;
        let (recipe, since) = (self.recipe(), self.since);
        let inputs = Inputs::prepare(&self.data, &self.network, &start, self.reporter)?;
        let keeps_head = recipe.inherited.as_ref().is_some_and(|it| it.keeps_head());
        let probes = recipe.head.init == HeadInit::Probe;
        let table = |members: &[usize]| select(&start, members);
        if !self.resumes && probes {
            self.enter(Phase::Probing);
            let mut meter = Meter::new(self.reporter, 0);
            let mut report = |done, all| meter.share(done, all);
            let probe = probe::fit(table, samples, recipe.seed, interrupt, &mut report)?;
            self.network.start_head(&probe.weight, &probe.bias);
        }
        if !self.resumes && (probes || self.network.has_fixed_features()) {
            self.counters.transferability = transferability::measure(samples, table);
        }
        drop(start);
        if !self.resumes && (probes || keeps_head) {
            // A candidate like the end of any epoch: training can only improve on it.
            self.evaluate(&inputs)?;
        }
        self.reporter.usage.preparing_seconds = since.elapsed().as_secs_f64();
        Ok(inputs)
    }
}

fn identity(plan: &TrainPlan, samples: &Samples) -> Identity {
    let base = &plan.base_model;
    Identity {
        job: plan.job,
        architecture: base.architecture.clone(),
        base_weights_sha256: base.weights_sha256.clone(),
        parents_sha256: base.over.iter().map(|over| over.sha256.clone()).collect(),
        pack_sha256: plan.pack_sha256.clone(),
        validation_pack_sha256: plan.validation_pack_sha256.clone(),
        labels: samples.classes.clone(),
        input: base.input.clone(),
        recipe: plan.recipe.clone(),
    }
}
