//! What the data are for, and options that only another task has.

use super::TASK_MISMATCH;
use crate::{
    file::Dataset,
    problem::{Problem, one_of},
    recipe::{Loss, Metric, Task},
    request::{Auto, CONTRADICTION, ClassWeightRule, ClassWeights, JobRequest},
};

/// A task that the request, or the validation file, does not share with the training file.
pub(super) fn data_tasks(
    request: &JobRequest,
    training: &Dataset,
    validation: Option<&Dataset>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let told = training.task;
    if let Auto::Value(asked) = request.transfer.task
        && asked != told
    {
        let message = format!(
            "task is `{}`, but the training file {}; leave task out, or {}",
            asked.as_str(),
            holds(told),
            remedy(asked)
        );
        problems.push(Problem::new("method.transfer.task", TASK_MISMATCH, message));
    }
    if let Some(validation) = validation
        && validation.task != told
    {
        let message = format!(
            "the validation file {}, but the training file {}; give two of one kind",
            holds(validation.task),
            holds(told)
        );
        problems.push(Problem::new("validation_file", TASK_MISMATCH, message));
    }
    problems
}

fn holds(task: Task) -> &'static str {
    match task {
        Task::SingleLabelClassification => "holds one class for each sample",
        Task::MultiLabelClassification => "holds lists of labels",
        Task::Regression => "holds numbers",
    }
}

/// How data for a task are made.
fn remedy(task: Task) -> &'static str {
    match task {
        Task::SingleLabelClassification => {
            "give each sample one name under `label` in its manifest"
        }
        Task::MultiLabelClassification => "write labels as lists (`a|b`) in its manifest",
        Task::Regression => "put the numbers into a column `value` of its manifest",
    }
}

/// Options that a task does not have.
pub(super) fn other_tasks(request: &JobRequest, task: Task) -> Vec<Problem> {
    let transfer = &request.transfer;
    let asked = &transfer.hyperparameters;
    let mut problems = Vec::new();
    let mut contradiction = |option: &str, message: String| {
        let path = format!("method.transfer.{option}");
        problems.push(Problem::new(path, CONTRADICTION, message));
    };
    let name = task.as_str();
    if let Auto::Value(metric) = transfer.early_stopping.metric
        && !metric.is_of(task)
    {
        let all = Metric::ALL.into_iter().filter(|metric| metric.is_of(task));
        let all: Vec<&str> = all.map(Metric::as_str).collect();
        let message = format!(
            "{} is not measured in {name}; give {}",
            metric.as_str(),
            one_of(&all)
        );
        contradiction("early_stopping.metric", message);
    }
    if let Auto::Value(loss) = asked.loss
        && !Loss::of(task).contains(&loss)
    {
        let all: Vec<&str> = Loss::of(task).iter().map(|loss| loss.as_str()).collect();
        let message = format!(
            "{} is no loss of {name}; give {}",
            loss.as_str(),
            one_of(&all)
        );
        contradiction("hyperparameters.loss", message);
    }
    if task == Task::SingleLabelClassification {
        return problems;
    }
    if matches!(asked.label_smoothing, Auto::Value(mass) if mass > 0.0) {
        let message = format!(
            "label_smoothing takes from the one true class, which {name} does not have; leave it out"
        );
        contradiction("hyperparameters.label_smoothing", message);
    }
    for (option, alpha) in [("mixup", asked.mixup), ("cutmix", asked.cutmix)] {
        if matches!(alpha, Auto::Value(alpha) if alpha > 0.0) {
            let message = match task {
                Task::Regression => {
                    format!("{option} mixes labels of classes, not numbers; leave it out")
                }
                _ => format!(
                    "{option} gives samples shares of labels, but thresholds are chosen on whole labels; leave it out"
                ),
            };
            contradiction(&format!("hyperparameters.{option}"), message);
        }
    }
    if task == Task::Regression {
        let weighs = |weights: &ClassWeights| *weights != ClassWeights::Rule(ClassWeightRule::None);
        if matches!(&asked.class_weights, Auto::Value(weights) if weighs(weights)) {
            let message = "a regression has no classes to weigh; leave class_weights out";
            contradiction("hyperparameters.class_weights", message.to_owned());
        }
    }
    problems
}
