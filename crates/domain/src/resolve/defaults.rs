//! The defaults that depend on the request or the data, each with its reason.

use super::data::Data;
use crate::{
    augmentation::{Augmentation, RandomResizedCrop},
    limits,
    recipe::{
        BatchNorm, HeadInit, HeadLayer, Loss, Metric, Optimizer, Precision, Schedule, Task,
        is_linear_head,
    },
    request::{Auto, Freeze, OrNone, Transfer},
};

/// Training samples from which more variety than the data have is worth slower learning (BiT's rule
/// for mixup, Kolesnikov et al. 2020).
const LARGE: u64 = 20_000;

/// Samples of a class from which training the backbone pays off (docs/recipes.md).
const ENOUGH: u64 = 10;
/// Number of classes that a regression counts as.
const CLASSES_OF_REGRESSION: u64 = 10;

/// The freeze policy, by the number of training samples of each class.
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

/// How the head's weights start.
pub(super) fn head_init(
    task: Task,
    keeps_head: bool,
    layers: &[HeadLayer],
) -> (HeadInit, &'static str) {
    if !keeps_head && is_linear_head(layers) {
        let reason = "the best linear head on fixed features: training starts there, and its result is no worse on the validation split";
        return (HeadInit::Probe, reason);
    }
    let reason = match task {
        _ if keeps_head => {
            "the head goes on; new rows start at the mean of the old ones, so that no prediction changes at first"
        }
        Task::SingleLabelClassification => {
            "the first loss is then ln(classes), whatever the features"
        }
        Task::MultiLabelClassification => "each label then starts at a probability of one half",
        Task::Regression => "training then starts at the mean of its numbers",
    };
    (HeadInit::Zero, reason)
}

/// Epochs, with a freeze schedule whose last entry begins at `last_phase`.
pub(super) fn n_epochs(last_phase: u64, head_only: bool) -> (u64, &'static str) {
    if last_phase > 0 {
        let epochs = (last_phase + 5).clamp(10, *limits::EPOCHS.end());
        (
            epochs,
            "at least 5 epochs after the last change of what is frozen",
        )
    } else if head_only {
        (30, "cached features make epochs cheap")
    } else {
        (10, "each epoch runs the backbone")
    }
}

pub(super) fn batch_size(samples: u64) -> u64 {
    samples.clamp(1, 32)
}

/// A head's peak rate on features of unit order.
pub(super) fn head_rate(optimizer: Optimizer) -> (f64, &'static str) {
    match optimizer {
        Optimizer::Adamw => (1e-3, "AdamW's own default in PyTorch"),
        Optimizer::Sgd | Optimizer::Nesterov => (1e-2, "usual for a new head with SGD"),
    }
}

/// The backbone's peak rate, for a head's of `head_rate`, chosen or not. Half of it was measured
/// for AdamW on a network with BatchNorm (docs/recipes.md); a tenth is usual for others, and ten
/// times that for adapters (Schulman & Thinking Machines Lab 2025, "LoRA Without Regret").
pub(super) fn backbone_rate(
    optimizer: Optimizer,
    head_rate: f64,
    (has_batch_norm, has_adapter): (bool, bool),
) -> (f64, &'static str) {
    match optimizer {
        _ if has_adapter => (head_rate, "ten times full fine-tuning's, as adapters need"),
        Optimizer::Adamw if has_batch_norm => (
            head_rate / 2.0,
            "half the head's: measured best of 1, 1/2 and 1/10 for AdamW and networks with BatchNorm",
        ),
        _ => (
            head_rate / 10.0,
            "a tenth of the head's: pre-trained weights need small steps",
        ),
    }
}

/// With SGD, weight decay is L2 on every tensor, BatchNorm's scales and biases included: BiT trains
/// without it (Kolesnikov et al. 2020).
pub(super) fn weight_decay(optimizer: Optimizer, head_only: bool) -> (f64, &'static str) {
    match optimizer {
        _ if head_only => (0.0, "a head on frozen features is chosen by validation"),
        Optimizer::Adamw => (0.01, "usual for fine-tuning with AdamW"),
        Optimizer::Sgd | Optimizer::Nesterov => (0.0, "usual for fine-tuning with SGD"),
    }
}

pub(super) fn warmup(schedule: Schedule, head_only: bool) -> (f64, &'static str) {
    if schedule == Schedule::OneCycle {
        (0.0, "one_cycle has a warm-up of its own")
    } else if head_only {
        (0.0, "nothing pre-trained to protect")
    } else {
        let reason = "keeps a new head's first gradients from upsetting the backbone";
        (0.1, reason)
    }
}

pub(super) fn loss(task: Task) -> (Loss, &'static str) {
    let reason = match task {
        Task::SingleLabelClassification => "the likelihood of one class a sample",
        Task::MultiLabelClassification => "the likelihood of each label by itself",
        Task::Regression => "minimized by the mean, as R2 and RMSE ask for",
    };
    (Loss::of(task)[0], reason)
}

pub(super) fn metric(task: Task) -> (Metric, &'static str) {
    let reason = match task {
        Task::SingleLabelClassification => {
            "what a user of the model sees; ties go to the lower loss"
        }
        Task::MultiLabelClassification => "needs no thresholds, which are chosen afterwards",
        Task::Regression => "the error in the unit of the numbers",
    };
    (Metric::default_of(task), reason)
}

pub(super) fn gradient_clip(head_only: bool) -> (OrNone<f64>, &'static str) {
    if head_only {
        (OrNone::None, "a head on fixed features needs none")
    } else {
        (OrNone::Value(1.0), "usual for fine-tuning")
    }
}

/// `frozen` is true when the backbone keeps its weights. A shard has so many `samples`.
pub(super) fn batch_norm(
    (has_batch_norm, frozen): (bool, bool),
    init: HeadInit,
    samples: u32,
) -> (BatchNorm, &'static str) {
    let reason = match (init, samples) {
        _ if !has_batch_norm => "the network has no BatchNorm",
        _ if frozen => "the whole backbone is frozen",
        (HeadInit::Probe, _) => {
            "the head starts from a probe of features under the running statistics"
        }
        (_, 16..) => {
            let reason = "16 samples and more have usable statistics";
            return (BatchNorm::Update, reason);
        }
        _ => "fewer than 16 samples have no usable statistics",
    };
    (BatchNorm::Frozen, reason)
}

/// Mild changes, since a pre-trained backbone has seen such already; stronger ones for large data.
/// No mirror images: only the user knows whether they mean the same.
pub(super) fn augmentation(head_only: bool, samples: u64) -> (Option<Augmentation>, &'static str) {
    let (smallest, reason) = match (head_only, samples) {
        (true, _) => {
            return (None, "a frozen backbone reads each image once");
        }
        (false, LARGE..) => (0.08, "ImageNet's crops: 20,000 samples or more"),
        (false, _) => (0.6, "mild crops: fewer than 20,000 samples"),
    };
    let crop = RandomResizedCrop {
        scale: [smallest, 1.0],
        ..RandomResizedCrop::default()
    };
    let augmentation = Augmentation {
        random_resized_crop: Some(crop),
        ..Augmentation::default()
    };
    (Some(augmentation), reason)
}

/// Views of each sample under a backbone that is frozen for this many epochs.
pub(super) fn views(frozen_epochs: u64) -> (u64, &'static str) {
    match frozen_epochs {
        0 => (0, "the backbone trains: every epoch alters images anew"),
        _ => (
            frozen_epochs.min(4),
            "each view costs a pass through the backbone",
        ),
    }
}

/// The alpha of `mixup`.
pub(super) fn mixup(task: Task, head_only: bool, samples: u64) -> (f64, &'static str) {
    match (task, head_only, samples) {
        (Task::MultiLabelClassification, ..) => (0.0, "thresholds are chosen on whole labels"),
        (Task::Regression, ..) => (0.0, "it mixes classes, not numbers"),
        (_, false, LARGE..) => (0.1, "BiT's value from 20,000 samples on"),
        _ => (
            0.0,
            "with fewer samples than 20,000, or a frozen backbone, whole samples are learned better",
        ),
    }
}
