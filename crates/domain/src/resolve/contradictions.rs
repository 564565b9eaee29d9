//! Options that would silently do nothing, or cannot hold together.

use super::{
    BATCH_TOO_LARGE,
    defaults::{default_batch_size, default_epochs},
};
use crate::{
    base_model::Layers,
    problem::Problem,
    recipe::{BatchNorm, HeadInit, HeadLayer, Precision, Schedule, is_linear_head},
    request::{Auto, CONTRADICTION, JobRequest},
};

/// Options that would silently do nothing.
pub(super) fn contradictions(
    request: &JobRequest,
    layers: &Layers,
    backbone_is_frozen: bool,
    samples: u64,
) -> Vec<Problem> {
    let asked = &request.transfer.hyperparameters;
    let mut problems = Vec::new();
    let head = &request.transfer.head;
    if head.init == Auto::Value(HeadInit::Probe) && !is_linear_head(head.layers()) {
        let message = "a probe is one linear layer on the features; leave `init` out, or all head layers but dropout";
        problems.push(Problem::new(
            "method.transfer.head.init",
            CONTRADICTION,
            message,
        ));
    }
    let mut contradiction = |option: &str, code, message: String| {
        problems.push(Problem::new(
            format!("method.transfer.hyperparameters.{option}"),
            code,
            message,
        ));
    };
    let batch_size = match asked.batch_size {
        Auto::Value(batch_size) => batch_size,
        Auto::Auto => default_batch_size(samples),
    };
    if let Auto::Value(batch_size) = asked.batch_size
        && batch_size > samples
        && samples > 0
    {
        let message = format!(
            "batch_size is {batch_size}, but only {samples} samples train; give at most {samples}"
        );
        contradiction("batch_size", BATCH_TOO_LARGE, message);
    } else if let Auto::Value(accumulate) = asked.accumulate
        && samples > 0
    {
        let most = samples.div_ceil(batch_size);
        if accumulate > most {
            let message = format!(
                "accumulate is {accumulate}, but {samples} samples make only {most} batches of {batch_size}; give at most {most}"
            );
            contradiction("accumulate", BATCH_TOO_LARGE, message);
        }
    }
    if batch_size == 1
        && request
            .transfer
            .head
            .layers()
            .contains(&HeadLayer::BatchNorm)
    {
        let message = "a batch of one sample has no statistics for the head's batch_norm; give a batch_size of at least 2";
        contradiction("batch_size", CONTRADICTION, message.to_owned());
    }
    if asked.schedule == Auto::Value(Schedule::OneCycle)
        && matches!(asked.warmup_fraction, Auto::Value(share) if share > 0.0)
    {
        let message = "one_cycle has a warm-up of its own; leave warmup_fraction out or choose another schedule";
        contradiction("warmup_fraction", CONTRADICTION, message.to_owned());
    }
    if backbone_is_frozen && matches!(asked.layer_decay, Auto::Value(share) if share < 1.0) {
        let message = "layer_decay has no effect while the whole backbone is frozen; leave it out or freeze less";
        contradiction("layer_decay", CONTRADICTION, message.to_owned());
    }
    if backbone_is_frozen && matches!(asked.cutmix, Auto::Value(alpha) if alpha > 0.0) {
        let message = "cutmix pastes pixels, but a frozen backbone reads each image once, ahead of training; use mixup, which then adds up features, or freeze less";
        contradiction("cutmix", CONTRADICTION, message.to_owned());
    }
    if backbone_is_frozen && asked.backbone_learning_rate != Auto::Auto {
        let message = "backbone_learning_rate has no effect while the whole backbone is frozen; leave it out or freeze less";
        contradiction("backbone_learning_rate", CONTRADICTION, message.to_owned());
    }
    if backbone_is_frozen && asked.precision == Auto::Value(Precision::Bfloat16) {
        let message = "bfloat16 is for the part of the backbone that trains, and the whole backbone is frozen; leave precision out or freeze less";
        contradiction("precision", CONTRADICTION, message.to_owned());
    }
    // With an adapter it is refused there.
    if asked.batch_norm == Auto::Value(BatchNorm::Update) && request.transfer.adapter.is_none() {
        if !layers.has_batch_norm() {
            let message = "this model has no BatchNorm to update; leave batch_norm out";
            contradiction("batch_norm", CONTRADICTION, message.to_owned());
        } else if backbone_is_frozen {
            let message =
                "a frozen backbone never updates BatchNorm; leave batch_norm out or freeze less";
            contradiction("batch_norm", CONTRADICTION, message.to_owned());
        }
    }
    problems
}

/// Phases of a freeze schedule that would begin when training is over.
pub(super) fn late_phases(request: &JobRequest, phases: &[(u64, Vec<String>)]) -> Vec<Problem> {
    let last = phases.last().map_or(0, |(at_epoch, _)| *at_epoch);
    let n_epochs = match request.transfer.hyperparameters.n_epochs {
        Auto::Value(n_epochs) => n_epochs,
        Auto::Auto => default_epochs(last),
    };
    let message = format!(
        "the schedule's last entry begins at_epoch {last}, but there are only {n_epochs} epochs; give an n_epochs above {last}"
    );
    let problem = Problem::new("method.transfer.freeze", CONTRADICTION, message);
    Vec::from_iter((last > 0 && last >= n_epochs).then_some(problem))
}
