//! What a user asks for: the body of `POST /v1/fine_tuning/jobs`, read with all its problems at once.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ops::{Bound, RangeInclusive},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    fields::{
        Fields, INVALID_VALUE, OUT_OF_RANGE, Read, integer, number, parsed, text, word, wrong_type,
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
/// What the rate of a stage may be of the next one's.
const ABOVE_ZERO: (Bound<f64>, Bound<f64>) = (Bound::Excluded(0.0), Bound::Included(1.0));
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
    /// One after the other: the first from epoch 0 on, each of the others once so many epochs are over.
    Schedule(Vec<ScheduledFreeze>),
}

/// An entry of a freeze schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScheduledFreeze {
    pub at_epoch: u64,
    /// Any form but another schedule.
    #[schema(no_recursion)]
    pub freeze: Freeze,
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
    pub layer_decay: Auto<f64>,
    pub accumulate: Auto<u64>,
    pub label_smoothing: Auto<f64>,
    pub class_weights: Auto<ClassWeights>,
    pub gradient_clip: Auto<f64>,
    /// `none`, or the share that the average keeps.
    pub ema_decay: Auto<EmaDecay>,
    pub batch_norm: Auto<BatchNorm>,
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
            .optional("cut", text(limits::STAGE_CHARACTERS))
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
        schedule: fields.auto(
            "schedule",
            word(&["constant", "cosine", "linear", "step", "one_cycle"]),
        ),
        warmup_fraction: fields.auto("warmup_fraction", number(0.0..=1.0)),
        layer_decay: fields.auto("layer_decay", number(ABOVE_ZERO)),
        accumulate: fields.auto("accumulate", integer(limits::ACCUMULATE)),
        label_smoothing: fields.auto("label_smoothing", number(0.0..1.0)),
        class_weights: fields.auto("class_weights", class_weights),
        gradient_clip: fields.auto("gradient_clip", number(1e-6..=1e6)),
        ema_decay: fields.auto("ema_decay", ema_decay),
        batch_norm: fields.auto("batch_norm", word(&["frozen", "update"])),
    };
    fields.neutral("mixup", &[json!(0), json!(0.0)]);
    fields.neutral("precision", &[json!("auto"), json!("float32")]);
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

fn ema_decay(value: &Value) -> Read<EmaDecay> {
    if value == "none" {
        return Ok(EmaDecay::Off(EmaOff::None));
    }
    number((Bound::Excluded(0.0), Bound::Excluded(1.0)))(value)
        .map(EmaDecay::Decay)
        .map_err(|(code, message)| (code, format!("{message}, or \"none\"")))
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
    let kinds = [
        "linear",
        "relu",
        "gelu",
        "dropout",
        "batch_norm",
        "layer_norm",
    ];
    let on = Value::Bool(true);
    let (name, setting) = match value {
        Value::String(name) => (name, &on),
        Value::Object(layer) if layer.len() == 1 => layer.iter().next().expect("it has one entry"),
        other => {
            let expected = "an object of one entry, such as {\"dropout\": 0.2}";
            return Err(wrong_type(expected, other));
        }
    };
    let plain = |layer| match setting {
        Value::Bool(true) => Ok(layer),
        other => Err(wrong_type("true", other)),
    };
    match name.as_str() {
        "dropout" => number(0.0..1.0)(setting).map(HeadLayer::Dropout),
        "linear" => {
            integer(limits::HEAD_WIDTH)(setting).map(|width| HeadLayer::Linear(width as u32))
        }
        "relu" => plain(HeadLayer::Relu),
        "gelu" => plain(HeadLayer::Gelu),
        "batch_norm" => plain(HeadLayer::BatchNorm),
        "layer_norm" => plain(HeadLayer::LayerNorm),
        other => Err((
            INVALID_VALUE,
            format!("has no layer `{other}`; {}", suggestion(other, kinds)),
        )),
    }
    .map_err(|(code, message)| (code, format!("`{name}` {message}")))
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
        "schedule" => freeze_schedule(setting).map(Freeze::Schedule),
        other => {
            let forms = [
                "last_stages",
                "first_n",
                "fraction",
                "blocks",
                "regex",
                "names",
                "schedule",
            ];
            Err((
                INVALID_VALUE,
                format!("has no form `{other}`; {}", suggestion(other, forms)),
            ))
        }
    }
    .map_err(|(code, message)| (code, format!("`{name}` {message}")))
}

fn freeze_schedule(value: &Value) -> Read<Vec<ScheduledFreeze>> {
    let expected = "a list of entries such as {\"at_epoch\": 0, \"freeze\": \"all\"}";
    let Some(list) = value.as_array().filter(|list| !list.is_empty()) else {
        return Err(wrong_type(expected, value));
    };
    if list.len() > limits::FREEZE_PHASES {
        let (most, found) = (limits::FREEZE_PHASES, list.len());
        let message = format!("must hold at most {most} entries, not {found}");
        return Err((OUT_OF_RANGE, message));
    }
    let mut entries: Vec<ScheduledFreeze> = Vec::with_capacity(list.len());
    for (i, value) in list.iter().enumerate() {
        let entry =
            freeze_entry(value).map_err(|(code, message)| (code, format!("[{i}] {message}")))?;
        let after = entries.last().map(|entry| entry.at_epoch);
        match (after, entry.at_epoch) {
            (None, 1..) => {
                let message = "must begin with an entry whose `at_epoch` is 0".to_owned();
                return Err((INVALID_VALUE, message));
            }
            (Some(after), epoch) if epoch <= after => {
                let message = format!(
                    "[{i}] `at_epoch` is {epoch}, and must be above the {after} of the entry before it"
                );
                return Err((INVALID_VALUE, message));
            }
            _ => entries.push(entry),
        }
    }
    Ok(entries)
}

fn freeze_entry(value: &Value) -> Read<ScheduledFreeze> {
    let entry = value.as_object().filter(|entry| entry.len() == 2);
    let fields = entry.and_then(|entry| Some((entry.get("at_epoch")?, entry.get("freeze")?)));
    let Some((at_epoch, form)) = fields else {
        let expected = "an object of `at_epoch` and `freeze`";
        return Err(wrong_type(expected, value));
    };
    if form.get("schedule").is_some() {
        let message = "`freeze` must not be a schedule inside a schedule".to_owned();
        return Err((INVALID_VALUE, message));
    }
    let within = |(code, message)| (code, format!("`at_epoch` {message}"));
    Ok(ScheduledFreeze {
        at_epoch: integer(0..=limits::EPOCHS.end() - 1)(at_epoch).map_err(within)?,
        freeze: freeze(form)?,
    })
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
    use crate::fields::NOT_AVAILABLE;

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
                    "accumulate": "auto", "ema_decay": "auto",
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
    fn numbers_hold_at_and_past_their_limits() {
        let asked = |option: &str, value: Value| {
            parse(&body(
                json!({"method": {"type": "transfer", "transfer": {"hyperparameters": {option: value}}}}),
            ))
        };
        let given = |weight: f64| json!({"cats": weight});
        for (option, good) in [
            ("layer_decay", vec![json!(1e-9), json!(1), json!("auto")]),
            ("accumulate", vec![json!(1), json!(1_024)]),
            (
                "ema_decay",
                vec![json!(1e-9), json!(0.999_999), json!("none")],
            ),
            (
                "class_weights",
                vec![json!("none"), json!("balanced"), given(1e-6), given(1e6)],
            ),
            (
                "schedule",
                vec![json!("linear"), json!("step"), json!("one_cycle")],
            ),
            ("precision", vec![json!("float32")]),
        ] {
            for value in good {
                assert!(asked(option, value.clone()).is_ok(), "{option}: {value}");
            }
        }
        for (option, bad) in [
            ("layer_decay", vec![json!(0), json!(1.000_001)]),
            ("accumulate", vec![json!(0), json!(1_025)]),
            ("ema_decay", vec![json!(0), json!(1), json!("off")]),
            (
                "class_weights",
                vec![
                    given(9e-7),
                    given(1.1e6),
                    json!({}),
                    json!("equal"),
                    json!(2),
                ],
            ),
            ("schedule", vec![json!("onecycle")]),
            ("precision", vec![json!("bfloat16")]),
        ] {
            for value in bad {
                let problems =
                    asked(option, value.clone()).expect_err(&format!("{option}: {value}"));
                assert_eq!(problems.len(), 1, "{option}: {value}");
                assert!(problems[0].path.ends_with(option));
            }
        }
    }

    #[test]
    fn a_freeze_schedule_begins_at_0_and_rises() {
        let schedule = |entries: Value| {
            let transfer = json!({"freeze": {"schedule": entries}});
            parse(&body(
                json!({"method": {"type": "transfer", "transfer": transfer}}),
            ))
        };
        let entry = |epoch: u64| json!({"at_epoch": epoch, "freeze": {"last_stages": 1}});
        let many = |n: u64| schedule((0..n).map(entry).collect());
        let most = limits::FREEZE_PHASES as u64;
        assert!(many(1).is_ok() && many(most).is_ok() && many(most + 1).is_err());
        let read = many(2).unwrap();
        let stored: JobRequest = serde_json::from_value(json!(read)).unwrap();
        assert_eq!(stored, read);
        for (bad, words) in [
            (json!([]), "a list of entries"),
            (json!([entry(1)]), "`at_epoch` is 0"),
            (json!([entry(0), entry(2), entry(2)]), "above the 2"),
            (json!([{"at_epoch": 0}]), "`at_epoch` and `freeze`"),
            (
                json!([{"at_epoch": 0, "freeze": {"schedule": []}}]),
                "inside a schedule",
            ),
            (json!([entry(0), entry(10_000)]), "from 0 to 9999"),
        ] {
            let problems = schedule(bad.clone()).unwrap_err();
            assert!(
                problems.len() == 1 && problems[0].message.contains(words),
                "{bad}: {problems:?}"
            );
        }
    }

    #[test]
    fn head_layers_are_read_in_order_and_within_their_limits() {
        let layers = |layers: Value| {
            let transfer = json!({"head": {"layers": layers}});
            parse(&body(
                json!({"method": {"type": "transfer", "transfer": transfer}}),
            ))
        };
        let read = layers(
            json!([{"batch_norm": true}, {"linear": 256}, "relu", {"dropout": 0.5},
            {"layer_norm": true}, {"gelu": true}]),
        );
        use HeadLayer::{BatchNorm, Dropout, Gelu, LayerNorm, Linear, Relu};
        assert_eq!(
            read.unwrap().transfer.head.layers,
            [BatchNorm, Linear(256), Relu, Dropout(0.5), LayerNorm, Gelu]
        );
        let many = |n: usize| layers(json!(vec![json!({"relu": true}); n]));
        assert!(many(limits::HEAD_LAYERS).is_ok() && many(limits::HEAD_LAYERS + 1).is_err());
        assert!(layers(json!([{"linear": 1}, {"linear": 16_384}])).is_ok());
        for bad in [
            json!({"linear": 0}),
            json!({"linear": 16_385}),
            json!("linear"),
            json!({"relu": false}),
            json!({"dropout": 1}),
            json!({"relu": true, "gelu": true}),
        ] {
            assert_eq!(layers(json!([bad])).unwrap_err().len(), 1, "{bad}");
        }
        let wrong = layers(json!([{"rellu": true}])).unwrap_err();
        assert!(
            wrong[0].message.contains("did you mean `relu`"),
            "{wrong:?}"
        );
    }

    #[test]
    fn a_request_survives_storage() {
        let freeze = json!({"last_stages": 2});
        let asked = json!({"type": "transfer", "transfer": {"freeze": freeze, "hyperparameters": {
            "gradient_clip": 0.5, "class_weights": {"cats": 2.5}, "ema_decay": "none"}}});
        let request = parse(&body(json!({"method": asked}))).unwrap();
        let stored: JobRequest =
            serde_json::from_value(serde_json::to_value(&request).unwrap()).unwrap();
        assert_eq!(stored, request);
    }
}
