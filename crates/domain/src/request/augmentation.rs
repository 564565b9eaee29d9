//! `method.transfer.augmentation`: random changes of training images.

use serde_json::Value;

use crate::{
    augmentation::Augmentation,
    auto::{Auto, OrNone},
    fields::Fields,
    limits,
    options::{Field, Flat, ObjectSchema, auto, options, read_all, schema_of},
    rules::{Components, Integer, Invalid, OrNoneRule, Parsed, Rule, reference},
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
        views: Auto<u64> = auto(Integer(limits::VIEWS)),
    }
}

type Asked = Auto<OrNone<AugmentationOptions>>;

/// `"auto"`, `"none"`, or an object, whose problems have paths of their own.
pub(super) struct AugmentationField;

impl Field<Asked> for AugmentationField {
    fn read(&self, fields: &Fields<'_>, name: &'static str) -> Option<Asked> {
        if let Some(Value::Object(_)) = fields.get(name) {
            let options = fields.object(name).and_then(read_all);
            return options.map(|options| Auto::Value(OrNone::Value(options)));
        }
        auto(OrNoneRule(Object)).read(fields, name)
    }

    fn describe(&self, object: &mut ObjectSchema<'_>, name: &str, doc: &str) {
        Field::<Asked>::describe(&auto(OrNoneRule(Object)), object, name, doc);
    }
}

/// The schema of an object that is not read by a rule.
struct Object;

impl Rule<AugmentationOptions> for Object {
    fn read(&self, value: &Value) -> Parsed<AugmentationOptions> {
        Err(Invalid::wrong_type("an object", value))
    }

    fn schema(&self, components: &mut Components) -> Value {
        let schema = schema_of::<AugmentationOptions>;
        reference("AugmentationOptions", components, schema)
    }
}
