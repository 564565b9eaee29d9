//! The default of `freeze`, by the number of training samples of each class.

use super::data::Data;
use crate::{
    recipe::{BatchNorm, Precision, Task},
    request::{Auto, Freeze, Transfer},
};

/// Samples of a class from which training the backbone pays off (docs/recipes.md).
const ENOUGH: u64 = 10;
/// Number of classes that a regression counts as.
const CLASSES_OF_REGRESSION: u64 = 10;

/// The freeze policy, and its reason.
pub(super) fn freeze(asked: &Transfer, data: Data<'_>) -> (Freeze, &'static str) {
    let task = data.training.task;
    let classes = match task {
        Task::Regression => CLASSES_OF_REGRESSION,
        _ => data.training.classes.len().max(1) as u64,
    };
    let enough = data.training_samples() / classes >= ENOUGH;
    match (enough, task) {
        _ if asked.adapter.is_some() => (Freeze::All, "adapters train instead"),
        _ if tunes_the_backbone(asked) => {
            (Freeze::None, "the request tunes how the backbone trains")
        }
        (false, Task::Regression) => (
            Freeze::All,
            "fewer than 100 samples: a head on fixed features",
        ),
        (false, _) => (
            Freeze::All,
            "fewer than 10 samples a class: a head on fixed features",
        ),
        (true, Task::Regression) => (
            Freeze::None,
            "100 samples or more: training the whole backbone pays off",
        ),
        (true, _) => (
            Freeze::None,
            "10 samples a class or more: training the whole backbone pays off",
        ),
    }
}

/// True when the request has an option that would be refused under a frozen backbone.
fn tunes_the_backbone(asked: &Transfer) -> bool {
    let asked = &asked.hyperparameters;
    asked.backbone_learning_rate != Auto::Auto
        || matches!(asked.layer_decay, Auto::Value(share) if share < 1.0)
        || matches!(asked.cutmix, Auto::Value(alpha) if alpha > 0.0)
        || asked.precision == Auto::Value(Precision::Bfloat16)
        || asked.batch_norm == Auto::Value(BatchNorm::Update)
}
