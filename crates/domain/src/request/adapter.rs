//! `adapter`: small matrices that train in the place of the backbone's own, as asked for.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    fields::{Fields, INVALID_VALUE, OUT_OF_RANGE, Read, integer, number, text, word, wrong_type},
    limits,
};

/// LoRA (Hu et al. 2021), with the defaults of PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestedAdapter {
    #[serde(rename = "type")]
    pub kind: AdapterKind,
    /// Of the matrix that a layer's weight gains.
    pub rank: u64,
    /// That matrix counts `alpha / rank` times.
    pub alpha: f64,
    /// Share of a layer's inputs that its adapter does not see in training.
    pub dropout: f64,
    pub targets: AdapterTargets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdapterKind {
    Lora,
}

/// Which linear layers get an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum AdapterTargets {
    /// `all_linear`: all of them.
    All(AllLinear),
    /// By name, or by the last parts of it: `blocks.0.attn.qkv`, `attn.qkv`.
    Names(Vec<String>),
    Matching {
        /// Layers whose name matches.
        regex: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AllLinear {
    AllLinear,
}

/// `None` only when what kind it is is missing or wrong, which is then among the problems.
pub(super) fn adapter(fields: Fields<'_>) -> Option<RequestedAdapter> {
    let kind = fields.required("type", word(&["lora"]));
    let rank = fields.optional("rank", integer(limits::ADAPTER_RANK));
    let alpha = fields.optional("alpha", number(limits::ADAPTER_ALPHA));
    let dropout = fields.optional("dropout", number(0.0..1.0));
    let targets = fields.optional("targets", targets);
    fields.finish();
    Some(RequestedAdapter {
        kind: kind?,
        rank: rank.unwrap_or(8),
        alpha: alpha.unwrap_or(8.0),
        dropout: dropout.unwrap_or(0.0),
        targets: targets.unwrap_or(AdapterTargets::All(AllLinear::AllLinear)),
    })
}

fn targets(value: &Value) -> Read<AdapterTargets> {
    let expected = "\"all_linear\", a list of layers' names, or {\"regex\": \"…\"}";
    match value {
        Value::String(word) if word == "all_linear" => {
            Ok(AdapterTargets::All(AllLinear::AllLinear))
        }
        Value::String(other) => Err((
            INVALID_VALUE,
            format!("must be {expected}, not \"{other}\""),
        )),
        Value::Array(list) if list.len() > limits::ADAPTER_TARGETS => {
            let (most, found) = (limits::ADAPTER_TARGETS, list.len());
            let message = format!("must hold at most {most} names, not {found}");
            Err((OUT_OF_RANGE, message))
        }
        Value::Array(list) if !list.is_empty() => list
            .iter()
            .map(text(limits::LABEL_CHARACTERS))
            .collect::<Read<_>>()
            .map(AdapterTargets::Names),
        Value::Object(one) if one.len() == 1 && one.contains_key("regex") => {
            text(limits::REGEX_CHARACTERS)(&one["regex"])
                .map(|regex| AdapterTargets::Matching { regex })
                .map_err(|(code, message)| (code, format!("`regex` {message}")))
        }
        other => Err(wrong_type(expected, other)),
    }
}
