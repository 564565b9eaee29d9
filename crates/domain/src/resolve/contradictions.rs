//! Options that have no effect, or exclude each other.

use super::{
    adapter, augmentation, data::Data, defaults, problems::contradiction, trained::Trained,
};
use crate::{
    base_model::Layers,
    codes::{BATCH_TOO_LARGE, CONTRADICTION, TOO_LARGE},
    limits,
    problem::{Code, Problem},
    recipe::{BatchNorm, HeadInit, HeadLayer, Precision, Schedule, is_linear_head},
    request::{Auto, Transfer},
};

/// All contradictions of a request. `trained` is `None` while which part trains is not known.
pub(super) fn all(
    asked: &Transfer,
    layers: &Layers,
    data: Data<'_>,
    trained: Option<&Trained>,
) -> Vec<Problem> {
    let is_frozen = trained.is_some_and(Trained::head_only);
    let mut problems = Vec::from_iter(probe(asked));
    problems.extend(head_size(asked, layers));
    problems.extend(batches(asked, data.training_samples()));
    problems.extend(shards(asked, data.training_samples()));
    problems.extend(warmup(asked));
    if is_frozen {
        problems.extend(frozen_backbone(asked));
    }
    problems.extend(batch_norm(asked, layers, is_frozen));
    if let Some(trained) = trained {
        problems.extend(augmentation::contradictions(asked, layers, trained));
        problems.extend(late_phase(asked, trained));
        problems.extend(coarse_features(asked, is_frozen));
    }
    problems.extend(adapter::contradictions(asked));
    problems
}

/// Samples of a shard whose statistics BatchNorm takes, at least; the default takes more.
const FEWEST_STATISTICS: u64 = 8;

fn problem(option: &str, code: Code, message: impl Into<String>) -> Problem {
    let path = format!("method.transfer.hyperparameters.{option}");
    Problem::new(path, code, message)
}

fn probe(asked: &Transfer) -> Option<Problem> {
    let head = &asked.head;
    let message = "a probe is one linear layer on the features; leave `init` out, or all head layers but dropout";
    (head.init == Auto::Value(HeadInit::Probe) && !is_linear_head(head.layers()))
        .then(|| contradiction("head.init", message))
}

/// Layers of a head that come to more numbers than a head may have.
fn head_size(asked: &Transfer, layers: &Layers) -> Option<Problem> {
    let (mut width, mut count) = (u64::from(layers.feature_dim), 0);
    for layer in asked.head.layers() {
        if let HeadLayer::Linear(outputs) = layer {
            let outputs = u64::from(*outputs);
            count += (width + 1) * outputs;
            width = outputs;
        }
    }
    let most = limits::HEAD_PARAMETERS;
    let message =
        format!("these layers have {count} weights, more than {most}; make them narrower or fewer");
    let path = "method.transfer.head.layers";
    (count > most).then(|| Problem::new(path, TOO_LARGE, message))
}

fn batches(asked: &Transfer, samples: u64) -> Vec<Problem> {
    let (given, accumulate) = (
        asked.hyperparameters.batch_size.value(),
        asked.hyperparameters.accumulate.value(),
    );
    let batch_size = given.unwrap_or_else(|| defaults::batch_size(samples));
    let most = samples.div_ceil(batch_size);
    let mut problems = Vec::new();
    if given.is_some_and(|size| size > samples) && samples > 0 {
        let message = format!(
            "batch_size is {batch_size}, but only {samples} samples train; give at most {samples}"
        );
        problems.push(problem("batch_size", BATCH_TOO_LARGE, message));
    } else if let Some(accumulate) = accumulate.filter(|&number| number > most)
        && samples > 0
    {
        let message = format!(
            "accumulate is {accumulate}, but {samples} samples make only {most} batches of {batch_size}; give at most {most}"
        );
        problems.push(problem("accumulate", BATCH_TOO_LARGE, message));
    }
    if batch_size == 1 && asked.head.layers().contains(&HeadLayer::BatchNorm) {
        let message = "a batch of one sample has no statistics for the head's batch_norm; give a batch_size of at least 2";
        problems.push(problem("batch_size", CONTRADICTION, message));
    }
    problems
}

/// Shards of no sample, or of too few for BatchNorm.
fn shards(asked: &Transfer, samples: u64) -> Option<Problem> {
    let asked_batch = asked.hyperparameters.batch_size.value();
    let batch_size = asked_batch.unwrap_or_else(|| defaults::batch_size(samples));
    let shards = asked
        .hyperparameters
        .shards
        .value()
        .filter(|&count| count > 1)?;
    let takes_statistics = asked.hyperparameters.batch_norm == Auto::Value(BatchNorm::Update)
        || asked.head.layers().contains(&HeadLayer::BatchNorm);
    let (least, reason) = match takes_statistics {
        true => (FEWEST_STATISTICS, ", too few for BatchNorm's statistics"),
        false => (1, ""),
    };
    let most = (batch_size / least).max(1);
    let message = format!(
        "{shards} shards of a batch of {batch_size} have {} samples each{reason}; give at most {most}",
        batch_size / shards
    );
    (shards > most).then(|| problem("shards", CONTRADICTION, message))
}

fn warmup(asked: &Transfer) -> Option<Problem> {
    let asked = &asked.hyperparameters;
    let message =
        "one_cycle has a warm-up of its own; leave warmup_fraction out or choose another schedule";
    (asked.schedule == Auto::Value(Schedule::OneCycle)
        && asked
            .warmup_fraction
            .value()
            .is_some_and(|share| share > 0.0))
    .then(|| problem("warmup_fraction", CONTRADICTION, message))
}

fn coarse_features(asked: &Transfer, is_frozen: bool) -> Option<Problem> {
    let precision = asked.hyperparameters.features_precision;
    let message = "features are computed in advance only while the whole backbone is frozen; leave features_precision out, ask for `precision`, or freeze all";
    (precision == Auto::Value(Precision::Bfloat16) && !is_frozen)
        .then(|| problem("features_precision", CONTRADICTION, message))
}

/// Options for a backbone that trains, under one that is frozen as a whole.
fn frozen_backbone(asked: &Transfer) -> Vec<Problem> {
    let asked = &asked.hyperparameters;
    [
        (
            asked.layer_decay.value().is_some_and(|share| share < 1.0),
            "layer_decay",
            "layer_decay has no effect while the whole backbone is frozen; leave it out or freeze less",
        ),
        (
            asked.cutmix.value().is_some_and(|alpha| alpha > 0.0),
            "cutmix",
            "cutmix pastes pixels, but a frozen backbone reads each image once, before training; use mixup, which then adds up features, or freeze less",
        ),
        (
            asked.backbone_learning_rate != Auto::Auto,
            "backbone_learning_rate",
            "backbone_learning_rate has no effect while the whole backbone is frozen; leave it out or freeze less",
        ),
        (
            asked.shards.value().is_some_and(|count| count > 1),
            "shards",
            "a batch runs in shards only while some of the backbone trains, and the whole backbone is frozen; leave shards out or freeze less",
        ),
        (
            asked.precision == Auto::Value(Precision::Bfloat16),
            "precision",
            "bfloat16 is for the part of the backbone that trains, and the whole backbone is frozen; leave precision out or freeze less",
        ),
    ]
    .into_iter()
    .filter(|(given, ..)| *given)
    .map(|(_, option, message)| problem(option, CONTRADICTION, message))
    .collect()
}

/// With an adapter, `update` is refused by the adapter.
fn batch_norm(asked: &Transfer, layers: &Layers, is_frozen: bool) -> Option<Problem> {
    if asked.hyperparameters.batch_norm != Auto::Value(BatchNorm::Update) || asked.adapter.is_some()
    {
        return None;
    }
    let message = if !layers.has_batch_norm() {
        "this model has no BatchNorm to update; leave batch_norm out"
    } else if is_frozen {
        "a frozen backbone never updates BatchNorm; leave batch_norm out or freeze less"
    } else {
        return None;
    };
    Some(problem("batch_norm", CONTRADICTION, message))
}

/// A phase of a freeze schedule that would begin after the end of training.
fn late_phase(asked: &Transfer, trained: &Trained) -> Option<Problem> {
    let last = trained.last_phase();
    let given = asked.hyperparameters.n_epochs.value();
    let n_epochs = given.unwrap_or_else(|| defaults::n_epochs(last, false).0);
    let message = format!(
        "the schedule's last entry begins at_epoch {last}, but there are only {n_epochs} epochs; give an n_epochs above {last}"
    );
    (last > 0 && last >= n_epochs).then(|| contradiction("freeze", message))
}
