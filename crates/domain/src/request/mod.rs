//! Requests: the bodies of `POST /v1/fine_tuning/jobs` and `POST /v1/base_models`, read with all
//! their problems at once.
//!
//! Each option is declared once, with its type, range, default and documentation; the reader and
//! the schema in openapi.yaml follow from that (see `options`).

mod adapter;
mod augmentation;
mod base_model;
mod freeze;
mod head;
mod hub_dataset;
mod hyperparameters;
mod method;
mod push;
mod ranking;
mod transfer;

use std::{cell::RefCell, collections::BTreeMap};

use serde_json::{Value, json};

use self::method::MethodField;
pub use self::{
    adapter::{AdapterKind, AdapterOptions, AdapterTargets},
    augmentation::AugmentationOptions,
    base_model::{BaseModelRequest, Weights},
    freeze::{Freeze, ScheduledFreeze},
    head::HeadOptions,
    hub_dataset::{DatasetPurpose, HubDatasetRequest},
    hyperparameters::{ClassWeightRule, ClassWeights, Hyperparameters, OpenAiHyperparameters},
    method::{MethodOptions, MethodType, Supervised},
    push::PushRequest,
    ranking::RankingRequest,
    transfer::{EarlyStoppingOptions, LabelRule, Transfer},
};
pub use crate::auto::{Auto, OrNone};
use crate::{
    codes::{CONTRADICTION, INVALID_VALUE, OUT_OF_RANGE, UNKNOWN_FIELD},
    fields::Fields,
    id::FileId,
    limits,
    options::{Group, Optional, Or, options, read_all, required},
    problem::Problem,
    ranking::{AUTO, CandidateOptions},
    rules::{Components, Id, Integer, Invalid, Parsed, Rule, Text},
};

options! {
    /// A job to create. Everything but `model` and `training_file` has a default.
    pub struct JobRequest {
        /// The id of a base model, or of a fine-tuned model or checkpoint whose backbone and head
        /// the job starts from. `auto`: the base model whose features fit the training data best.
        model: String = required(Text(limits::MODEL_NAME_CHARACTERS)),
        /// Which base models `"model": "auto"` chooses from; left out, all that are ready.
        #[serde(default)]
        candidates: CandidateOptions = Group,
        /// A data set, uploaded with purpose `fine-tune`.
        training_file: FileId = required(Id),
        /// A second data set, used as the validation split; without it the training file is split.
        validation_file: Option<FileId> = Optional(Id),
        /// Your part of the model's name: letters, digits, `-`, `_`, `.`.
        suffix: Option<String> = Optional(Suffix),
        /// Drawn at random if left out.
        seed: Option<u64> = Optional(Integer(limits::SEED)),
        /// Your own keys and values.
        metadata: BTreeMap<String, String> = Or(BTreeMap::new(), Metadata),
        /// 0 (first) to 4 (last).
        priority: u8 = Or(2, Integer(limits::PRIORITY)),
        /// Limit on the running time of all attempts together; neither waiting nor pauses count.
        timeout_seconds: u64 = Or(86_400, Integer(limits::TIMEOUT_SECONDS)),
        transfer: Transfer = MethodField,
    }
}

/// Reads the body of a request.
///
/// # Errors
/// Every problem in it, each with its path: unknown names, wrong types, values out of range,
/// contradictions.
pub fn parse(body: &Value) -> Result<JobRequest, Vec<Problem>> {
    let (request, problems) = read(body);
    request.filter(|_| problems.is_empty()).ok_or(problems)
}

/// Reads as much as possible, and every problem, as `parse` gives them. An invalid option has its
/// default, so that the rest can be checked too. `None` if the model or the training file is
/// missing or invalid.
pub fn read(body: &Value) -> (Option<JobRequest>, Vec<Problem>) {
    let problems = RefCell::default();
    let request: Option<JobRequest> = Fields::new(body, "", &problems).and_then(read_all);
    let mut problems = problems.into_inner();
    problems.iter_mut().for_each(name_place);
    let has_candidates = body.get("candidates").is_some_and(|given| !given.is_null());
    if has_candidates && request.as_ref().is_some_and(|request| !request.is_auto()) {
        let message = "are for `\"model\": \"auto\"`; leave them out, or have the model chosen";
        problems.push(Problem::new("candidates", CONTRADICTION, message));
    }
    (request, problems)
}

/// Names the place of an option that stands elsewhere, such as `n_epochs` beside the model.
fn name_place(problem: &mut Problem) {
    if problem.code != UNKNOWN_FIELD {
        return;
    }
    let name = problem.path.rsplit('.').next().unwrap_or_default();
    let has = |options: Value| options.get(name).is_some();
    let hyperparameters = "method.transfer.hyperparameters";
    let place = if has(json!(Hyperparameters::default())) {
        hyperparameters
    } else if has(json!(Transfer::default())) {
        "method.transfer"
    } else {
        return;
    };
    problem.message = format!(
        "unknown field `{}`; its place is `{place}.{name}`",
        problem.path
    );
}

impl JobRequest {
    /// True when the model is to be chosen.
    pub fn is_auto(&self) -> bool {
        self.model == AUTO
    }
}

struct Suffix;

impl Rule<String> for Suffix {
    fn read(&self, value: &Value) -> Parsed<String> {
        let suffix = Text(limits::SUFFIX_CHARACTERS).read(value)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if suffix.is_empty() || !suffix.chars().all(allowed) {
            let message = "must be of letters, digits, `-`, `_` and `.`, at least one";
            return Err(Invalid::new(INVALID_VALUE, message));
        }
        Ok(suffix)
    }

    fn schema(&self, components: &mut Components) -> Value {
        let mut schema = Text(limits::SUFFIX_CHARACTERS).schema(components);
        schema["pattern"] = json!("^[A-Za-z0-9._-]+$");
        schema
    }
}

struct Metadata;

impl Rule<BTreeMap<String, String>> for Metadata {
    fn read(&self, value: &Value) -> Parsed<BTreeMap<String, String>> {
        let wrong_type = || Invalid::wrong_type("an object of texts", value);
        let object = value.as_object().ok_or_else(wrong_type)?;
        if object.len() > limits::METADATA_ENTRIES {
            let (most, found) = (limits::METADATA_ENTRIES, object.len());
            let message = format!("must hold at most {most} entries, not {found}");
            return Err(Invalid::new(OUT_OF_RANGE, message));
        }
        let entry = |(key, value): (&String, &Value)| {
            let key = Text(limits::METADATA_KEY_CHARACTERS).read(&json!(key));
            let key = key.map_err(|invalid| invalid.at("key"))?;
            let value = Text(limits::METADATA_VALUE_CHARACTERS).read(value);
            let value = value.map_err(|invalid| invalid.at(format!("`{key}`")))?;
            Ok((key, value))
        };
        object.iter().map(entry).collect()
    }

    fn schema(&self, components: &mut Components) -> Value {
        json!({
            "type": "object",
            "maxProperties": limits::METADATA_ENTRIES,
            "propertyNames": Text(limits::METADATA_KEY_CHARACTERS).schema(components),
            "additionalProperties": Text(limits::METADATA_VALUE_CHARACTERS).schema(components),
        })
    }
}

#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod tests;
