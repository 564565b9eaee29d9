//! Declares the options of a request, each in one place: name, type, default, range and
//! documentation.
//!
//! `options!` makes of such a declaration the struct that the service works with, its reader,
//! which finds all problems at once, and its schema in openapi.yaml. `choices!` does the same for
//! an enum whose variants are words or objects of one entry.

use serde_json::{Map, Value, json};
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

use crate::{
    auto::Auto,
    codes::INVALID_VALUE,
    fields::Fields,
    problem::{one_of, quoted, suggestion},
    rules::{AutoRule, Components, Invalid, Parsed, Rule, reference, to_schema},
};

/// A group of options: a JSON object.
pub trait Options: ToSchema + Sized {
    /// `None` only if a required option is missing or invalid, which is then among the problems.
    /// Any other invalid option has its default, so that the rest can be checked too.
    fn read(fields: &Fields<'_>) -> Option<Self>;

    fn describe(object: &mut ObjectSchema<'_>);

    fn doc() -> String;
}

/// Reads a group of options, and nothing else, from an object.
pub fn read_all<T: Options>(fields: Fields<'_>) -> Option<T> {
    let options = T::read(&fields);
    fields.finish();
    options
}

/// The options that an empty object gives.
///
/// # Panics
/// If an option is required.
pub fn defaults<T: Options>() -> T {
    let problems = std::cell::RefCell::default();
    let empty = Value::Object(Map::new());
    let fields = Fields::new(&empty, "", &problems).expect("an object");
    T::read(&fields).expect("every option has a default: this is a bug")
}

/// The schema of an object that is being described.
pub struct ObjectSchema<'a> {
    properties: Map<String, Value>,
    required: Vec<Value>,
    pub components: &'a mut Components,
}

impl ObjectSchema<'_> {
    /// Adds a property that may be left out or `null`.
    pub fn optional(&mut self, name: &str, doc: &str, default: Option<Value>, schema: Value) {
        let mut schema = nullable(schema);
        // Client generators take no object as a default.
        if let Some(default) = default.filter(|default| !default.is_object()) {
            schema["default"] = default;
        }
        self.insert(name, doc, schema);
    }

    pub fn required(&mut self, name: &str, doc: &str, schema: Value) {
        self.required.push(json!(name));
        self.insert(name, doc, schema);
    }

    fn insert(&mut self, name: &str, doc: &str, mut schema: Value) {
        if !doc.is_empty() {
            schema["description"] = json!(doc);
        }
        self.properties.insert(name.to_owned(), schema);
    }
}

fn nullable(mut schema: Value) -> Value {
    let no_value = json!({"type": "null"});
    if let Some(choices) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        choices.push(no_value);
        schema
    } else if let Some(kind @ Value::String(_)) = schema.get_mut("type") {
        *kind = json!([kind.take(), "null"]);
        schema
    } else {
        json!({"anyOf": [schema, no_value]})
    }
}

/// The schema of a group of options.
pub fn schema_of<T: Options>(components: &mut Components) -> RefOr<Schema> {
    let mut object = ObjectSchema {
        properties: Map::new(),
        required: Vec::new(),
        components,
    };
    T::describe(&mut object);
    to_schema(json!({
        "type": "object",
        "properties": object.properties,
        "required": object.required,
        "additionalProperties": false,
        "description": T::doc(),
    }))
}

/// A field of a group: whether it may be left out, what it then is, and the rule of its value.
pub trait Field<T> {
    /// `None` only if a required field is missing or invalid.
    fn read(&self, fields: &Fields<'_>, name: &'static str) -> Option<T>;

    fn describe(&self, object: &mut ObjectSchema<'_>, name: &str, doc: &str);
}

/// A field that must be there.
pub struct Required<T, R>(Option<T>, R);

pub fn required<T, R>(rule: R) -> Required<T, R> {
    Required(None, rule)
}

/// A field that must be there. If it is not, the rest of its group is read with `otherwise`.
pub fn required_or<T, R>(otherwise: T, rule: R) -> Required<T, R> {
    Required(Some(otherwise), rule)
}

impl<T: Clone, R: Rule<T>> Field<T> for Required<T, R> {
    fn read(&self, fields: &Fields<'_>, name: &'static str) -> Option<T> {
        let given = fields.required(name, |value| self.1.read(value));
        given.or_else(|| self.0.clone())
    }

    fn describe(&self, object: &mut ObjectSchema<'_>, name: &str, doc: &str) {
        let schema = self.1.schema(object.components);
        object.required(name, doc, schema);
    }
}

/// A field that may be left out.
pub struct Optional<R>(pub R);

impl<T, R: Rule<T>> Field<Option<T>> for Optional<R> {
    fn read(&self, fields: &Fields<'_>, name: &'static str) -> Option<Option<T>> {
        Some(fields.optional(name, |value| self.0.read(value)))
    }

    fn describe(&self, object: &mut ObjectSchema<'_>, name: &str, doc: &str) {
        let schema = self.0.schema(object.components);
        object.optional(name, doc, None, schema);
    }
}

/// A field with a default.
pub struct Or<T, R>(pub T, pub R);

impl<T: Clone + serde::Serialize, R: Rule<T>> Field<T> for Or<T, R> {
    fn read(&self, fields: &Fields<'_>, name: &'static str) -> Option<T> {
        let given = fields.optional(name, |value| self.1.read(value));
        Some(given.unwrap_or_else(|| self.0.clone()))
    }

    fn describe(&self, object: &mut ObjectSchema<'_>, name: &str, doc: &str) {
        let schema = self.1.schema(object.components);
        object.optional(name, doc, Some(json!(self.0)), schema);
    }
}

/// A field that may be `"auto"`, which is its default.
pub fn auto<T, R>(rule: R) -> Or<Auto<T>, AutoRule<R>> {
    Or(Auto::Auto, AutoRule(rule))
}

/// A nested group: an object, which may be left out.
pub struct Group;

impl Group {
    fn describe<T: Options>(object: &mut ObjectSchema<'_>, name: &str, doc: &str) {
        let schema = reference(&T::name(), object.components, schema_of::<T>);
        object.optional(name, doc, None, schema);
    }
}

/// Left out, each of its options has its default.
impl<T: Options> Field<T> for Group {
    fn read(&self, fields: &Fields<'_>, name: &'static str) -> Option<T> {
        let given = fields.object(name).and_then(read_all);
        Some(given.unwrap_or_else(defaults))
    }

    fn describe(&self, object: &mut ObjectSchema<'_>, name: &str, doc: &str) {
        Self::describe::<T>(object, name, doc);
    }
}

impl<T: Options> Field<Option<T>> for Group {
    fn read(&self, fields: &Fields<'_>, name: &'static str) -> Option<Option<T>> {
        Some(fields.object(name).and_then(read_all))
    }

    fn describe(&self, object: &mut ObjectSchema<'_>, name: &str, doc: &str) {
        Self::describe::<T>(object, name, doc);
    }
}

/// A nested group that must be there.
pub struct RequiredGroup;

impl<T: Options> Field<T> for RequiredGroup {
    fn read(&self, fields: &Fields<'_>, name: &'static str) -> Option<T> {
        fields.required_object(name).and_then(read_all)
    }

    fn describe(&self, object: &mut ObjectSchema<'_>, name: &str, doc: &str) {
        let schema = reference(&T::name(), object.components, schema_of::<T>);
        object.required(name, doc, schema);
    }
}

/// A group whose options are those of the group around it.
pub struct Flat;

impl<T: Options> Field<T> for Flat {
    fn read(&self, fields: &Fields<'_>, _: &'static str) -> Option<T> {
        T::read(fields)
    }

    fn describe(&self, object: &mut ObjectSchema<'_>, _: &str, _: &str) {
        T::describe(object);
    }
}

/// Joins the lines of a doc comment; an empty one separates paragraphs.
pub fn doc(lines: &[Option<&str>]) -> String {
    let lines: Vec<&str> = lines.iter().flatten().map(|line| line.trim()).collect();
    let paragraphs = lines.split(|line| line.is_empty());
    Vec::from_iter(paragraphs.map(|lines| lines.join(" "))).join("\n\n")
}

/// The doc comment among some attributes.
macro_rules! doc_of {
    ($(#[$($attribute:tt)*])*) => {
        $crate::options::doc(&[$($crate::options::doc_of!(@ $($attribute)*)),*])
    };
    (@ doc = $line:literal) => { Some($line) };
    (@ $($attribute:tt)*) => { None };
}

/// Declares a group of options: each field as `name: Type = field(rule)`.
macro_rules! options {
    (
        $(#[$($meta:tt)*])*
        pub struct $name:ident {
            $(
                $(#[$($field_meta:tt)*])*
                $field:ident $(as $json:literal)?: $type:ty = $rule:expr
            ),+ $(,)?
        }
    ) => {
        #[derive(Debug, Clone, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        $(#[$($meta)*])*
        pub struct $name {
            $($(#[$($field_meta)*])* $(#[serde(rename = $json)])? pub $field: $type),+
        }

        impl $crate::options::Options for $name {
            fn read(fields: &$crate::fields::Fields<'_>) -> Option<Self> {
                $(
                    let name = $crate::options::name_of!($field $($json)?);
                    let $field = $crate::options::Field::<$type>::read(&$rule, fields, name);
                )+
                Some(Self { $($field: $field?),+ })
            }

            fn describe(object: &mut $crate::options::ObjectSchema<'_>) {
                $(
                    let name = $crate::options::name_of!($field $($json)?);
                    let doc = $crate::options::doc_of!($(#[$($field_meta)*])*);
                    $crate::options::Field::<$type>::describe(&$rule, object, name, &doc);
                )+
            }

            fn doc() -> String {
                $crate::options::doc_of!($(#[$($meta)*])*)
            }
        }

        impl ::utoipa::PartialSchema for $name {
            fn schema() -> ::utoipa::openapi::RefOr<::utoipa::openapi::Schema> {
                $crate::options::schema_of::<Self>(&mut Vec::new())
            }
        }

        impl ::utoipa::ToSchema for $name {
            fn schemas(components: &mut $crate::rules::Components) {
                $crate::options::schema_of::<Self>(components);
            }
        }
    };
}

macro_rules! name_of {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $json:literal) => {
        $json
    };
}

/// Declares an enum whose variants are words, or objects of one entry: `Word = "word"`,
/// `Entry(Type) = "entry": rule`. A word marked `| true` may also be written `{"word": true}`.
macro_rules! choices {
    (
        $(#[$($meta:tt)*])*
        pub enum $name:ident {
            $(
                $(#[$($variant_meta:tt)*])*
                $variant:ident $(($type:ty))? = $word:literal $(| $flag:literal)? $(: $rule:expr)?
            ),+ $(,)?
        }
    ) => {
        $(#[$($meta)*])*
        #[derive(Debug, Clone, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        pub enum $name {
            $($(#[$($variant_meta)*])* #[serde(rename = $word)] $variant $(($type))?),+
        }

        impl $crate::rules::Rule<$name> for $crate::rules::Own {
            fn read(&self, value: &::serde_json::Value) -> $crate::rules::Parsed<$name> {
                let names = [$($word),+];
                let (name, setting) = $crate::options::choice(value, &names)?;
                let read = match name {
                    $($word => $crate::options::choice_of!(
                        setting, $name::$variant $(, flag $flag)? $(, rule $rule)?
                    ),)+
                    other => return Err($crate::options::unknown_choice(other, &names)),
                };
                read.map_err(|invalid| invalid.at(format!("`{name}`")))
            }

            fn schema(&self, components: &mut $crate::rules::Components) -> ::serde_json::Value {
                $crate::rules::reference(stringify!($name), components, |components| {
                    let mut choices = Vec::new();
                    $(
                        let doc = $crate::options::doc_of!($(#[$($variant_meta)*])*);
                        $crate::options::choice_schema_of!(
                            components, choices, $word, &doc $(, flag $flag)? $(, rule ($type) $rule)?
                        );
                    )+
                    let doc = $crate::options::doc_of!($(#[$($meta)*])*);
                    $crate::rules::to_schema(
                        ::serde_json::json!({"oneOf": choices, "description": doc}),
                    )
                })
            }
        }

        impl ::utoipa::PartialSchema for $name {
            fn schema() -> ::utoipa::openapi::RefOr<::utoipa::openapi::Schema> {
                let mut components = Vec::new();
                <Self as ::utoipa::ToSchema>::schemas(&mut components);
                components.swap_remove(0).1
            }
        }

        impl ::utoipa::ToSchema for $name {
            fn schemas(components: &mut $crate::rules::Components) {
                $crate::rules::Rule::<Self>::schema(&$crate::rules::Own, components);
            }
        }
    };
}

/// The variant of a choice that is read, and its value: `"word"` or `{"entry": value}`.
pub fn choice<'a>(value: &'a Value, names: &[&str]) -> Parsed<(&'a str, Option<&'a Value>)> {
    match value {
        Value::String(word) => Ok((word, None)),
        Value::Object(one) if one.len() == 1 => {
            let (name, setting) = one.iter().next().expect("one entry");
            Ok((name, Some(setting)))
        }
        other => {
            let expected = format!("a word or an object of one entry: {}", one_of(names));
            Err(Invalid::wrong_type(&expected, other))
        }
    }
}

pub fn unknown_choice(given: &str, names: &[&str]) -> Invalid {
    let near = suggestion(given, names.iter().copied());
    Invalid::new(
        INVALID_VALUE,
        format!("has no form `{}`; {near}", quoted(given)),
    )
}

/// Checks that a variant without a value has none, or a flag that it may have.
pub fn no_value(setting: Option<&Value>, flags: &[bool]) -> Parsed<()> {
    let message = "takes no value; give it as a word";
    match (setting, flags.first()) {
        (None, _) => Ok(()),
        (Some(given), Some(flag)) if given == flag => Ok(()),
        (Some(other), Some(flag)) => Err(Invalid::wrong_type(&flag.to_string(), other)),
        (Some(_), None) => Err(Invalid::new(INVALID_VALUE, message)),
    }
}

/// Reads the value of a variant that has one.
pub fn its_value<T>(setting: Option<&Value>, rule: &impl Rule<T>) -> Parsed<T> {
    let missing = || Invalid::new(INVALID_VALUE, "needs a value; give an object of one entry");
    rule.read(setting.ok_or_else(missing)?)
}

pub fn word_schema(choices: &mut Vec<Value>, word: &str, doc: &str, flags: &[bool]) {
    choices.push(json!({"type": "string", "enum": [word], "description": doc}));
    for flag in flags {
        let schema = json!({"type": "boolean", "enum": [flag]});
        entry_schema(choices, word, doc, schema);
    }
}

pub fn entry_schema(choices: &mut Vec<Value>, name: &str, doc: &str, schema: Value) {
    choices.push(json!({
        "type": "object",
        "required": [name],
        "properties": {name: schema},
        "additionalProperties": false,
        "description": doc,
    }));
}

macro_rules! choice_of {
    ($setting:expr, $variant:expr $(, flag $flag:literal)?) => {
        $crate::options::no_value($setting, &[$($flag)?]).map(|()| $variant)
    };
    ($setting:expr, $variant:expr, rule $rule:expr) => {
        $crate::options::its_value($setting, &$rule).map($variant)
    };
}

macro_rules! choice_schema_of {
    ($components:expr, $choices:expr, $word:literal, $doc:expr $(, flag $flag:literal)?) => {
        $crate::options::word_schema(&mut $choices, $word, $doc, &[$($flag)?])
    };
    ($components:expr, $choices:expr, $word:literal, $doc:expr, rule ($type:ty) $rule:expr) => {{
        let schema = $crate::rules::Rule::<$type>::schema(&$rule, $components);
        $crate::options::entry_schema(&mut $choices, $word, $doc, schema)
    }};
}

pub(crate) use {choice_of, choice_schema_of, choices, doc_of, name_of, options};
