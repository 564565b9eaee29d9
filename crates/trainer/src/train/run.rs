//! A training run from plan to bundle, in the order in which it happens.

use std::{fs, path::Path, time::Instant};

use super::{
    calibration,
    checkpoint::{Counters, Identity},
    device,
    error::TrainError,
    evaluation,
    export::{self, Export},
    forgetting,
    gradients::{Criterion, Window},
    inputs::{Features, Inputs, Preparation},
    losses::Losses,
    memory,
    metrics::{EvalPoint, OutputDecoding, ReportContext, Scored},
    network::Network,
    objective::Objective,
    optimizer::{Optimizer, Rates},
    order::{Batches, permutation},
    probe,
    protocol::{Ending, Reporter, Stop},
    sample_report,
    samples::Samples,
    saver::Saver,
    schedule, selection, transferability,
};
use crate::domain::{
    checkpoint::Metrics,
    file::Split,
    job::Phase,
    progress::{BatchSizePart, Progress},
    recipe::{HeadInit, Task},
    report::Scores,
    work::{PLAN, TrainPlan},
};

/// The report, in the job folder.
pub const REPORT: &str = "report.json";

/// Runs the plan in `folder` to its end, or until a stop is asked for.
///
/// # Errors
/// See `TrainError`. Checkpoints saved so far stay.
pub fn run(folder: &Path, stop: &Stop, say: &mut Reporter) -> Result<Ending, TrainError> {
    // Plan.
    let plan = read_plan(folder)?;
    let recipe = &plan.recipe;
    let device = device::open(&plan.device)?;
    tch::set_num_threads(i32::try_from(plan.threads.max(1)).unwrap_or(i32::MAX));
    memory::keep_freed();
    let (threads, pid) = (plan.threads, std::process::id());
    say.say(&Progress::Ready {
        device: device::name(device),
        threads,
        pid,
    });

    // Data and model.
    say.say(&Progress::Phase {
        phase: Phase::Preparing,
    });
    let samples = Samples::open(&plan)?;
    let mut saver = Saver::new(folder, identity(&plan, &samples));
    // What it cannot go on from is refused before anything is computed.
    let resume = plan.resume.as_deref();
    let resume = resume.map(|folder| saver.load(folder)).transpose()?;
    let resumes = resume.is_some();
    let mut network = Network::build(&plan.base_model, recipe, samples.outputs(), device)?;

    // Features as the backbone was loaded: what the head begins with, and what samples are alike by. Mostly in the cache, where
    // the run has been resumed.
    say.say(&Progress::Phase {
        phase: Phase::CachingFeatures,
    });
    let since = Instant::now();
    let preparation = Preparation {
        plan: &plan,
        samples: &samples,
        device,
        stop,
    };
    let start = Features::at_start(&preparation, &network, say)?;

    // Optimizer, counters.
    let step_size = recipe.batch_size as usize * recipe.accumulate as usize;
    let batches = Batches::new(samples.train.len(), step_size);
    let n_steps = batches.per_epoch() * u64::from(recipe.n_epochs);
    let mut optimizer = Optimizer::new(recipe, &network.parameters);
    let mut criterion = Criterion::new(recipe, Objective::new(recipe, &samples, device));
    let mut counters = match resume {
        Some(checkpoint) => {
            let counters = saver.resume(
                checkpoint,
                &mut network,
                &mut optimizer,
                batches.per_epoch(),
            )?;
            if !counters.finished {
                optimizer.swap_averages(&mut network.parameters);
            }
            counters
        }
        None => Counters::start(),
    };
    for known in [counters.micro_batch, plan.micro_batch]
        .into_iter()
        .flatten()
    {
        criterion.limit(known);
    }

    let Some(start) = start else {
        return Ok(stopped(counters.step, say));
    };
    let originals = sample_report::originals(&samples, &start)?;

    // Features, or pixels.
    let Some(mut inputs) = Inputs::prepare(&preparation, &network, &start, say)? else {
        return Ok(stopped(counters.step, say));
    };
    let keeps_head = recipe
        .inherited
        .as_ref()
        .is_some_and(|inherited| inherited.keeps_head());
    let probes = recipe.head.init == HeadInit::Probe;
    if !resumes && probes {
        let table = |members: &[usize]| start.of(members);
        let Some(probe) = probe::fit(table, &samples, recipe.seed, &|| stop.requested())? else {
            return Ok(stopped(0, say));
        };
        network.start_head(&probe.weight, &probe.bias);
    }
    if !resumes && (probes || network.has_fixed_features()) {
        counters.transferability = transferability::measure(&samples, |members| start.of(members));
    }
    drop(start);
    if !resumes && (probes || keeps_head) {
        // A candidate like any epoch's end: training can only improve on it.
        let metrics = evaluation::evaluate(&mut counters, &inputs, &network, (&samples, recipe))?;
        let best = selection::judge(&mut counters, metrics, &recipe.early_stopping);
        saver.keep_best(&network);
        say.say(&Progress::Evaluated { metrics, best });
    }

    say.usage.preparing_seconds = since.elapsed().as_secs_f64();

    // Loop.
    let since = Instant::now();
    say.say(&Progress::Phase {
        phase: Phase::Training,
    });
    let mut losses = Losses::new(n_steps, recipe.n_epochs);
    let mut order = Vec::new();
    let mut told = None;
    while counters.is_training(n_steps) {
        let step = counters.step + 1;
        let (epoch, places) = batches.locate(step);
        if order.is_empty() {
            order = permutation(recipe.seed, epoch, samples.train.len());
        }
        if network.enter_phases(recipe, epoch, batches.per_epoch(), &mut optimizer)?
            && !inputs.fit(&network)
        {
            match Inputs::pixels(&preparation, say)? {
                Some(renewed) => inputs = renewed,
                // What was trained since the last checkpoint is trained again.
                None => return Ok(stopped(counters.step, say)),
            }
        }
        let batch: Vec<usize> = order[places]
            .iter()
            .map(|&place| samples.train[place])
            .collect();

        let window = Window {
            members: &batch,
            step,
            epoch,
        };
        let (loss, gradients) = criterion.gradients_that_fit(&mut network, &inputs, window, say)?;
        counters.micro_batch =
            Some(criterion.batch_size()).filter(|&size| size < recipe.batch_size);
        let rates = Rates {
            warmup: schedule::warmup_steps(recipe.warmup_fraction, n_steps),
            ..Rates::at(recipe, schedule::factor(recipe, step, n_steps))
        };
        optimizer.step(&mut network.parameters, gradients, step, rates);
        losses.push(&loss, step, epoch, batch.len(), rates.head);
        say.usage.trained_samples += batch.len() as u64;
        (counters.step, counters.epoch) = (step, epoch);

        // Asked once a step: what is saved below must be what was fetched here.
        let asked = stop.requested();
        let saving = asked || saver.due();
        // Who wants the best so far also wants to know whether that is what there is now.
        let finishing = stop.finish_requested();
        let ends_epoch = batches.is_last(step);
        if ends_epoch {
            order.clear();
        }
        let evaluates =
            recipe.evaluate_every.is_due(step, epoch, ends_epoch) || step == n_steps || finishing;
        if evaluates || saving || losses.due() {
            losses.fetch(&mut counters, say, evaluates || saving)?;
        }
        let mut evaluated = None;
        if evaluates {
            optimizer.swap_averages(&mut network.parameters);
            let metrics =
                evaluation::evaluate(&mut counters, &inputs, &network, (&samples, recipe))?;
            tell_shrunk(&inputs, &mut told, say);
            let best = selection::judge(&mut counters, metrics, &recipe.early_stopping);
            if best {
                saver.keep_best(&network);
            }
            optimizer.swap_averages(&mut network.parameters);
            say.say(&Progress::Evaluated { metrics, best });
            evaluated = Some(metrics);
            counters.stopped_early |= finishing && step < n_steps;
        }
        if counters.is_training(n_steps) && (saving || (evaluates && saver.due())) {
            optimizer.swap_averages(&mut network.parameters);
            saver.save(&network, &optimizer, &counters, evaluated, say)?;
            optimizer.swap_averages(&mut network.parameters);
            if asked {
                return Ok(stopped(step, say));
            }
        }
    }

    say.usage.training_seconds = since.elapsed().as_secs_f64();

    // Best.
    if !counters.finished {
        saver.finish(&mut network, &mut counters, say)?;
    }
    if stop.requested() {
        return Ok(stopped(counters.step, say));
    }
    let best = counters.best.as_ref().map(Metrics::from);
    let best = best.ok_or_else(|| TrainError::Plan("the recipe has no epoch".to_owned()))?;

    // Report.
    say.say(&Progress::Phase {
        phase: Phase::Evaluating,
    });
    let (split, members) = samples.report_split();
    let occasion = EvalPoint {
        split,
        step: best.step,
        epoch: best.epoch,
    };
    // Fitted on the split that chose the checkpoint, never on the test split.
    let data = (&samples, recipe);
    let validation = evaluation::score(&inputs, &network, data, &samples.validation)?;
    let reading = match &validation {
        Scored::SingleLabel(scored) => OutputDecoding::Temperature(calibration::fit(scored)),
        Scored::MultiLabel(scored) => OutputDecoding::Thresholds(scored.thresholds()),
        Scored::Regression(_) => OutputDecoding::Plain,
    };
    let reported = match split {
        Split::Validation => None,
        _ => Some(evaluation::score(&inputs, &network, data, members)?),
    };
    tell_shrunk(&inputs, &mut told, say);
    let scale = samples.scale();
    let known = ReportContext {
        classes: &samples.classes,
        reading: &reading,
        majority_label: samples.majority_label(),
        mean: scale.mean,
    };
    let mut report = reported
        .as_ref()
        .unwrap_or(&validation)
        .report(&known, occasion);
    if let Scores::SingleLabelClassification(scores) = &mut report.scores {
        scores.transferability = counters.transferability;
    }
    if let (Some(inherited), Some(before)) = (&recipe.inherited, &counters.at_start)
        && inherited.keeps_head()
    {
        forgetting::tell(&mut report.scores, inherited, before, &validation);
    }
    let text = serde_json::to_vec_pretty(&report).expect("a report is plain data: this is a bug");
    fs::write(folder.join(REPORT), text).map_err(TrainError::io("cannot write the report"))?;

    let data = (&samples, recipe);
    let read = (&network, &inputs);
    if sample_report::write(folder, data, read, (&reading, &originals), stop)?.is_none() {
        return Ok(stopped(counters.step, say));
    }

    // Export.
    say.say(&Progress::Phase {
        phase: Phase::Exporting,
    });
    if recipe.task == Task::Regression {
        // What trained on deviations answers in the target's unit from here on.
        network.rescale_outputs(scale.std, scale.mean);
    }
    let (plan, samples, network, report) = (&plan, &samples, &network, &report);
    export::export(
        folder,
        &Export {
            plan,
            samples,
            network,
            best,
            report,
            reading: &reading,
            device,
        },
    )?;
    say.usage.peak_bytes = device::peak_bytes(device);
    say.say(&Progress::Used(say.usage));
    let stopped_early = counters.stopped_early;
    say.say(&Progress::Finished {
        best_step: best.step,
        stopped_early,
    });
    Ok(Ending::Finished)
}

/// Says it when evaluation runs fewer samples together than it was `told`.
fn tell_shrunk(inputs: &Inputs, told: &mut Option<u32>, say: &mut Reporter) {
    let shrunk = inputs.shrunk_evaluation();
    if let Some(batch_size) = shrunk.filter(|_| shrunk != *told) {
        let what = BatchSizePart::Evaluation;
        say.say(&Progress::BatchSizeReduced { what, batch_size });
        *told = shrunk;
    }
}

fn read_plan(folder: &Path) -> Result<TrainPlan, TrainError> {
    let path = folder.join(PLAN);
    let text =
        fs::read(&path).map_err(TrainError::io(format!("cannot read {}", path.display())))?;
    serde_json::from_slice(&text)
        .map_err(|error| TrainError::Plan(format!("{}: {error}", path.display())))
}

fn identity(plan: &TrainPlan, samples: &Samples) -> Identity {
    Identity {
        job: plan.job,
        architecture: plan.base_model.architecture.clone(),
        base_weights_sha256: plan.base_model.weights_sha256.clone(),
        parents_sha256: plan
            .base_model
            .over
            .iter()
            .map(|over| over.sha256.clone())
            .collect(),
        pack_sha256: plan.pack_sha256.clone(),
        validation_pack_sha256: plan.validation_pack_sha256.clone(),
        labels: samples.classes.clone(),
        preprocessing: plan.base_model.preprocessing.clone(),
        recipe: plan.recipe.clone(),
    }
}

fn stopped(step: u64, say: &mut Reporter) -> Ending {
    say.say(&Progress::Stopped { step });
    Ending::Stopped
}
