//! A training run from plan to bundle, in the order in which it happens: load, prepare, train,
//! select, report, export.

/// The training loop.
mod steps;

/// After training: best checkpoint, reports, bundle.
mod finish;

use std::{fs, path::Path, time::Instant};

use super::{
    counters::Counters,
    eval::sample_report,
    input::{
        batches::Batches,
        inputs::{Features, Inputs},
        preparation::Preparation,
        samples::Samples,
    },
    network::Network,
    output::{checkpoint::Identity, saver::Saver},
    probe,
    step::{gradients::Criterion, objective::Objective, optimizer::Optimizer},
    transferability,
};
use crate::{
    domain::{
        job::Phase,
        progress::Progress,
        recipe::{HeadInit, Recipe},
        work::{PLAN, TrainPlan},
    },
    process::{
        device,
        error::TrainError,
        memory,
        protocol::{Ending, Interrupt, Reporter},
    },
};

/// Runs the plan in `folder` to its end, or until it is interrupted.
///
/// # Errors
/// See `TrainError`. Checkpoints saved so far stay.
pub fn run(
    folder: &Path,
    interrupt: &Interrupt,
    reporter: &mut Reporter,
) -> Result<Ending, TrainError> {
    let plan = read_plan(folder)?;
    let device = device::open(&plan.device)?;
    tch::set_num_threads(i32::try_from(plan.threads.max(1)).unwrap_or(i32::MAX));
    memory::keep_freed();
    reporter.send(&Progress::Ready {
        device: device::name(device),
        threads: plan.threads,
        pid: std::process::id(),
    });
    enter(Phase::Preparing, reporter);
    let samples = Samples::open(&plan)?;
    let data = Preparation {
        plan: &plan,
        samples: &samples,
        device,
        interrupt,
    };
    let (mut run, start) = Run::load(folder, data, reporter)?;
    if run.complete(start, reporter)? {
        return Ok(Ending::Finished);
    }
    reporter.send(&Progress::Interrupted {
        step: run.counters.step,
    });
    Ok(Ending::Interrupted)
}

/// A run under way. Functions that end early because of an interrupt return `false` or `None`.
struct Run<'a> {
    folder: &'a Path,
    data: Preparation<'a>,
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
    /// Loads the network and the checkpoint to resume from, if any. Also gives the features of the
    /// backbone as it was loaded: the head may start from them, and near duplicates are found by
    /// them. A resumed run mostly finds them in the cache.
    fn load(
        folder: &'a Path,
        data: Preparation<'a>,
        reporter: &mut Reporter,
    ) -> Result<(Self, Option<Features>), TrainError> {
        let Preparation {
            plan,
            samples,
            device,
            ..
        } = data;
        let recipe = &plan.recipe;
        let mut saver = Saver::new(folder, identity(plan, samples));
        // An unfit checkpoint is refused before anything is computed.
        let resume = plan.resume.as_deref();
        let resume = resume.map(|folder| saver.load(folder)).transpose()?;
        let resumes = resume.is_some();
        let mut network = Network::build(&plan.base_model, recipe, samples.outputs(), device)?;

        enter(Phase::CachingFeatures, reporter);
        let since = Instant::now();
        let start = Features::at_start(&data, &network, reporter)?;

        let step_size = recipe.batch_size as usize * recipe.accumulate as usize;
        let batches = Batches::new(samples.train.len(), step_size);
        let mut optimizer = Optimizer::new(recipe, &network.parameters);
        let mut criterion = Criterion::new(recipe, Objective::new(recipe, samples, device));
        let mut counters = Counters::start();
        if let Some(checkpoint) = resume {
            let epoch_steps = batches.per_epoch();
            counters = saver.resume(checkpoint, &mut network, &mut optimizer, epoch_steps)?;
            if !counters.finished {
                optimizer.swap_averages(&mut network.parameters);
            }
        }
        let known = [counters.micro_batch, plan.micro_batch];
        known
            .into_iter()
            .flatten()
            .for_each(|size| criterion.limit(size));
        let run = Self {
            folder,
            data,
            network,
            optimizer,
            criterion,
            batches,
            n_steps: batches.per_epoch() * u64::from(recipe.n_epochs),
            counters,
            saver,
            resumes,
            since,
            reported_size: None,
        };
        Ok((run, start))
    }

    fn recipe(&self) -> &'a Recipe {
        &self.data.plan.recipe
    }

    /// All that follows loading. Returns whether the run is complete.
    fn complete(
        &mut self,
        start: Option<Features>,
        reporter: &mut Reporter,
    ) -> Result<bool, TrainError> {
        let Some(start) = start else {
            return Ok(false);
        };
        let originals = sample_report::originals(self.data.samples, &start)?;
        let Some(mut inputs) = self.prepare(start, reporter)? else {
            return Ok(false);
        };
        if !self.train(&mut inputs, reporter)? {
            return Ok(false);
        }
        let Some(best) = self.select(reporter)? else {
            return Ok(false);
        };
        let (report, decoding) = self.report(&inputs, best, reporter)?;
        if !self.report_samples(&inputs, &decoding, &originals)? {
            return Ok(false);
        }
        self.export(best, &report, &decoding, reporter)?;
        Ok(true)
    }

    /// Prepares what training reads, and the head where it starts from the features at the `start`.
    fn prepare(
        &mut self,
        start: Features,
        reporter: &mut Reporter,
    ) -> Result<Option<Inputs>, TrainError> {
        let Preparation {
            samples, interrupt, ..
        } = self.data;
        let recipe = self.recipe();
        let Some(inputs) = Inputs::prepare(&self.data, &self.network, &start, reporter)? else {
            return Ok(None);
        };
        let keeps_head = recipe.inherited.as_ref().is_some_and(|it| it.keeps_head());
        let probes = recipe.head.init == HeadInit::Probe;
        if !self.resumes && probes {
            let table = |members: &[usize]| start.of(members);
            let probe = probe::fit(table, samples, recipe.seed, &|| interrupt.requested())?;
            let Some(probe) = probe else {
                return Ok(None);
            };
            self.network.start_head(&probe.weight, &probe.bias);
        }
        if !self.resumes && (probes || self.network.has_fixed_features()) {
            self.counters.transferability =
                transferability::measure(samples, |members| start.of(members));
        }
        drop(start);
        if !self.resumes && (probes || keeps_head) {
            // A candidate like the end of any epoch: training can only improve on it.
            self.evaluate(&inputs, reporter)?;
        }
        reporter.usage.preparing_seconds = self.since.elapsed().as_secs_f64();
        Ok(Some(inputs))
    }
}

fn enter(phase: Phase, reporter: &mut Reporter) {
    reporter.send(&Progress::Phase { phase });
}

fn read_plan(folder: &Path) -> Result<TrainPlan, TrainError> {
    let path = folder.join(PLAN);
    let text =
        fs::read(&path).map_err(TrainError::io(format!("cannot read {}", path.display())))?;
    serde_json::from_slice(&text)
        .map_err(|error| TrainError::Plan(format!("{}: {error}", path.display())))
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
