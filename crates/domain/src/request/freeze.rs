//! `method.transfer.freeze`: which part of the backbone keeps its weights.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::openapi::{RefOr, Schema};

use crate::{
    codes::{INVALID_VALUE, OUT_OF_RANGE},
    limits,
    options::choices,
    rules::{
        Components, Integer, Invalid, List, Own, Parsed, Rule, Text, reference, share, to_schema,
    },
};

choices! {
    /// Which part of the backbone keeps its weights.
    pub enum Freeze {
        /// The whole backbone; only the head trains.
        All = "all",
        /// Nothing: everything trains.
        None = "none",
        /// All but the last n stages.
        AllButLastStages(u64) = "all_but_last_stages": Integer(limits::FREEZE_STAGES),
        /// The first n stages.
        FirstN(u64) = "first_n": Integer(limits::FREEZE_STAGES),
        /// At least this share of the parameters, counted in whole stages from the input side.
        Fraction(f64) = "fraction": share(),
        /// These stages or blocks, by name.
        Blocks(Vec<String>) = "blocks": NAMES,
        /// Parameters whose name matches this regular expression.
        Regex(String) = "regex": Text(limits::REGEX_CHARACTERS),
        /// These parameters, by name.
        Names(Vec<String>) = "names": NAMES,
        /// Several policies in turn: the first from the start, each other one after so many epochs.
        Schedule(Vec<ScheduledFreeze>) = "schedule": Schedule,
    }
}

/// An entry of a freeze schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduledFreeze {
    pub at_epoch: u64,
    /// Any policy but another schedule.
    pub freeze: Freeze,
}

const NAMES: List<Text> = List(
    1..=limits::FREEZE_NAMES,
    "names",
    Text(limits::LABEL_CHARACTERS),
);
const AT_EPOCH: Integer = Integer(0..=*limits::EPOCHS.end() - 1);

struct Schedule;

impl Rule<Vec<ScheduledFreeze>> for Schedule {
    fn read(&self, value: &Value) -> Parsed<Vec<ScheduledFreeze>> {
        let expected = "a list of entries such as {\"at_epoch\": 0, \"freeze\": \"all\"}";
        let wrong_type = || Invalid::wrong_type(expected, value);
        let list = value.as_array().filter(|list| !list.is_empty());
        let list = list.ok_or_else(wrong_type)?;
        if list.len() > limits::FREEZE_PHASES {
            let (most, found) = (limits::FREEZE_PHASES, list.len());
            let message = format!("must hold at most {most} entries, not {found}");
            return Err(Invalid::new(OUT_OF_RANGE, message));
        }
        let mut entries: Vec<ScheduledFreeze> = Vec::with_capacity(list.len());
        for (i, value) in list.iter().enumerate() {
            let entry = entry(value).map_err(|invalid| invalid.at(format!("[{i}]")))?;
            let before = entries.last().map(|entry| entry.at_epoch);
            let message = match (before, entry.at_epoch) {
                (None, 1..) => "must begin with an entry whose `at_epoch` is 0".to_owned(),
                (Some(before), epoch) if epoch <= before => format!(
                    "[{i}] `at_epoch` is {epoch}, and must be above the {before} of the entry before it"
                ),
                _ => {
                    entries.push(entry);
                    continue;
                }
            };
            return Err(Invalid::new(INVALID_VALUE, message));
        }
        Ok(entries)
    }

    fn schema(&self, components: &mut Components) -> Value {
        let entry = reference(ENTRY, components, |components| {
            let at_epoch = Rule::<u64>::schema(&AT_EPOCH, components);
            let freeze = reference("FreezePolicy", components, |_| to_schema(policy()));
            to_schema(json!({
                "type": "object",
                "required": ["at_epoch", "freeze"],
                "properties": {"at_epoch": at_epoch, "freeze": freeze},
                "additionalProperties": false,
            }))
        });
        json!({"type": "array", "items": entry, "minItems": 1, "maxItems": limits::FREEZE_PHASES})
    }
}

/// Name of an entry's schema.
const ENTRY: &str = "ScheduledFreeze";

/// The schema of every policy but a schedule.
fn policy() -> Value {
    // Its entries are known by name already, or the schema would contain itself.
    let mut components = vec![(ENTRY.to_owned(), RefOr::T(Schema::default()))];
    let _ = Rule::<Freeze>::schema(&Own, &mut components);
    let freeze = components.into_iter().find(|(name, _)| name == "Freeze");
    let (_, freeze) = freeze.expect("a policy has a schema: this is a bug");
    let mut schema = serde_json::to_value(freeze).expect("a schema is JSON: this is a bug");
    if let Some(choices) = schema["oneOf"].as_array_mut() {
        choices.retain(|choice| choice["properties"].get("schedule").is_none());
    }
    schema["description"] = "A policy of a schedule.".into();
    schema
}

fn entry(value: &Value) -> Parsed<ScheduledFreeze> {
    let entry = value.as_object().filter(|entry| entry.len() == 2);
    let fields = entry.and_then(|entry| Some((entry.get("at_epoch")?, entry.get("freeze")?)));
    let Some((epoch, policy)) = fields else {
        let expected = "an object of `at_epoch` and `freeze`";
        return Err(Invalid::wrong_type(expected, value));
    };
    if policy.get("schedule").is_some() {
        let message = "`freeze` must not be a schedule inside a schedule";
        return Err(Invalid::new(INVALID_VALUE, message));
    }
    let epoch = AT_EPOCH.read(epoch);
    Ok(ScheduledFreeze {
        at_epoch: epoch.map_err(|invalid| invalid.at("`at_epoch`"))?,
        freeze: Own.read(policy)?,
    })
}
