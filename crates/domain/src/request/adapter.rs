//! `method.transfer.adapter`: small matrices that train instead of the backbone's own.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    codes::INVALID_VALUE,
    limits,
    options::{Or, options, required},
    problem::quoted,
    rules::{Components, Integer, Invalid, List, Parsed, Rule, Text, Word, number, one_word_or},
    words,
};

options! {
    /// LoRA (Hu et al. 2021), with the defaults of PEFT.
    pub struct AdapterOptions {
        kind as "type": AdapterKind = required(Word),
        /// Rank of the matrix that is added to a layer's weight; at most the layer's smaller side.
        rank: u64 = Or(8, Integer(limits::ADAPTER_RANK)),
        /// The matrix counts `alpha / rank` times.
        alpha: f64 = Or(8.0, number(limits::ADAPTER_ALPHA)),
        /// Share of a layer's inputs that its adapter does not see in training.
        dropout: f64 = Or(0.0, number(0.0..1.0)),
        /// The linear layers that get an adapter.
        targets: AdapterTargets = Or(AdapterTargets::All, Targets),
    }
}

words! {
    pub enum AdapterKind {
        Lora = "lora",
    }
}

/// The linear layers that get an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdapterTargets {
    /// All of them.
    #[serde(rename = "all_linear")]
    All,
    /// Layers by name, or by the last parts of a name: `blocks.0.attn.qkv`, `attn.qkv`.
    #[serde(untagged)]
    Names(Vec<String>),
    /// Layers whose name matches.
    #[serde(untagged)]
    Matching { regex: String },
}

const NAMES: List<Text> = List(
    1..=limits::ADAPTER_TARGETS,
    "names",
    Text(limits::LABEL_CHARACTERS),
);
const REGEX: Text = Text(limits::REGEX_CHARACTERS);

struct Targets;

impl Rule<AdapterTargets> for Targets {
    fn read(&self, value: &Value) -> Parsed<AdapterTargets> {
        let expected = "\"all_linear\", a list of layers' names, or {\"regex\": \"…\"}";
        match value {
            Value::String(word) if word == "all_linear" => Ok(AdapterTargets::All),
            Value::String(word) => {
                let message = format!("must be {expected}, not \"{}\"", quoted(word));
                Err(Invalid::new(INVALID_VALUE, message))
            }
            Value::Array(_) => NAMES.read(value).map(AdapterTargets::Names),
            Value::Object(one) if one.len() == 1 && one.contains_key("regex") => {
                let regex = REGEX.read(&one["regex"]);
                let regex = regex.map_err(|invalid| invalid.at("`regex`"))?;
                Ok(AdapterTargets::Matching { regex })
            }
            other => Err(Invalid::wrong_type(expected, other)),
        }
    }

    fn schema(&self, components: &mut Components) -> Value {
        let names = NAMES.schema(components);
        let regex = REGEX.schema(components);
        let matching = json!({
            "type": "object",
            "required": ["regex"],
            "properties": {"regex": regex},
            "additionalProperties": false,
        });
        one_word_or("all_linear", json!({"anyOf": [names, matching]}))
    }
}
