//! `method.transfer`: how a base model becomes the user's, as asked for.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Auto,
    adapter::{self, RequestedAdapter},
    augmentation::{RequestedAugmentation, augmentation},
    freeze::{self, Freeze},
    head::{self, RequestedHead},
    hyperparameters::{self, Hyperparameters},
};
use crate::{
    fields::{Fields, INVALID_VALUE, Read, integer, number, text, word, wrong_type},
    limits,
    recipe::{EvaluateEvery, Metric, Task},
};

/// `method.transfer`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Transfer {
    pub task: Auto<Task>,
    /// `auto`, `pre_logits`, or a stage's name.
    #[schema(value_type = String)]
    pub cut: Auto<String>,
    /// `auto`, or which part of the backbone keeps its weights.
    pub freeze: Auto<Freeze>,
    /// What trains in the place of the backbone's own weights.
    #[serde(default)]
    pub adapter: Option<RequestedAdapter>,
    pub head: RequestedHead,
    /// What becomes of the labels of the model that the job goes on from.
    #[serde(default)]
    pub labels: Auto<LabelRule>,
    pub hyperparameters: Hyperparameters,
    pub augmentation: Auto<RequestedAugmentation>,
    pub early_stopping: RequestedEarlyStopping,
    #[serde(default)]
    pub evaluate_every: Auto<EvaluateEvery>,
    pub checkpoint_every_seconds: u64,
}

/// What becomes of the labels of the model that a job goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LabelRule {
    /// They stay; the file may have fewer.
    Keep,
    /// They keep their numbers, and the file's new ones follow: the head grows.
    Extend,
    /// The file's classes take their place, on a new head.
    Replace,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestedEarlyStopping {
    pub patience: Auto<u64>,
    pub metric: Auto<Metric>,
    pub min_delta: f64,
}

impl Default for Transfer {
    fn default() -> Self {
        Self {
            task: Auto::Auto,
            cut: Auto::Auto,
            freeze: Auto::Auto,
            adapter: None,
            head: RequestedHead::default(),
            labels: Auto::Auto,
            hyperparameters: Hyperparameters::default(),
            augmentation: Auto::Auto,
            early_stopping: RequestedEarlyStopping::default(),
            evaluate_every: Auto::Auto,
            checkpoint_every_seconds: 300,
        }
    }
}

pub(super) fn transfer(fields: Fields<'_>) -> Transfer {
    let defaults = Transfer::default();
    let transfer = Transfer {
        task: fields.auto(
            "task",
            word(&[
                "single_label_classification",
                "multi_label_classification",
                "regression",
            ]),
        ),
        cut: fields.auto("cut", text(limits::STAGE_CHARACTERS)),
        freeze: fields.auto("freeze", freeze::freeze),
        adapter: fields.object("adapter").and_then(adapter::adapter),
        head: fields.object("head").map_or(defaults.head, head::head),
        labels: fields.auto("labels", word(&["keep", "extend", "replace"])),
        hyperparameters: fields
            .object("hyperparameters")
            .map(hyperparameters::hyperparameters)
            .unwrap_or_default(),
        augmentation: augmentation(&fields),
        early_stopping: fields
            .object("early_stopping")
            .map_or(defaults.early_stopping, early_stopping),
        evaluate_every: fields.auto("evaluate_every", evaluate_every),
        checkpoint_every_seconds: fields
            .optional(
                "checkpoint_every_seconds",
                integer(limits::CHECKPOINT_SECONDS),
            )
            .unwrap_or(defaults.checkpoint_every_seconds),
    };
    fields.finish();
    transfer
}

fn evaluate_every(value: &Value) -> Read<EvaluateEvery> {
    let expected = "an object of one entry, {\"epochs\": 2} or {\"steps\": 500}";
    let entries = value
        .as_object()
        .ok_or_else(|| wrong_type(expected, value))?;
    let mut entries = entries.iter();
    match (entries.next(), entries.next()) {
        (Some((name, epochs)), None) if name == "epochs" => {
            integer(limits::EPOCHS)(epochs).map(|epochs| EvaluateEvery::Epochs(epochs as u32))
        }
        (Some((name, steps)), None) if name == "steps" => {
            integer(limits::EVALUATION_STEPS)(steps).map(EvaluateEvery::Steps)
        }
        _ => Err((INVALID_VALUE, format!("must be {expected}"))),
    }
}

/// As `Metric` has them.
const METRICS: [&str; 10] = [
    "valid_loss",
    "valid_accuracy",
    "valid_balanced_accuracy",
    "valid_macro_f1",
    "valid_micro_f1",
    "valid_mean_average_precision",
    "valid_roc_auc",
    "valid_r2",
    "valid_mae",
    "valid_rmse",
];

fn early_stopping(fields: Fields<'_>) -> RequestedEarlyStopping {
    let early_stopping = RequestedEarlyStopping {
        patience: fields.auto("patience", integer(limits::PATIENCE)),
        metric: fields.auto("metric", word(&METRICS)),
        min_delta: fields
            .optional("min_delta", number(0.0..=1e6))
            .unwrap_or(0.0),
    };
    fields.finish();
    early_stopping
}
