//! The task of the data, and options that only other tasks have.

use super::{data::Data, problems::contradiction};
use crate::{
    codes::TASK_MISMATCH,
    problem::{Problem, one_of},
    recipe::{Loss, Metric, Task},
    request::{Auto, ClassWeightRule, ClassWeights, JobRequest, Transfer},
};

/// Checks that the request and the validation file are for the training file's task.
pub(super) fn other_tasks_of_data(request: &JobRequest, data: Data<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let task = data.training.task;
    if let Auto::Value(asked) = request.transfer.task
        && asked != task
    {
        let message = format!(
            "task is `{asked}`, but the training file {}; leave task out, or {}",
            contents(task),
            remedy(asked)
        );
        problems.push(Problem::new("method.transfer.task", TASK_MISMATCH, message));
    }
    if let Some(validation) = data.validation
        && validation.task != task
    {
        let message = format!(
            "the validation file {}, but the training file {}; give two of one kind",
            contents(validation.task),
            contents(task)
        );
        problems.push(Problem::new("validation_file", TASK_MISMATCH, message));
    }
    problems
}

fn contents(task: Task) -> &'static str {
    match task {
        Task::SingleLabelClassification => "has one class for each sample",
        Task::MultiLabelClassification => "has lists of labels",
        Task::Regression => "has numbers",
    }
}

/// How to make data for a task.
fn remedy(task: Task) -> &'static str {
    match task {
        Task::SingleLabelClassification => {
            "give each sample one name under `label` in its manifest"
        }
        Task::MultiLabelClassification => "write labels as lists (`a|b`) in its manifest",
        Task::Regression => "put the numbers into a column `value` of its manifest",
    }
}

/// Options that the task does not have.
pub(super) fn options_of_other_tasks(asked: &Transfer, task: Task) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Auto::Value(metric) = asked.early_stopping.metric
        && !metric.is_of(task)
    {
        let all = Metric::ALL.into_iter().filter(|metric| metric.is_of(task));
        let all: Vec<&str> = all.map(Metric::as_str).collect();
        let message = format!("{metric} is not measured in {task}; give {}", one_of(&all));
        problems.push(contradiction("early_stopping.metric", message));
    }
    let asked = &asked.hyperparameters;
    if let Auto::Value(loss) = asked.loss
        && !Loss::of(task).contains(&loss)
    {
        let all: Vec<&str> = Loss::of(task).iter().map(|loss| loss.as_str()).collect();
        let message = format!("{loss} is no loss of {task}; give {}", one_of(&all));
        problems.push(contradiction("hyperparameters.loss", message));
    }
    if task == Task::SingleLabelClassification {
        return problems;
    }
    if asked.label_smoothing.value().is_some_and(|mass| mass > 0.0) {
        let message = format!(
            "label_smoothing takes from the one true class, which {task} does not have; leave it out"
        );
        problems.push(contradiction("hyperparameters.label_smoothing", message));
    }
    for (option, alpha) in [("mixup", asked.mixup), ("cutmix", asked.cutmix)] {
        if alpha.value().is_some_and(|alpha| alpha > 0.0) {
            let message = match task {
                Task::Regression => {
                    format!("{option} mixes labels of classes, not numbers; leave it out")
                }
                _ => format!(
                    "{option} gives samples shares of labels, but thresholds are chosen on whole labels; leave it out"
                ),
            };
            let option = format!("hyperparameters.{option}");
            problems.push(contradiction(&option, message));
        }
    }
    let weighs = |weights: &ClassWeights| *weights != ClassWeights::Rule(ClassWeightRule::None);
    if task == Task::Regression
        && matches!(&asked.class_weights, Auto::Value(weights) if weighs(weights))
    {
        let message = "a regression has no classes to weigh; leave class_weights out";
        problems.push(contradiction("hyperparameters.class_weights", message));
    }
    problems
}
