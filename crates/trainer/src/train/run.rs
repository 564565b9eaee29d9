//! A training run from plan to bundle, in the order in which it happens: load, prepare, train,
//! select, report, export.

use std::{collections::HashMap, fs, path::Path, time::Instant};

use super::{
    counters::Counters,
    eval::{
        evaluation, forgetting,
        metrics::{EvalPoint, OutputDecoding, ReportContext, Scored, calibration},
        sample_report, selection,
    },
    input::{
        batches::Batches,
        inputs::{Features, Inputs},
        preparation::Preparation,
        samples::Samples,
    },
    network::Network,
    output::{bundle::Bundle, checkpoint::Identity, export, saver::Saver},
    probe,
    rng::permutation,
    step::{
        gradients::{Criterion, Window},
        objective::Objective,
        optimizer::{Optimizer, Rates},
        pending_losses::{PendingLosses, PendingStep},
        schedule,
    },
    transferability,
};
use crate::{
    domain::{
        checkpoint::Metrics,
        file::Split,
        job::Phase,
        progress::{BatchSizePart, Progress},
        recipe::{HeadInit, Recipe, Task},
        report::{Report, Scores},
        work::{PLAN, TrainPlan},
    },
    process::{
        device,
        error::TrainError,
        memory,
        protocol::{Ending, Interrupt, Reporter},
    },
};

/// The report, in the job folder.
pub const REPORT: &str = "report.json";

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

    /// Takes steps until training is over.
    fn train(&mut self, inputs: &mut Inputs, reporter: &mut Reporter) -> Result<bool, TrainError> {
        self.since = Instant::now();
        enter(Phase::Training, reporter);
        let recipe = self.recipe();
        let train = &self.data.samples.train;
        let mut losses = PendingLosses::new(self.n_steps, recipe.n_epochs);
        let mut order = Vec::new();
        while self.counters.is_training(self.n_steps) {
            let step = self.counters.step + 1;
            let (epoch, places) = self.batches.locate(step);
            if order.is_empty() {
                order = permutation(recipe.seed, epoch, train.len());
            }
            if !self.enter_phases(epoch, inputs, reporter)? {
                return Ok(false);
            }
            let members: Vec<usize> = order[places].iter().map(|&place| train[place]).collect();
            let window = Window {
                members: &members,
                step,
                epoch,
            };
            self.step(window, inputs, &mut losses, reporter)?;
            if self.batches.is_last(step) {
                order.clear();
            }
            if !self.evaluate_and_save(inputs, &mut losses, reporter)? {
                return Ok(false);
            }
        }
        reporter.usage.training_seconds = self.since.elapsed().as_secs_f64();
        Ok(true)
    }

    /// Enters the phases of the freeze schedule that begin with this epoch, with the inputs they
    /// need.
    fn enter_phases(
        &mut self,
        epoch: u32,
        inputs: &mut Inputs,
        reporter: &mut Reporter,
    ) -> Result<bool, TrainError> {
        let (recipe, steps) = (self.recipe(), self.batches.per_epoch());
        let entered = self
            .optimizer
            .enter_phases(&mut self.network, recipe, epoch, steps)?;
        if entered && !inputs.fit(&self.network) {
            // Steps since the last checkpoint are repeated after an interrupt here.
            let Some(renewed) = Inputs::pixels(&self.data, reporter)? else {
                return Ok(false);
            };
            *inputs = renewed;
        }
        Ok(true)
    }

    /// Takes one optimizer step.
    fn step(
        &mut self,
        window: Window<'_>,
        inputs: &Inputs,
        losses: &mut PendingLosses,
        reporter: &mut Reporter,
    ) -> Result<(), TrainError> {
        let recipe = self.recipe();
        let Window {
            members,
            step,
            epoch,
        } = window;
        let (loss, gradients) =
            self.criterion
                .gradients_that_fit(&mut self.network, inputs, window, reporter)?;
        let size = Some(self.criterion.batch_size());
        self.counters.micro_batch = size.filter(|&size| size < recipe.batch_size);
        let rates = Rates {
            warmup: schedule::warmup_steps(recipe.warmup_fraction, self.n_steps),
            ..Rates::at(recipe, schedule::factor(recipe, step, self.n_steps))
        };
        self.optimizer
            .step(&mut self.network.parameters, gradients, step, rates);
        let pending = PendingStep {
            step,
            epoch,
            samples: members.len(),
            learning_rate: rates.head,
        };
        losses.push(&loss, pending);
        reporter.usage.trained_samples += members.len() as u64;
        (self.counters.step, self.counters.epoch) = (step, epoch);
        Ok(())
    }

    /// Evaluates and saves after a step, where either is due.
    fn evaluate_and_save(
        &mut self,
        inputs: &Inputs,
        losses: &mut PendingLosses,
        reporter: &mut Reporter,
    ) -> Result<bool, TrainError> {
        let (step, epoch) = (self.counters.step, self.counters.epoch);
        // Read once a step: what is saved below must be what was fetched here.
        let interrupted = self.data.interrupt.requested();
        let saving = interrupted || self.saver.due();
        // Stopping early keeps the best so far, which may be what there is now.
        let stopping = self.data.interrupt.stops_early();
        let evaluates = step == self.n_steps
            || stopping
            || self
                .recipe()
                .evaluate_every
                .is_due(step, epoch, self.batches.is_last(step));
        if evaluates || saving || losses.due() {
            losses.fetch(&mut self.counters, reporter, evaluates || saving)?;
        }
        let mut evaluated = None;
        if evaluates {
            self.swap_averages();
            evaluated = Some(self.evaluate(inputs, reporter)?);
            self.swap_averages();
            self.counters.stopped_early |= stopping && step < self.n_steps;
        }
        if self.counters.is_training(self.n_steps) && (saving || (evaluates && self.saver.due())) {
            self.swap_averages();
            let state = (&self.network, &self.optimizer, &self.counters);
            self.saver.save(state, evaluated, reporter)?;
            self.swap_averages();
            return Ok(!interrupted);
        }
        Ok(true)
    }

    fn swap_averages(&mut self) {
        self.optimizer.swap_averages(&mut self.network.parameters);
    }

    /// Measures the network on the validation split, and keeps its tensors where they are the best
    /// so far.
    fn evaluate(
        &mut self,
        inputs: &Inputs,
        reporter: &mut Reporter,
    ) -> Result<Metrics, TrainError> {
        let recipe = self.recipe();
        let data = (self.data.samples, recipe);
        let metrics = evaluation::evaluate(&mut self.counters, inputs, &self.network, data)?;
        self.report_reduced_size(inputs, reporter);
        let best = selection::judge(&mut self.counters, metrics, &recipe.early_stopping);
        if best {
            self.saver.keep_best(&self.network);
        }
        reporter.send(&Progress::Evaluated { metrics, best });
        Ok(metrics)
    }

    /// Reports when evaluation runs fewer samples together than before.
    fn report_reduced_size(&mut self, inputs: &Inputs, reporter: &mut Reporter) {
        let size = inputs.reduced_evaluation();
        if let Some(batch_size) = size.filter(|_| size != self.reported_size) {
            let what = BatchSizePart::Evaluation;
            reporter.send(&Progress::BatchSizeReduced { what, batch_size });
            self.reported_size = size;
        }
    }

    /// Puts the best tensors in place, and saves them as the run's result.
    fn select(&mut self, reporter: &mut Reporter) -> Result<Option<Metrics>, TrainError> {
        if !self.counters.finished {
            self.saver
                .finish(&mut self.network, &mut self.counters, reporter)?;
        }
        if self.data.interrupt.requested() {
            return Ok(None);
        }
        let best = self.counters.best.as_ref().map(Metrics::from);
        best.map(Some).ok_or_else(|| {
            TrainError::Plan(
                "`recipe.n_epochs` is 0, so there is nothing to select; give at least 1".to_owned(),
            )
        })
    }

    /// Measures the best tensors and writes the report. How outputs are decoded is fitted on the
    /// split that selected the checkpoint, never on the test split.
    fn report(
        &mut self,
        inputs: &Inputs,
        best: Metrics,
        reporter: &mut Reporter,
    ) -> Result<(Report, OutputDecoding), TrainError> {
        enter(Phase::Evaluating, reporter);
        let (samples, recipe) = (self.data.samples, self.recipe());
        let score = |members: &[usize]| {
            evaluation::score(inputs, &self.network, (samples, recipe), members)
        };
        let validation = score(&samples.validation)?;
        let decoding = match &validation {
            Scored::SingleLabel(scored) => OutputDecoding::Temperature(calibration::fit(scored)),
            Scored::MultiLabel(scored) => OutputDecoding::Thresholds(scored.thresholds()),
            Scored::Regression(_) => OutputDecoding::Plain,
        };
        let (split, members) = samples.report_split();
        let reported = match split {
            Split::Validation => None,
            _ => Some(score(members)?),
        };
        self.report_reduced_size(inputs, reporter);
        let context = ReportContext {
            classes: &samples.classes,
            decoding: &decoding,
            majority_label: samples.majority_label(),
            mean: samples.scale().mean,
        };
        let point = EvalPoint {
            split,
            step: best.step,
            epoch: best.epoch,
        };
        let reported = reported.as_ref().unwrap_or(&validation);
        let mut report = reported.report(&context, point);
        if let Scores::SingleLabelClassification(scores) = &mut report.scores {
            scores.transferability = self.counters.transferability;
        }
        if let (Some(inherited), Some(before)) = (&recipe.inherited, &self.counters.at_start)
            && inherited.keeps_head()
        {
            forgetting::compare(&mut report.scores, inherited, before, &validation);
        }
        let text =
            serde_json::to_vec_pretty(&report).expect("a report is plain data: this is a bug");
        let path = self.folder.join(REPORT);
        fs::write(&path, text)
            .map_err(TrainError::io(format!("cannot write {}", path.display())))?;
        Ok((report, decoding))
    }

    /// Writes the sample report.
    fn report_samples(
        &self,
        inputs: &Inputs,
        decoding: &OutputDecoding,
        originals: &HashMap<usize, usize>,
    ) -> Result<bool, TrainError> {
        let data = (self.data.samples, self.recipe());
        let (read, decoded) = ((&self.network, inputs), (decoding, originals));
        let interrupt = self.data.interrupt;
        let written = sample_report::write(self.folder, data, read, decoded, interrupt)?;
        Ok(written.is_some())
    }

    /// Writes the bundle, and reports what the run cost.
    fn export(
        &mut self,
        best: Metrics,
        report: &Report,
        decoding: &OutputDecoding,
        reporter: &mut Reporter,
    ) -> Result<(), TrainError> {
        enter(Phase::Exporting, reporter);
        let Preparation {
            plan,
            samples,
            device,
            ..
        } = self.data;
        if plan.recipe.task == Task::Regression {
            // Training sees deviations; from here on outputs are in the target's unit.
            let scale = samples.scale();
            self.network.rescale_outputs(scale.std, scale.mean);
        }
        let bundle = Bundle {
            plan,
            samples,
            network: &self.network,
            best,
            report,
            decoding,
            device,
        };
        export::export(self.folder, &bundle)?;
        reporter.usage.peak_bytes = device::peak_bytes(device);
        reporter.send(&Progress::Used(reporter.usage));
        reporter.send(&Progress::Finished {
            best_step: best.step,
            stopped_early: self.counters.stopped_early,
        });
        Ok(())
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
