//! How much of the backbone trains, where that is left to us: by how many samples there are for each class.

use crate::{
    file::Dataset,
    recipe::{BatchNorm, Precision, Task},
    request::{Auto, Freeze, Transfer},
};

/// Samples of a class from which on training the backbone pays (docs/recipes.md).
const ENOUGH: u64 = 10;
/// As many classes have a regression's numbers, in this reckoning.
const OF_NUMBERS: u64 = 10;

/// The freeze policy, for as many `samples` that train, and why.
pub(super) fn freeze(asked: &Transfer, training: &Dataset, samples: u64) -> (Freeze, &'static str) {
    let groups = match training.task {
        Task::Regression => OF_NUMBERS,
        _ => training.classes.len().max(1) as u64,
    };
    if asked.adapter.is_some() {
        (Freeze::All, "adapters train in its place")
    } else if tunes_the_backbone(asked) {
        (Freeze::None, "the request tunes how the backbone trains")
    } else if samples / groups < ENOUGH {
        let why = match training.task {
            Task::Regression => "fewer than 100 samples: a head on fixed features",
            _ => "fewer than 10 samples a class: a head on fixed features",
        };
        (Freeze::All, why)
    } else {
        let why = match training.task {
            Task::Regression => "100 samples or more: training the whole backbone pays",
            _ => "10 samples a class or more: training the whole backbone pays",
        };
        (Freeze::None, why)
    }
}

/// Whether an option is given that a frozen backbone would have to refuse.
fn tunes_the_backbone(asked: &Transfer) -> bool {
    let asked = &asked.hyperparameters;
    asked.backbone_learning_rate != Auto::Auto
        || matches!(asked.layer_decay, Auto::Value(share) if share < 1.0)
        || matches!(asked.cutmix, Auto::Value(alpha) if alpha > 0.0)
        || asked.precision == Auto::Value(Precision::Bfloat16)
        || asked.batch_norm == Auto::Value(BatchNorm::Update)
}
