//! `method.transfer.augmentation`: random changes of training images.

use serde_json::{Value, json};

use crate::{
    augmentation::Augmentation,
    auto::{Auto, OrNone},
    fields::Fields,
    limits,
    options::{Field, Flat, ObjectSchema, auto, options, read_all, schema_of},
    rules::{AutoRule, Rule, custom, integer, one_word_or, or_none, reference},
};

options! {
    /// Random changes of a training image, in the order of the fields. What is left out is not
    /// done.
    pub struct AugmentationOptions {
        #[serde(flatten)]
        augmentation: Augmentation = Flat,
        /// Augmented views of each training sample whose features are computed in advance while the
        /// whole backbone is frozen; an epoch trains on one of them. `auto`: as many as there are
        /// epochs with a frozen backbone, at most 4.
        views: Auto<u64> = auto(integer(limits::VIEWS)),
    }
}

/// `"auto"`, `"none"`, or an object, whose problems have paths of their own.
pub(super) struct AugmentationField;

impl Field<Auto<OrNone<AugmentationOptions>>> for AugmentationField {
    fn read(
        &self,
        fields: &Fields<'_>,
        name: &'static str,
    ) -> Option<Auto<OrNone<AugmentationOptions>>> {
        if let Some(Value::Object(_)) = fields.get(name) {
            let options = fields.object(name).and_then(read_all);
            return Some(options.map_or(Auto::Auto, |options| Auto::Value(OrNone::Value(options))));
        }
        let object = custom(
            |value| Err(crate::rules::Invalid::wrong_type("an object", value)),
            || json!({}),
        );
        let word = AutoRule(or_none(object));
        Some(
            fields
                .optional(name, |value| word.read(value))
                .unwrap_or_default(),
        )
    }

    fn describe(&self, object: &mut ObjectSchema<'_>, name: &str, doc: &str) {
        let options = reference(
            "AugmentationOptions",
            object.components,
            schema_of::<AugmentationOptions>,
        );
        let schema = one_word_or("auto", one_word_or("none", options));
        object.optional(name, doc, Some(json!("auto")), schema);
    }
}
