//! What a user asks for: the body of `POST /v1/fine_tuning/jobs`, read with all its problems at once.

use std::{cell::RefCell, collections::BTreeMap, ops::RangeInclusive};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    fields::{
        Fields, INVALID_VALUE, NOT_AVAILABLE, OUT_OF_RANGE, Read, integer, number, parsed, text,
        word, wrong_type,
    },
    id::FileId,
    limits,
    problem::{Code, Problem, suggestion},
    recipe::{BatchNorm, HeadInit, HeadLayer, Metric, Optimizer, Schedule, Task},
};

/// Two options that cannot both hold.
pub const CONTRADICTION: Code = "contradiction";

/// What a learning rate may be multiplied by.
const LEARNING_RATE_MULTIPLIER: RangeInclusive<f64> = 1e-4..=1e4;
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
    /// A base model's id.
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

/// `method.transfer`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Transfer {
    pub task: Auto<Task>,
    pub cut: String,
    pub freeze: Freeze,
    pub head: RequestedHead,
    pub hyperparameters: Hyperparameters,
    pub early_stopping: RequestedEarlyStopping,
    pub checkpoint_every_seconds: u64,
}

/// Which part of the trunk keeps its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Freeze {
    /// The whole trunk; only the head trains.
    All,
    /// Nothing: everything trains.
    None,
    /// All but the last n stages.
    LastStages(u64),
    /// The first n stages.
    FirstN(u64),
    /// At least this share of the parameters, counted in whole stages from the input side.
    Fraction(f64),
    /// These stages or blocks, by name.
    Blocks(Vec<String>),
    /// Parameters whose name matches.
    Regex(String),
    /// These parameters, by name.
    Names(Vec<String>),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestedHead {
    pub layers: Vec<HeadLayer>,
    pub init: Auto<HeadInit>,
}

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
    pub label_smoothing: Auto<f64>,
    pub gradient_clip: Auto<f64>,
    pub batch_norm: Auto<BatchNorm>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestedEarlyStopping {
    pub patience: Auto<u64>,
    pub metric: Auto<Metric>,
    pub min_delta: f64,
}

/// Reads the body of a request.
///
/// # Errors
/// Every problem in it, each with its path: unknown names, wrong types, values out of bounds, contradictions.
pub fn parse(body: &Value) -> Result<JobRequest, Vec<Problem>> {
    let problems = RefCell::default();
    let request = Fields::new(body, "", &problems).and_then(job);
    let problems = problems.into_inner();
    request.filter(|_| problems.is_empty()).ok_or(problems)
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

fn openai_hyperparameters(fields: Fields<'_>) -> Hyperparameters {
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

fn transfer(fields: Fields<'_>) -> Transfer {
    let defaults = Transfer::default();
    let transfer = Transfer {
        task: fields.auto("task", word(&["single_label_classification"])),
        cut: fields
            .optional("cut", word(&["pre_logits"]))
            .unwrap_or(defaults.cut),
        freeze: fields.optional("freeze", freeze).unwrap_or(defaults.freeze),
        head: fields.object("head").map_or(defaults.head, head),
        hyperparameters: fields
            .object("hyperparameters")
            .map(hyperparameters)
            .unwrap_or_default(),
        early_stopping: fields
            .object("early_stopping")
            .map_or(defaults.early_stopping, early_stopping),
        checkpoint_every_seconds: fields
            .optional(
                "checkpoint_every_seconds",
                integer(limits::CHECKPOINT_SECONDS),
            )
            .unwrap_or(defaults.checkpoint_every_seconds),
    };
    fields.neutral("augmentation", &[json!("auto"), json!("none")]);
    fields.neutral("evaluate_every", &[json!("auto")]);
    fields.neutral("adapter", &[]);
    fields.finish();
    transfer
}

fn hyperparameters(fields: Fields<'_>) -> Hyperparameters {
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
        schedule: fields.auto("schedule", word(&["constant", "cosine"])),
        warmup_fraction: fields.auto("warmup_fraction", number(0.0..=1.0)),
        label_smoothing: fields.auto("label_smoothing", number(0.0..1.0)),
        gradient_clip: fields.auto("gradient_clip", number(1e-6..=1e6)),
        batch_norm: fields.auto("batch_norm", word(&["frozen", "update"])),
    };
    fields.neutral("layer_decay", &[json!("auto"), json!(1), json!(1.0)]);
    fields.neutral("mixup", &[json!(0), json!(0.0)]);
    fields.neutral("class_weights", &[json!("none")]);
    fields.neutral("precision", &[json!("auto"), json!("float32")]);
    fields.finish();
    hyperparameters
}

fn early_stopping(fields: Fields<'_>) -> RequestedEarlyStopping {
    let early_stopping = RequestedEarlyStopping {
        patience: fields.auto("patience", integer(limits::PATIENCE)),
        metric: fields.auto(
            "metric",
            word(&["valid_accuracy", "valid_balanced_accuracy", "valid_loss"]),
        ),
        min_delta: fields
            .optional("min_delta", number(0.0..=1e6))
            .unwrap_or(0.0),
    };
    fields.finish();
    early_stopping
}

fn head(fields: Fields<'_>) -> RequestedHead {
    let head = RequestedHead {
        layers: fields.optional("layers", head_layers).unwrap_or_default(),
        init: fields.auto("init", word(&["zero", "normal", "probe"])),
    };
    fields.finish();
    head
}

fn head_layers(value: &Value) -> Read<Vec<HeadLayer>> {
    let Value::Array(layers) = value else {
        return Err(wrong_type("a list of layers", value));
    };
    if layers.len() > limits::HEAD_LAYERS {
        return Err((
            OUT_OF_RANGE,
            format!(
                "must hold at most {} layers, not {}",
                limits::HEAD_LAYERS,
                layers.len()
            ),
        ));
    }
    layers
        .iter()
        .enumerate()
        .map(|(i, layer)| {
            head_layer(layer).map_err(|(code, message)| (code, format!("[{i}] {message}")))
        })
        .collect()
}

fn head_layer(value: &Value) -> Read<HeadLayer> {
    let expected = "an object of one entry, such as {\"dropout\": 0.2}";
    let Some((name, setting)) = value
        .as_object()
        .filter(|layer| layer.len() == 1)
        .and_then(|layer| layer.iter().next())
    else {
        return Err(wrong_type(expected, value));
    };
    match name.as_str() {
        "dropout" => number(0.0..1.0)(setting).map(HeadLayer::Dropout),
        "linear" | "relu" | "gelu" | "batch_norm" | "layer_norm" => Err((
            NOT_AVAILABLE,
            format!(
                "`{name}` is not available in this version; a head is dropout and one linear layer"
            ),
        )),
        other => Err((
            INVALID_VALUE,
            format!("has no layer `{other}`; {}", suggestion(other, ["dropout"])),
        )),
    }
}

fn freeze(value: &Value) -> Read<Freeze> {
    let expected = "\"all\", \"none\", or an object of one entry such as {\"last_stages\": 1}";
    if let Value::String(word) = value {
        return match word.as_str() {
            "all" => Ok(Freeze::All),
            "none" => Ok(Freeze::None),
            other => Err((
                INVALID_VALUE,
                format!("must be {expected}, not \"{other}\""),
            )),
        };
    }
    let Some((name, setting)) = value
        .as_object()
        .filter(|one| one.len() == 1)
        .and_then(|one| one.iter().next())
    else {
        return Err(wrong_type(expected, value));
    };
    match name.as_str() {
        "last_stages" => integer(1..=1_000)(setting).map(Freeze::LastStages),
        "first_n" => integer(1..=1_000)(setting).map(Freeze::FirstN),
        "fraction" => number(0.0..=1.0)(setting).map(Freeze::Fraction),
        "blocks" => names(setting).map(Freeze::Blocks),
        "names" => names(setting).map(Freeze::Names),
        "regex" => text(limits::REGEX_CHARACTERS)(setting).map(Freeze::Regex),
        "schedule" => Err((
            NOT_AVAILABLE,
            "`schedule` is not available in this version".to_owned(),
        )),
        other => {
            let forms = [
                "last_stages",
                "first_n",
                "fraction",
                "blocks",
                "regex",
                "names",
            ];
            Err((
                INVALID_VALUE,
                format!("has no form `{other}`; {}", suggestion(other, forms)),
            ))
        }
    }
    .map_err(|(code, message)| (code, format!("`{name}` {message}")))
}

fn names(value: &Value) -> Read<Vec<String>> {
    let expected = "a list of at least one name";
    let Some(list) = value.as_array().filter(|list| !list.is_empty()) else {
        return Err(wrong_type(expected, value));
    };
    if list.len() > limits::FREEZE_NAMES {
        return Err((
            OUT_OF_RANGE,
            format!(
                "must hold at most {} names, not {}",
                limits::FREEZE_NAMES,
                list.len()
            ),
        ));
    }
    list.iter().map(text(limits::LABEL_CHARACTERS)).collect()
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

impl Default for Transfer {
    fn default() -> Self {
        Self {
            task: Auto::Auto,
            cut: "pre_logits".to_owned(),
            freeze: Freeze::All,
            head: RequestedHead::default(),
            hyperparameters: Hyperparameters::default(),
            early_stopping: RequestedEarlyStopping::default(),
            checkpoint_every_seconds: 300,
        }
    }
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
mod tests {
    use super::*;

    fn body(extra: Value) -> Value {
        let mut body = json!({"model": "efficientnet_lite0", "training_file": FileId::new()});
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    }

    fn codes(extra: Value) -> Vec<(String, String)> {
        parse(&body(extra))
            .unwrap_err()
            .into_iter()
            .map(|problem| (problem.path, problem.code))
            .collect()
    }

    #[test]
    fn the_documented_request_is_accepted() {
        let request = parse(&body(json!({
            "validation_file": null, "suffix": "garbage", "seed": 7, "metadata": {"team": "recycling"},
            "priority": 2, "timeout_seconds": 86400,
            "method": {"type": "transfer", "transfer": {
                "task": "auto", "cut": "pre_logits", "freeze": "all",
                "head": {"layers": [{"dropout": 0.2}], "init": "auto"},
                "hyperparameters": {"n_epochs": "auto", "batch_size": "auto", "learning_rate": "auto",
                    "backbone_learning_rate": "auto", "learning_rate_multiplier": 1.0, "optimizer": "auto",
                    "weight_decay": "auto", "schedule": "auto", "warmup_fraction": "auto", "layer_decay": "auto",
                    "label_smoothing": "auto", "gradient_clip": "auto", "mixup": 0.0, "class_weights": "none",
                    "batch_norm": "auto", "precision": "auto"},
                "augmentation": "auto",
                "early_stopping": {"patience": "auto", "metric": "auto", "min_delta": 0.0},
                "evaluate_every": "auto", "checkpoint_every_seconds": 300}}
        })));
        let request = request.unwrap();
        assert_eq!(request.transfer.head.layers, [HeadLayer::Dropout(0.2)]);
        assert_eq!(request.seed, Some(7));
    }

    #[test]
    fn openais_forms_mean_the_default_transfer() {
        let supervised =
            json!({"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}});
        let new = parse(&body(json!({"method": supervised}))).unwrap();
        let old = parse(&body(json!({"hyperparameters": {"n_epochs": 3}}))).unwrap();
        assert_eq!(new.transfer, old.transfer);
        assert_eq!(new.transfer.hyperparameters.n_epochs, Auto::Value(3));
        let both = codes(json!({"method": supervised, "hyperparameters": {"n_epochs": 3}}));
        assert_eq!(
            both,
            [("hyperparameters".to_owned(), CONTRADICTION.to_owned())]
        );
    }

    #[test]
    fn every_bad_value_is_named_with_its_path() {
        let wrong = |option: &str, value: Value| {
            let found = codes(
                json!({"method": {"type": "transfer", "transfer": {"hyperparameters": {option: value}}}}),
            );
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(
                found[0].0,
                format!("method.transfer.hyperparameters.{option}")
            );
            found[0].1.clone()
        };
        for epochs in [json!(0), json!(-1), json!(1e9), json!(10_001)] {
            assert_eq!(wrong("n_epochs", epochs), OUT_OF_RANGE);
        }
        assert_eq!(wrong("learning_rate", json!("NaN")), "wrong_type");
        assert_eq!(wrong("learning_rate", json!(0)), OUT_OF_RANGE);
        assert_eq!(wrong("learnin_rate", json!(1)), "unknown_field");
        assert_eq!(wrong("mixup", json!(0.1)), NOT_AVAILABLE);
        assert_eq!(wrong("label_smoothing", json!(1.0)), OUT_OF_RANGE);
    }

    #[test]
    fn limits_hold_at_and_one_past_them() {
        let epochs = |n: u64| parse(&body(json!({"hyperparameters": {"n_epochs": n}})));
        assert!(epochs(*limits::EPOCHS.end()).is_ok() && epochs(limits::EPOCHS.end() + 1).is_err());
        let suffix = |n: usize| parse(&body(json!({"suffix": "x".repeat(n)})));
        assert!(
            suffix(limits::SUFFIX_CHARACTERS).is_ok()
                && suffix(limits::SUFFIX_CHARACTERS + 1).is_err()
        );
        assert!(suffix(0).is_err());
        let entries = |n: usize| {
            let metadata: BTreeMap<String, String> =
                (0..n).map(|i| (i.to_string(), String::new())).collect();
            parse(&body(json!({"metadata": metadata})))
        };
        assert!(
            entries(limits::METADATA_ENTRIES).is_ok()
                && entries(limits::METADATA_ENTRIES + 1).is_err()
        );
        assert!(codes(json!({"metadata": {"a": "nul \u{0}"}})).len() == 1);
    }

    #[test]
    fn a_request_survives_storage() {
        let freeze = json!({"last_stages": 2});
        let asked = json!({"type": "transfer", "transfer": {"freeze": freeze, "hyperparameters": {"gradient_clip": 0.5}}});
        let request = parse(&body(json!({"method": asked}))).unwrap();
        let stored: JobRequest =
            serde_json::from_value(serde_json::to_value(&request).unwrap()).unwrap();
        assert_eq!(stored, request);
    }
}
