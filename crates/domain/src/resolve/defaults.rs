//! What `"auto"` means.

use crate::{
    augmentation::{Augmentation, RandomResizedCrop},
    limits,
    recipe::{BatchNorm, HeadInit, Optimizer},
};

/// A head's peak rate on features of unit order.
pub(super) fn head_rate(optimizer: Optimizer) -> (f64, &'static str) {
    match optimizer {
        Optimizer::Adamw => (1e-3, "AdamW's own default in PyTorch"),
        Optimizer::Sgd | Optimizer::Nesterov => (1e-2, "usual for a new head with SGD"),
    }
}

/// With a freeze schedule whose last entry begins then.
pub(super) fn default_epochs(last_phase: u64) -> u64 {
    (last_phase + 5).clamp(10, *limits::EPOCHS.end())
}

pub(super) fn default_batch_size(samples: u64) -> u64 {
    samples.clamp(1, 32)
}

/// The backbone's peak rate, for a head's of `head_rate`, chosen or not: measured for AdamW on a network with BatchNorm
/// (docs/recipes.md); a tenth is usual for others, and ten times that for adapters (Schulman & Thinking Machines Lab 2025,
/// "LoRA Without Regret").
pub(super) fn backbone_rate(
    optimizer: Optimizer,
    head_rate: f64,
    (has_batch_norm, adapts): (bool, bool),
) -> (f64, &'static str) {
    match optimizer {
        _ if adapts => (head_rate, "ten times full fine-tuning's, as adapters need"),
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

/// SGD's is L2 on every tensor, BatchNorm's scales and biases among them: BiT trains without (Kolesnikov et al. 2020).
pub(super) fn weight_decay(optimizer: Optimizer, head_only: bool) -> (f64, &'static str) {
    match optimizer {
        _ if head_only => (0.0, "a head on frozen features is chosen by validation"),
        Optimizer::Adamw => (0.01, "usual for fine-tuning with AdamW"),
        Optimizer::Sgd | Optimizer::Nesterov => (0.0, "usual for fine-tuning with SGD"),
    }
}

pub(super) fn batch_norm(
    has_batch_norm: bool,
    head_only: bool,
    init: HeadInit,
    batch_size: u64,
) -> (BatchNorm, &'static str) {
    match (head_only, init, batch_size) {
        _ if !has_batch_norm => (BatchNorm::Frozen, "the network has no BatchNorm"),
        (true, ..) => (BatchNorm::Frozen, "the whole backbone is frozen"),
        (false, HeadInit::Probe, _) => (
            BatchNorm::Frozen,
            "the head begins at a probe of features under the running statistics",
        ),
        (false, _, 16..) => (
            BatchNorm::Update,
            "a batch of 16 or more has usable statistics",
        ),
        (false, ..) => (
            BatchNorm::Frozen,
            "fewer than 16 samples a batch have no usable statistics",
        ),
    }
}

/// Training samples from which on more variety than the data have is worth its price in speed of learning (BiT's rule for
/// mixup, Kolesnikov et al. 2020).
const LARGE: u64 = 20_000;

/// How training images are altered: gently, since a pre-trained backbone has seen such changes; more where data last long. No
/// mirror images: whether they mean the same only the user knows.
pub(super) fn augmentation(head_only: bool, samples: u64) -> (Option<Augmentation>, &'static str) {
    let (smallest, why) = match (head_only, samples) {
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
    (Some(augmentation), why)
}

/// Views of each sample under a backbone that is frozen for so many epochs.
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
pub(super) fn mixup(head_only: bool, samples: u64) -> (f64, &'static str) {
    match (head_only, samples) {
        (false, LARGE..) => (0.1, "BiT's value from 20,000 samples on"),
        _ => (
            0.0,
            "fewer samples than 20,000, or a frozen backbone, learn better from whole ones",
        ),
    }
}
