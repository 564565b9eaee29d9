//! `method`: ours, `transfer`, or OpenAI's `supervised`.

use serde_json::json;

use super::{
    hyperparameters::{Hyperparameters, OpenAiHyperparameters},
    transfer::Transfer,
};
use crate::{
    codes::CONTRADICTION,
    fields::Fields,
    options::{Field, Group, ObjectSchema, expected, options},
    rules::Word,
    words,
};

options! {
    /// How to train.
    pub struct MethodOptions {
        /// `transfer`, or OpenAI's `supervised`, which means the default transfer.
        kind as "type": Option<MethodType> = expected(Word),
        /// With `transfer` only.
        transfer: Option<Transfer> = Group,
        /// With `supervised` only.
        supervised: Option<Supervised> = Group,
    }
}

words! {
    pub enum MethodType {
        Transfer = "transfer",
        Supervised = "supervised",
    }
}

options! {
    /// OpenAI's supervised fine-tuning.
    pub struct Supervised {
        hyperparameters: OpenAiHyperparameters = Group,
    }
}

/// The transfer that a request asks for, in any of the three forms: `method.transfer`,
/// `method.supervised`, and OpenAI's older `hyperparameters` beside the model.
pub(super) struct MethodField;

const METHOD_DOC: &str = "How to train.";
const HYPERPARAMETERS_DOC: &str = "OpenAI's older place for them; not together with `method`.";
const INTEGRATIONS_DOC: &str = "OpenAI's; only an empty list is accepted.";

impl Field<Transfer> for MethodField {
    fn read(&self, fields: &Fields<'_>, _: &'static str) -> Option<Transfer> {
        fields.neutral("integrations", &json!([]));
        let method: Option<MethodOptions> = Field::read(&Group, fields, "method")?;
        let openai: Option<OpenAiHyperparameters> = Field::read(&Group, fields, "hyperparameters")?;
        if openai.is_some() && fields.get("method").is_some() {
            let message = "give either `method` or OpenAI's older `hyperparameters`, not both";
            fields.problem("hyperparameters", CONTRADICTION, message);
        }
        let of_openai = |openai: OpenAiHyperparameters| Transfer {
            hyperparameters: Hyperparameters::from(openai),
            ..Transfer::default()
        };
        if let Some(openai) = openai {
            return Some(of_openai(openai));
        }
        Some(match method {
            Some(MethodOptions {
                kind: Some(MethodType::Supervised),
                transfer,
                supervised,
            }) => {
                if transfer.is_some() {
                    let message = "`method.transfer` needs `\"type\": \"transfer\"`";
                    fields.problem("method.transfer", CONTRADICTION, message);
                }
                supervised.map_or_else(Transfer::default, |one| of_openai(one.hyperparameters))
            }
            Some(method) => {
                if method.supervised.is_some() {
                    let message = "`method.supervised` needs `\"type\": \"supervised\"`";
                    fields.problem("method.supervised", CONTRADICTION, message);
                }
                method.transfer.unwrap_or_default()
            }
            None => Transfer::default(),
        })
    }

    fn describe(&self, object: &mut ObjectSchema<'_>, _: &str, _: &str) {
        Field::<MethodOptions>::describe(&Group, object, "method", METHOD_DOC);
        let (name, doc) = ("hyperparameters", HYPERPARAMETERS_DOC);
        Field::<OpenAiHyperparameters>::describe(&Group, object, name, doc);
        let none = json!({"type": "array", "items": {"type": "string"}, "maxItems": 0});
        object.optional("integrations", INTEGRATIONS_DOC, None, none);
    }
}
