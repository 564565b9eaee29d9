//! `method`: ours, `transfer`, or OpenAI's `supervised`.

use serde_json::json;

use super::{hyperparameters::OpenAiHyperparameters, transfer::Transfer};
use crate::{
    codes::CONTRADICTION,
    fields::Fields,
    options::{Field, Group, ObjectSchema, options, required_or},
    rules::Word,
    words,
};

options! {
    /// How to train.
    pub struct MethodOptions {
        /// `transfer`, or OpenAI's `supervised`, which means the default transfer.
        kind as "type": MethodType = required_or(MethodType::Transfer, Word),
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

impl MethodOptions {
    /// The transfer of this method. Adds a problem if the other one has options.
    fn transfer(self, fields: &Fields<'_>) -> Option<Transfer> {
        let of_openai = self.supervised.map(|one| one.hyperparameters.into());
        let (transfer, unused, needed) = match self.kind {
            MethodType::Transfer => (self.transfer, of_openai, MethodType::Supervised),
            MethodType::Supervised => (of_openai, self.transfer, MethodType::Transfer),
        };
        if unused.is_some() {
            let path = format!("method.{needed}");
            let message = format!("`{path}` needs `\"type\": \"{needed}\"`");
            fields.problem(&path, CONTRADICTION, message);
        }
        transfer
    }
}

impl From<OpenAiHyperparameters> for Transfer {
    fn from(openai: OpenAiHyperparameters) -> Self {
        let mut transfer = Self::default();
        transfer.hyperparameters.n_epochs = openai.n_epochs;
        transfer.hyperparameters.batch_size = openai.batch_size;
        transfer.hyperparameters.learning_rate_multiplier = openai.learning_rate_multiplier;
        transfer
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
        let transfer = match (openai, method) {
            (Some(openai), _) => Some(openai.into()),
            (None, Some(method)) => method.transfer(fields),
            (None, None) => None,
        };
        Some(transfer.unwrap_or_default())
    }

    fn describe(&self, object: &mut ObjectSchema<'_>, _: &str, _: &str) {
        Field::<MethodOptions>::describe(&Group, object, "method", METHOD_DOC);
        let (name, doc) = ("hyperparameters", HYPERPARAMETERS_DOC);
        Field::<OpenAiHyperparameters>::describe(&Group, object, name, doc);
        let none = json!({"type": "array", "items": {"type": "string"}, "maxItems": 0});
        object.optional("integrations", INTEGRATIONS_DOC, None, none);
    }
}
