//! What a user asks for: the body of `POST /v1/fine_tuning/jobs`, read with all its problems at once.

pub mod adapter;
pub mod augmentation;
pub mod freeze;
pub mod head;
pub mod hyperparameters;
pub mod transfer;

use std::{cell::RefCell, collections::BTreeMap};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

pub use self::{
    adapter::{AdapterKind, AdapterTargets, AllLinear, RequestedAdapter},
    augmentation::{AugmentationOff, ChosenAugmentation, RequestedAugmentation},
    freeze::{Freeze, ScheduledFreeze},
    head::RequestedHead,
    hyperparameters::{
        ClassWeightRule, ClassWeights, ClipOff, EmaDecay, EmaOff, GradientClip, Hyperparameters,
    },
    transfer::{LabelRule, RequestedEarlyStopping, Transfer},
};
use self::{hyperparameters::openai_hyperparameters, transfer::transfer};
use crate::{
    fields::{Fields, INVALID_VALUE, OUT_OF_RANGE, Read, integer, parsed, text, word, wrong_type},
    id::FileId,
    limits,
    problem::{Code, Problem},
};

/// Two options that cannot both hold.
pub const CONTRADICTION: Code = "contradiction";

/// Characters of a model's name, base or fine-tuned.
const MODEL_NAME_CHARACTERS: usize = 255;

/// `"auto"`, or a value of one's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Auto<T> {
    #[default]
    #[serde(with = "auto_word")]
    Auto,
    Value(T),
}

/// A fine-tuning job as asked for; what is left out is its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobRequest {
    /// A base model's id; or a fine-tuned model's or a checkpoint's, to go on from.
    pub model: String,
    /// A data set, uploaded with purpose `fine-tune`.
    pub training_file: FileId,
    /// A second data set that is the validation split; otherwise the training file is split.
    pub validation_file: Option<FileId>,
    /// The part of the model's name that the user chooses: letters, digits, `-`, `_`, `.`.
    pub suffix: Option<String>,
    /// Drawn at random when left out.
    pub seed: Option<u64>,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// 0 (first) to 4 (last).
    pub priority: u8,
    pub timeout_seconds: u64,
    pub transfer: Transfer,
}

/// Reads the body of a request.
///
/// # Errors
/// Every problem in it, each with its path: unknown names, wrong types, values out of bounds, contradictions.
pub fn parse(body: &Value) -> Result<JobRequest, Vec<Problem>> {
    let (request, problems) = read(body);
    request.filter(|_| problems.is_empty()).ok_or(problems)
}

/// Reads as much as can be read, and every problem, as `parse` gives them: what is wrong has its default, so that the rest can
/// be checked too. `None` where the model or the training file is missing or wrong.
pub fn read(body: &Value) -> (Option<JobRequest>, Vec<Problem>) {
    let problems = RefCell::default();
    let request = Fields::new(body, "", &problems).and_then(job);
    (request, problems.into_inner())
}

/// `None` only when a required field is missing or wrong, which is then among the problems.
fn job(fields: Fields<'_>) -> Option<JobRequest> {
    let model = fields.required("model", text(MODEL_NAME_CHARACTERS));
    let training_file = fields.required("training_file", parsed);
    let validation_file = fields.optional("validation_file", parsed);
    let suffix = fields.optional("suffix", suffix);
    // Postgres' bigint ends where i64 does.
    let seed = fields.optional("seed", integer(0..=i64::MAX as u64));
    let metadata = fields.optional("metadata", metadata).unwrap_or_default();
    let priority = fields.optional("priority", integer(0..=4)).unwrap_or(2) as u8;
    let timeout_seconds = fields
        .optional("timeout_seconds", integer(limits::TIMEOUT_SECONDS))
        .unwrap_or(86_400);
    fields.neutral("integrations", &[json!([])]);
    let mut transfer = fields
        .object("method")
        .map_or_else(Transfer::default, method);
    if let Some(hyperparameters) = fields.object("hyperparameters") {
        if fields.get("method").is_some() {
            let message = "give either `method` or OpenAI's older `hyperparameters`, not both";
            fields.problem("hyperparameters", CONTRADICTION, message);
        }
        transfer.hyperparameters = openai_hyperparameters(hyperparameters);
    }
    fields.finish();
    Some(JobRequest {
        model: model?,
        training_file: training_file?,
        validation_file,
        suffix,
        seed,
        metadata,
        priority,
        timeout_seconds,
        transfer,
    })
}

/// `method`: ours, or OpenAI's `supervised`, which means the default transfer with its three hyperparameters.
fn method(fields: Fields<'_>) -> Transfer {
    let kind: Option<String> = fields.required("type", word(&["transfer", "supervised"]));
    let ours = fields.object("transfer");
    let supervised = fields.object("supervised");
    let transfer = match kind.as_deref() {
        Some("supervised") => {
            if ours.is_some() {
                fields.problem(
                    "transfer",
                    CONTRADICTION,
                    "`method.transfer` needs `\"type\": \"transfer\"`",
                );
            }
            let hyperparameters = supervised.and_then(|supervised| {
                let inner = supervised
                    .object("hyperparameters")
                    .map(openai_hyperparameters);
                supervised.finish();
                inner
            });
            Transfer {
                hyperparameters: hyperparameters.unwrap_or_default(),
                ..Transfer::default()
            }
        }
        _ => {
            if supervised.is_some() {
                fields.problem(
                    "supervised",
                    CONTRADICTION,
                    "`method.supervised` needs `\"type\": \"supervised\"`",
                );
            }
            ours.map_or_else(Transfer::default, transfer)
        }
    };
    fields.finish();
    transfer
}

fn suffix(value: &Value) -> Read<String> {
    let suffix = text(limits::SUFFIX_CHARACTERS)(value)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if suffix.is_empty() || !suffix.chars().all(allowed) {
        return Err((
            INVALID_VALUE,
            "must be of letters, digits, `-`, `_` and `.`, at least one".to_owned(),
        ));
    }
    Ok(suffix)
}

fn metadata(value: &Value) -> Read<BTreeMap<String, String>> {
    let Value::Object(object) = value else {
        return Err(wrong_type("an object of texts", value));
    };
    if object.len() > limits::METADATA_ENTRIES {
        let message = format!(
            "must hold at most {} entries, not {}",
            limits::METADATA_ENTRIES,
            object.len()
        );
        return Err((OUT_OF_RANGE, message));
    }
    object
        .iter()
        .map(|(key, value)| {
            text(limits::METADATA_KEY_CHARACTERS)(&Value::String(key.clone()))
                .map_err(|(code, message)| (code, format!("key {message}")))?;
            let value = text(limits::METADATA_VALUE_CHARACTERS)(value)
                .map_err(|(code, message)| (code, format!("`{key}` {message}")))?;
            Ok((key.clone(), value))
        })
        .collect()
}

mod auto_word {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("auto")
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        let word = String::deserialize(deserializer)?;
        if word == "auto" {
            Ok(())
        } else {
            Err(D::Error::custom("expected \"auto\""))
        }
    }
}

#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod tests;
