//! `method.transfer.adapter`: small matrices that train instead of the backbone's own.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    codes::INVALID_VALUE,
    limits,
    options::{options, or, required},
    rules::{Components, Invalid, Parsed, Rule, Word, integer, list, number, one_word_or, text},
    words,
};

options! {
    /// LoRA (Hu et al. 2021), with the defaults of PEFT.
    pub struct AdapterOptions {
        kind as "type": AdapterKind = required(Word),
        /// Rank of the matrix that is added to a layer's weight; at most the layer's smaller side.
        rank: u64 = or(8, integer(limits::ADAPTER_RANK)),
        /// The matrix counts `alpha / rank` times.
        alpha: f64 = or(8.0, number(limits::ADAPTER_ALPHA)),
        /// Share of a layer's inputs that its adapter does not see in training.
        dropout: f64 = or(0.0, number(0.0..1.0)),
        /// The linear layers that get an adapter.
        targets: AdapterTargets = or(AdapterTargets::All(AllLinear::AllLinear), Targets),
    }
}

words! {
    pub enum AdapterKind {
        Lora = "lora",
    }
}

/// The linear layers that get an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AdapterTargets {
    /// All of them, as `all_linear`.
    All(AllLinear),
    /// Layers by name, or by the last parts of a name: `blocks.0.attn.qkv`, `attn.qkv`.
    Names(Vec<String>),
    /// Layers whose name matches.
    Matching { regex: String },
}

words! {
    pub enum AllLinear {
        AllLinear = "all_linear",
    }
}

struct Targets;

impl Targets {
    fn names() -> impl Rule<Vec<String>> {
        let name = text(limits::LABEL_CHARACTERS);
        list(1..=limits::ADAPTER_TARGETS, "names", name)
    }
}

impl Rule<AdapterTargets> for Targets {
    fn read(&self, value: &Value) -> Parsed<AdapterTargets> {
        let expected = "\"all_linear\", a list of layers' names, or {\"regex\": \"…\"}";
        match value {
            Value::String(word) => {
                let all = word.parse().map(AdapterTargets::All);
                let message = || format!("must be {expected}, not \"{word}\"");
                all.map_err(|_| Invalid::new(INVALID_VALUE, message()))
            }
            Value::Array(_) => Self::names().read(value).map(AdapterTargets::Names),
            Value::Object(one) if one.len() == 1 && one.contains_key("regex") => {
                let regex = text(limits::REGEX_CHARACTERS).read(&one["regex"]);
                let regex = regex.map_err(|invalid| invalid.at("`regex`"))?;
                Ok(AdapterTargets::Matching { regex })
            }
            other => Err(Invalid::wrong_type(expected, other)),
        }
    }

    fn schema(&self, components: &mut Components) -> Value {
        let names = Self::names().schema(components);
        let regex = text(limits::REGEX_CHARACTERS).schema(components);
        let matching = json!({
            "type": "object",
            "required": ["regex"],
            "properties": {"regex": regex},
            "additionalProperties": false,
        });
        one_word_or("all_linear", json!({"anyOf": [names, matching]}))
    }
}
