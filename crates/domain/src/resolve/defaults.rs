//! What `"auto"` means.

use crate::{
    augmentation::{Augmentation, RandomResizedCrop},
    limits,
    recipe::{BatchNorm, Optimizer},
};

/// A head's peak rate on features of unit order, measured on the clip-art set (docs/recipes.md).
pub(super) fn head_rate(optimizer: Optimizer) -> (f64, &'static str) {
    match optimizer {
        Optimizer::Adamw => (1e-3, "measured best of 1e-4 to 1e-1 for AdamW"),
        Optimizer::Sgd | Optimizer::Nesterov => (1e-2, "measured best of 1e-4 to 1e-1 for SGD"),
    }
}

/// The trunk's peak rate under a head of rate `head_rate`. Of adapters: Schulman & Thinking Machines Lab 2025, "LoRA Without
/// Regret".
pub(super) fn backbone_rate(head_rate: f64, adapts: bool) -> (f64, &'static str) {
    let full = head_rate / 10.0;
    if adapts {
        return (
            10.0 * full,
            "ten times full fine-tuning's, as adapters need",
        );
    }
    (
        full,
        "a tenth of the head's: pre-trained weights need small steps",
    )
}

/// With a freeze schedule whose last entry begins then.
pub(super) fn default_epochs(last_phase: u64) -> u64 {
    (last_phase + 5).clamp(10, *limits::EPOCHS.end())
}

pub(super) fn default_batch_size(samples: u64) -> u64 {
    samples.clamp(1, 32)
}

pub(super) fn batch_norm(head_only: bool, batch_size: u64) -> (BatchNorm, &'static str) {
    match (head_only, batch_size) {
        (true, _) => (BatchNorm::Frozen, "the whole trunk is frozen"),
        (false, 16..) => (
            BatchNorm::Update,
            "a batch of 16 or more has usable statistics",
        ),
        (false, _) => (
            BatchNorm::Frozen,
            "fewer than 16 samples a batch have no usable statistics",
        ),
    }
}

/// Training samples from which on more variety than the data have is worth its price in speed of learning (BiT's rule for
/// mixup, Kolesnikov et al. 2020).
const LARGE: u64 = 20_000;

/// How training pictures are altered: gently, since a pre-trained trunk has seen such changes; more where data last long.
pub(super) fn augmentation(head_only: bool, samples: u64) -> (Option<Augmentation>, &'static str) {
    let (smallest, why) = match (head_only, samples) {
        (true, _) => {
            return (None, "a frozen trunk reads each picture once");
        }
        (false, LARGE..) => (
            0.08,
            "ImageNet's crops and mirror images: 20,000 samples or more",
        ),
        (false, _) => (
            0.35,
            "mild crops and mirror images: fewer than 20,000 samples",
        ),
    };
    let crop = RandomResizedCrop {
        scale: [smallest, 1.0],
        ..RandomResizedCrop::default()
    };
    let augmentation = Augmentation {
        random_resized_crop: Some(crop),
        horizontal_flip: 0.5,
        ..Augmentation::default()
    };
    (Some(augmentation), why)
}

/// Views of each sample under a trunk that is frozen for so many epochs.
pub(super) fn views(frozen_epochs: u64) -> (u64, &'static str) {
    match frozen_epochs {
        0 => (0, "the trunk trains: every epoch alters pictures anew"),
        _ => (
            frozen_epochs.min(4),
            "each view costs a pass through the trunk",
        ),
    }
}

/// The alpha of `mixup`.
pub(super) fn mixup(head_only: bool, samples: u64) -> (f64, &'static str) {
    match (head_only, samples) {
        (false, LARGE..) => (0.1, "BiT's value from 20,000 samples on"),
        _ => (
            0.0,
            "fewer samples than 20,000, or a frozen trunk, learn better from whole ones",
        ),
    }
}
