//! Resolves a request to a recipe: checks it against the base model's layers and the data, and
//! replaces every `"auto"` by a default, with a reason. Pure.

mod adapter;
mod augmentation;
mod auto_log;
mod class_weights;
mod contradictions;
mod data;
mod defaults;
mod fill_defaults;
mod freeze;
mod network;
mod problems;
mod tasks;
mod trained;

pub use self::{
    adapter::resolve as resolve_adapter, data::Data, freeze::phases as freeze_phases,
    trained::check_layers,
};
use self::{
    fill_defaults::fill_defaults, network::NetworkShape, problems::Problems, trained::Trained,
};
pub use crate::parent::Start;
use crate::{
    job_plan::JobPlan,
    problem::Problem,
    recipe::{Recipe, Resolved},
    request::JobRequest,
};

/// A recipe, and how each `"auto"` was resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolution {
    pub recipe: Recipe,
    pub resolved: Vec<Resolved>,
    /// Estimate of the device memory that the job needs, in MiB.
    pub device_mb: u32,
}

/// Resolves a request. `seed` is the request's, or one drawn for it.
///
/// # Errors
/// Everything in the request that this model or these data cannot do.
pub fn resolve(
    request: &JobRequest,
    start: Start<'_>,
    data: Data<'_>,
    seed: u64,
) -> Result<Resolution, Vec<Problem>> {
    let mut problems = Problems::default();
    let shape = NetworkShape::of(&request.transfer, start, data);
    let labels = match &shape {
        Ok(shape) => shape.labels(data.training),
        Err(_) => network::all_labels(start, data.training),
    };
    problems.add(data.problems(&labels));
    problems.add(tasks::other_tasks_of_data(request, data));
    let task = data.training.task;
    problems.add(tasks::options_of_other_tasks(&request.transfer, task));
    let shape = problems.note(shape);
    // From here on, what is resolved of the shape counts as asked for.
    let asked = match &shape {
        Some(shape) => shape.fill(&request.transfer),
        None => request.transfer.clone(),
    };
    let trained = problems.note(Trained::of(&asked, start)).flatten();
    let class_weights = class_weights::resolve(&asked.hyperparameters.class_weights, data);
    let class_weights = problems.note(class_weights).flatten();
    let found = contradictions::all(&asked, start.layers, data, trained.as_ref());
    problems.add(found);
    let (Some(shape), Some(trained), true) = (shape, trained, problems.0.is_empty()) else {
        return Err(problems.0);
    };
    let (mut recipe, mut resolved) = fill_defaults(&asked, start.layers, data, (&shape, &trained));
    recipe.class_weights = class_weights.map(|weights| shape.by_label(data.training, &weights));
    recipe.seed = seed;
    resolved.extend(shape.resolved);
    let plan = JobPlan::of(&recipe, start.layers, data.training, data.validation)?;
    Ok(Resolution {
        device_mb: plan.device_mb(),
        recipe,
        resolved,
    })
}

#[cfg(test)]
mod recipe_tests;
#[cfg(test)]
mod tests;
