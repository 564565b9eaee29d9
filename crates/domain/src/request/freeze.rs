//! `freeze`: which part of the backbone keeps its weights, as asked for.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    fields::{INVALID_VALUE, OUT_OF_RANGE, Read, integer, number, text, wrong_type},
    limits,
    problem::suggestion,
};

/// Which part of the backbone keeps its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Freeze {
    /// The whole backbone; only the head trains.
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

pub(super) fn freeze(value: &Value) -> Read<Freeze> {
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
