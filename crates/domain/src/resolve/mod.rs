//! From what a user asks for to what the trainer does: every `auto` settled with a reason, everything checked against
//! the base model's layers and the data. Pure.

mod augmentation;
mod contradictions;
mod defaults;
mod form;
mod mode;
mod settle;
mod tasks;

use self::contradictions::{contradictions, late_phases};
use self::form::form;
use self::settle::{Told, settle};
use self::tasks::{data_tasks, other_tasks};
use crate::{
    adapter,
    base_model::Layers,
    class_weights,
    file::Dataset,
    freeze,
    job_plan::JobPlan,
    parent::Parent,
    problem::{Code, Problem, suggestion},
    recipe::{Adapter, Recipe, Resolved},
    request::{Auto, JobRequest, Transfer},
};

/// A split that a job needs holds no sample.
pub const EMPTY_SPLIT: Code = "empty_split";

/// A class of the validation file that the training file does not have.
pub const UNKNOWN_CLASS: Code = "unknown_class";

/// A class of the training file that the model which a job goes on from does not know.
pub const NEW_CLASS: Code = "new_class";

/// More samples in a batch than there are.
pub const BATCH_TOO_LARGE: Code = "batch_too_large";

/// The data are for another task than the request, or the other file, says.
pub const TASK_MISMATCH: Code = "task_mismatch";

/// Where training starts.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// Of the base model.
    pub layers: &'a Layers,
    /// The model or checkpoint that the job goes on from, where it is not the base model itself.
    pub parent: Option<&'a Parent>,
}

/// A recipe and how its `"auto"`s were settled.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolution {
    pub recipe: Recipe,
    pub resolved: Vec<Resolved>,
    /// Device memory that it needs, in MiB, as estimated.
    pub device_mb: u32,
}

/// Settles a request. `seed` is the request's, or one drawn for it.
///
/// # Errors
/// Everything in the request that this model or these data cannot do.
pub fn resolve(
    request: &JobRequest,
    start: Start<'_>,
    training: &Dataset,
    validation: Option<&Dataset>,
    seed: u64,
) -> Result<Resolution, Vec<Problem>> {
    let samples = training_samples(training, validation);
    let form = form(&request.transfer, start, training, samples);
    let labels = form.as_ref().map_or_else(
        |_| form::every_class(start, training),
        |form| form.labels(training),
    );
    let mut problems = data_problems(training, validation, &labels);
    let mut noted = |found: Vec<Problem>| problems.extend(found);
    noted(data_tasks(request, training, validation));
    noted(other_tasks(request, training.task));
    let form = form.map_err(&mut noted).ok();
    // What is settled of the form is asked for from here on.
    let request = &form
        .as_ref()
        .map_or_else(|| request.clone(), |form| form.fill(request));
    let trained = trained(&request.transfer, start).unwrap_or_else(|found| {
        noted(found);
        None
    });
    let class_weights = class_weights::resolve(
        &request.transfer.hyperparameters.class_weights,
        training,
        validation.is_some(),
    );
    let class_weights = class_weights.unwrap_or_else(|found| {
        noted(found);
        None
    });
    let backbone_is_frozen = trained
        .as_ref()
        .is_some_and(|(_, phases)| phases.iter().all(|(_, trainable)| trainable.is_empty()));
    noted(contradictions(
        request,
        start.layers,
        backbone_is_frozen,
        samples,
    ));
    if let Some((_, phases)) = &trained {
        noted(augmentation::contradictions(request, start.layers, phases));
        noted(late_phases(request, phases));
    }
    noted(adapter::contradictions(&request.transfer));
    let (Some(mut form), Some((adapter, phases)), true) = (form, trained, problems.is_empty())
    else {
        return Err(problems);
    };
    form.adapter = adapter;
    let class_weights = class_weights.map(|weights| form.by_label(training, &weights));
    let told = Told {
        task: training.task,
        samples,
        class_weights,
        has_batch_norm: start.layers.has_batch_norm(),
    };
    let (recipe, mut resolved) = settle(request, &form, phases, told, seed);
    resolved.extend(form.resolved);
    let plan = JobPlan::of(&recipe, start.layers, training, validation)?;
    Ok(Resolution {
        device_mb: plan.device_mb(),
        recipe,
        resolved,
    })
}

/// Adapters, and the names of what trains in each phase, with the epochs that are over when it begins.
type Trained = (Option<Adapter>, Vec<(u64, Vec<String>)>);

/// Which part of a backbone trains; `None` while that is left to the data.
fn trained(asked: &Transfer, start: Start<'_>) -> Result<Option<Trained>, Vec<Problem>> {
    let left = form::left(asked, start)?;
    match (&asked.adapter, &asked.freeze) {
        (Some(adapter), _) => {
            let adapter = adapter::resolve(adapter, start.layers, &left)?;
            let names = adapter.tensors();
            Ok(Some((Some(adapter), vec![(0, names)])))
        }
        (None, Auto::Value(policy)) => {
            freeze::phases(policy, start.layers, &left).map(|phases| Some((None, phases)))
        }
        (None, Auto::Auto) => Ok(None),
    }
}

/// Checks what can be told before the data are validated: the cut, the adapters, each phase of the freeze policy.
///
/// # Errors
/// Layers that the request names and the model does not have.
pub fn check_layers(asked: &Transfer, start: Start<'_>) -> Result<(), Vec<Problem>> {
    trained(asked, start).map(|_| ())
}

/// Samples that train: with a validation file of its own, the training file's validation split trains too.
fn training_samples(training: &Dataset, validation: Option<&Dataset>) -> u64 {
    training.splits.train + validation.map_or(0, |_| training.splits.validation)
}

/// `labels` are the result's.
fn data_problems(
    training: &Dataset,
    validation: Option<&Dataset>,
    labels: &[String],
) -> Vec<Problem> {
    let mut problems = Vec::new();
    if training_samples(training, validation) == 0 {
        problems.push(Problem::new(
            "training_file",
            EMPTY_SPLIT,
            "the training file has no sample to train on",
        ));
    }
    let Some(validation) = validation else {
        if training.splits.validation == 0 {
            let message = "the training file's validation split is empty; add samples, or give a validation_file";
            problems.push(Problem::new("training_file", EMPTY_SPLIT, message));
        }
        return problems;
    };
    let known = labels.iter().map(String::as_str);
    for class in &validation.classes {
        if !known.clone().any(|name| name == class.name) {
            let message = format!(
                "the training file has no class `{}`; {}",
                class.name,
                suggestion(&class.name, known.clone())
            );
            problems.push(Problem::new("validation_file", UNKNOWN_CLASS, message));
        }
    }
    problems
}

#[cfg(test)]
mod recipe_tests;
#[cfg(test)]
mod tests;
