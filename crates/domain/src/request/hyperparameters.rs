//! `hyperparameters`: ours and OpenAI's three, as asked for.

use std::{
    collections::BTreeMap,
    ops::{Bound, RangeInclusive},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Auto;
use crate::{
    fields::{Fields, OUT_OF_RANGE, Read, integer, number, word},
    limits,
    recipe::{BatchNorm, Loss, Optimizer, Precision, Schedule},
};

/// What a learning rate may be multiplied by.
const LEARNING_RATE_MULTIPLIER: RangeInclusive<f64> = 1e-4..=1e4;
/// What the rate of a stage may be of the next one's.
const ABOVE_ZERO: (Bound<f64>, Bound<f64>) = (Bound::Excluded(0.0), Bound::Included(1.0));

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Hyperparameters {
    pub n_epochs: Auto<u64>,
    pub batch_size: Auto<u64>,
    pub learning_rate: Auto<f64>,
    pub backbone_learning_rate: Auto<f64>,
    /// Multiplies both learning rates, chosen or not.
    pub learning_rate_multiplier: Auto<f64>,
    pub optimizer: Auto<Optimizer>,
    pub weight_decay: Auto<f64>,
    pub schedule: Auto<Schedule>,
    pub warmup_fraction: Auto<f64>,
    pub layer_decay: Auto<f64>,
    pub accumulate: Auto<u64>,
    pub loss: Auto<Loss>,
    pub label_smoothing: Auto<f64>,
    pub mixup: Auto<f64>,
    pub cutmix: Auto<f64>,
    pub class_weights: Auto<ClassWeights>,
    /// `none`, or the largest norm.
    pub gradient_clip: Auto<GradientClip>,
    /// `none`, or the share that the average keeps.
    pub ema_decay: Auto<EmaDecay>,
    pub batch_norm: Auto<BatchNorm>,
    pub precision: Auto<Precision>,
}

/// How much each class counts in the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", untagged)]
pub enum ClassWeights {
    /// `none`: all alike. `balanced`: in inverse proportion to its training samples.
    Rule(ClassWeightRule),
    /// By class name; a class that is not named weighs 1.
    Given(BTreeMap<String, f64>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeightRule {
    None,
    Balanced,
}

/// Whether the gradient's norm is limited.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum GradientClip {
    Off(ClipOff),
    Norm(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClipOff {
    None,
}

/// Whether the weights are averaged over steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum EmaDecay {
    Off(EmaOff),
    Decay(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EmaOff {
    None,
}

pub(super) fn openai_hyperparameters(fields: Fields<'_>) -> Hyperparameters {
    let hyperparameters = Hyperparameters {
        n_epochs: fields.auto("n_epochs", integer(limits::EPOCHS)),
        batch_size: fields.auto("batch_size", integer(limits::BATCH_SIZE)),
        learning_rate_multiplier: fields
            .auto("learning_rate_multiplier", number(LEARNING_RATE_MULTIPLIER)),
        ..Hyperparameters::default()
    };
    fields.finish();
    hyperparameters
}

pub(super) fn hyperparameters(fields: Fields<'_>) -> Hyperparameters {
    let hyperparameters = Hyperparameters {
        n_epochs: fields.auto("n_epochs", integer(limits::EPOCHS)),
        batch_size: fields.auto("batch_size", integer(limits::BATCH_SIZE)),
        learning_rate: fields.auto("learning_rate", number(limits::LEARNING_RATE)),
        backbone_learning_rate: fields
            .auto("backbone_learning_rate", number(limits::LEARNING_RATE)),
        learning_rate_multiplier: fields
            .auto("learning_rate_multiplier", number(LEARNING_RATE_MULTIPLIER)),
        optimizer: fields.auto("optimizer", word(&["sgd", "nesterov", "adamw"])),
        weight_decay: fields.auto("weight_decay", number(limits::WEIGHT_DECAY)),
        schedule: fields.auto(
            "schedule",
            word(&["constant", "cosine", "linear", "step", "one_cycle"]),
        ),
        warmup_fraction: fields.auto("warmup_fraction", number(0.0..=1.0)),
        layer_decay: fields.auto("layer_decay", number(ABOVE_ZERO)),
        accumulate: fields.auto("accumulate", integer(limits::ACCUMULATE)),
        loss: fields.auto(
            "loss",
            word(&["cross_entropy", "binary_cross_entropy", "mse", "huber"]),
        ),
        label_smoothing: fields.auto("label_smoothing", number(0.0..1.0)),
        mixup: fields.auto("mixup", number(limits::MIX_ALPHA)),
        cutmix: fields.auto("cutmix", number(limits::MIX_ALPHA)),
        class_weights: fields.auto("class_weights", class_weights),
        gradient_clip: fields.auto("gradient_clip", gradient_clip),
        ema_decay: fields.auto("ema_decay", ema_decay),
        batch_norm: fields.auto("batch_norm", word(&["frozen", "update"])),
        precision: fields.auto("precision", word(&["float32", "bfloat16"])),
    };
    fields.finish();
    hyperparameters
}

fn class_weights(value: &Value) -> Read<ClassWeights> {
    let Value::Object(weights) = value else {
        return word(&["none", "balanced"])(value)
            .map(ClassWeights::Rule)
            .map_err(|(code, message)| {
                (code, format!("{message}, or an object of weights by class"))
            });
    };
    if weights.is_empty() || weights.len() > limits::CLASSES {
        let message = format!(
            "must name from 1 to {} classes, not {}",
            limits::CLASSES,
            weights.len()
        );
        return Err((OUT_OF_RANGE, message));
    }
    let weight = |(class, weight): (&String, &Value)| match number(limits::CLASS_WEIGHT)(weight) {
        Ok(weight) => Ok((class.clone(), weight)),
        Err((code, message)) => Err((code, format!("of class `{class}` {message}"))),
    };
    weights
        .iter()
        .map(weight)
        .collect::<Read<_>>()
        .map(ClassWeights::Given)
}

fn gradient_clip(value: &Value) -> Read<GradientClip> {
    if value == "none" {
        return Ok(GradientClip::Off(ClipOff::None));
    }
    number(1e-6..=1e6)(value)
        .map(GradientClip::Norm)
        .map_err(|(code, message)| (code, format!("{message}, or \"none\"")))
}

fn ema_decay(value: &Value) -> Read<EmaDecay> {
    if value == "none" {
        return Ok(EmaDecay::Off(EmaOff::None));
    }
    number((Bound::Excluded(0.0), Bound::Excluded(1.0)))(value)
        .map(EmaDecay::Decay)
        .map_err(|(code, message)| (code, format!("{message}, or \"none\"")))
}
