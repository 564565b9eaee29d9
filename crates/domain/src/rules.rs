//! Rules for one JSON value of a request: how to read it, and its JSON Schema. Both come from the
//! same bounds, so that the contract cannot say anything else than the reader.

use std::ops::{Bound, RangeBounds, RangeInclusive};

use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

use crate::{
    auto::{Auto, OrNone},
    codes::{INVALID_VALUE, OUT_OF_RANGE, WRONG_TYPE},
    problem::{Code, one_of},
    words::Words,
};

/// Why a value is refused. The message follows the value's path: `must be …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    pub code: Code,
    pub message: String,
}

pub type Parsed<T> = Result<T, Invalid>;

impl Invalid {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    /// The value has another JSON type than expected.
    pub fn wrong_type(expected: &str, value: &Value) -> Self {
        let message = format!("must be {expected}, not {}", kind(value));
        Self::new(WRONG_TYPE, message)
    }

    /// The value is at `place` inside the field's value.
    pub fn at(self, place: impl std::fmt::Display) -> Self {
        let message = format!("{place} {}", self.message);
        Self { message, ..self }
    }

    /// The field also accepts `alternative`.
    pub fn or(self, alternative: &str) -> Self {
        let message = format!("{}, or {alternative}", self.message);
        Self { message, ..self }
    }
}

/// Named schemas that others refer to.
pub type Components = Vec<(String, RefOr<Schema>)>;

/// The rule of one value: how to read it, and its schema.
pub trait Rule<T> {
    fn read(&self, value: &Value) -> Parsed<T>;

    /// The JSON Schema; named schemas that it refers to are added to `components`.
    fn schema(&self, components: &mut Components) -> Value;
}

/// A reference to the schema of that name, which `schema` gives if it is not known yet.
pub fn reference(
    name: &str,
    components: &mut Components,
    schema: impl FnOnce(&mut Components) -> RefOr<Schema>,
) -> Value {
    if components.iter().all(|(known, _)| known != name) {
        let place = components.len();
        // The name comes first: a schema may refer to itself.
        components.push((name.to_owned(), RefOr::T(Schema::default())));
        components[place].1 = schema(components);
    }
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Turns JSON into the schema type of openapi.yaml.
///
/// # Panics
/// If the JSON is no schema.
pub fn to_schema(schema: Value) -> RefOr<Schema> {
    serde_json::from_value(schema).expect("a JSON Schema: this is a bug")
}

/// Reads a whole number; `78.0` and `1e3` are whole.
pub struct Integer(pub RangeInclusive<u64>);

impl<T: TryFrom<u64>> Rule<T> for Integer {
    fn read(&self, value: &Value) -> Parsed<T> {
        let expected = format!("a whole number from {} to {}", self.0.start(), self.0.end());
        let wrong_type = || Invalid::wrong_type(&expected, value);
        let number = value.as_number().ok_or_else(wrong_type)?;
        let whole = number.as_u64().or_else(|| {
            let float = number.as_f64()?;
            // Above 2^53 a float cannot tell neighboring integers apart.
            (float.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&float))
                .then_some(float as u64)
        });
        whole
            .filter(|whole| self.0.contains(whole))
            .and_then(|whole| T::try_from(whole).ok())
            .ok_or_else(|| Invalid::new(OUT_OF_RANGE, format!("must be {expected}, not {number}")))
    }

    fn schema(&self, _: &mut Components) -> Value {
        let (low, high) = (self.0.start(), self.0.end());
        json!({"type": "integer", "format": "int64", "minimum": low, "maximum": high})
    }
}

/// Reads a finite number.
pub struct Number(Bound<f64>, Bound<f64>);

pub fn number(range: impl RangeBounds<f64>) -> Number {
    Number(range.start_bound().cloned(), range.end_bound().cloned())
}

/// A share from 0 to 1.
pub fn share() -> Number {
    number(0.0..=1.0)
}

impl Rule<f64> for Number {
    fn read(&self, value: &Value) -> Parsed<f64> {
        let low = match self.0 {
            Bound::Included(low) => format!("from {low}"),
            Bound::Excluded(low) => format!("above {low}"),
            Bound::Unbounded => String::new(),
        };
        let high = match self.1 {
            Bound::Included(high) => format!("to {high}"),
            Bound::Excluded(high) => format!("below {high}"),
            Bound::Unbounded => String::new(),
        };
        let expected = format!("a number {low} {high}").trim_end().to_owned();
        let wrong_type = || Invalid::wrong_type(&expected, value);
        let number = value.as_number().ok_or_else(wrong_type)?;
        number
            .as_f64()
            .filter(|float| float.is_finite() && (self.0, self.1).contains(float))
            .ok_or_else(|| Invalid::new(OUT_OF_RANGE, format!("must be {expected}, not {number}")))
    }

    fn schema(&self, _: &mut Components) -> Value {
        let mut schema = json!({"type": "number", "format": "double"});
        let mut bound = |bound, included: &str, excluded: &str| match bound {
            Bound::Included(value) => schema[included] = json!(value),
            Bound::Excluded(value) => schema[excluded] = json!(value),
            Bound::Unbounded => {}
        };
        bound(self.0, "minimum", "exclusiveMinimum");
        bound(self.1, "maximum", "exclusiveMaximum");
        schema
    }
}

/// Reads two numbers within a range, the lower one first.
pub struct Bounds(pub RangeInclusive<f64>);

impl Rule<[f64; 2]> for Bounds {
    fn read(&self, value: &Value) -> Parsed<[f64; 2]> {
        let Some([low, high]) = value.as_array().map(Vec::as_slice) else {
            let expected = format!("two numbers from {} to {}", self.0.start(), self.0.end());
            return Err(Invalid::wrong_type(&expected, value));
        };
        let rule = number(self.0.clone());
        let low = rule.read(low).map_err(|invalid| invalid.at("[0]"))?;
        let high = rule.read(high).map_err(|invalid| invalid.at("[1]"))?;
        if low > high {
            let message = format!("must begin with the lower number, not {low}, {high}");
            return Err(Invalid::new(INVALID_VALUE, message));
        }
        Ok([low, high])
    }

    fn schema(&self, components: &mut Components) -> Value {
        let items = number(self.0.clone()).schema(components);
        json!({"type": "array", "items": items, "minItems": 2, "maxItems": 2})
    }
}

/// Reads text of at most this many characters, none of them a control character.
pub struct Text(pub usize);

impl Rule<String> for Text {
    fn read(&self, value: &Value) -> Parsed<String> {
        let text = string(value)?;
        if text.chars().count() > self.0 {
            let message = format!("must be at most {} characters long", self.0);
            return Err(Invalid::new(OUT_OF_RANGE, message));
        }
        if text.chars().any(char::is_control) {
            let message = "must not contain control characters";
            return Err(Invalid::new(INVALID_VALUE, message));
        }
        Ok(text.to_owned())
    }

    fn schema(&self, _: &mut Components) -> Value {
        json!({"type": "string", "maxLength": self.0})
    }
}

fn string(value: &Value) -> Parsed<&str> {
    let wrong_type = || Invalid::wrong_type("a string", value);
    value.as_str().ok_or_else(wrong_type)
}

/// Reads true or false.
pub struct Flag;

impl Rule<bool> for Flag {
    fn read(&self, value: &Value) -> Parsed<bool> {
        let wrong_type = || Invalid::wrong_type("true or false", value);
        value.as_bool().ok_or_else(wrong_type)
    }

    fn schema(&self, _: &mut Components) -> Value {
        json!({"type": "boolean"})
    }
}

/// Reads a word of an enum.
pub struct Word;

impl<T: Words + ToSchema> Rule<T> for Word {
    fn read(&self, value: &Value) -> Parsed<T> {
        let wrong_type = || Invalid::wrong_type(&one_of(T::WORDS), value);
        let word = value.as_str().ok_or_else(wrong_type)?;
        let unknown = |error: T::Err| Invalid::new(INVALID_VALUE, error.to_string());
        word.parse().map_err(unknown)
    }

    fn schema(&self, components: &mut Components) -> Value {
        reference(&T::name(), components, |_| T::schema())
    }
}

/// Reads an id.
pub struct Id;

impl<T: std::str::FromStr<Err: std::fmt::Display> + ToSchema> Rule<T> for Id {
    fn read(&self, value: &Value) -> Parsed<T> {
        let invalid = |error| Invalid::new(INVALID_VALUE, format!("is {error}"));
        string(value)?.parse().map_err(invalid)
    }

    fn schema(&self, components: &mut Components) -> Value {
        reference(&T::name(), components, |_| T::schema())
    }
}

/// Reads an enum that is made by `choices!`.
pub struct Own;

/// Reads a list whose length is within a range. The text names its items in messages.
pub struct List<R>(pub RangeInclusive<usize>, pub &'static str, pub R);

impl<T, R: Rule<T>> Rule<Vec<T>> for List<R> {
    fn read(&self, value: &Value) -> Parsed<Vec<T>> {
        let Self(lengths, items, rule) = self;
        let wrong_type = || Invalid::wrong_type(&format!("a list of {items}"), value);
        let list = value.as_array().ok_or_else(wrong_type)?;
        if !lengths.contains(&list.len()) {
            let (low, high, found) = (lengths.start(), lengths.end(), list.len());
            let message = format!("must be a list of {low} to {high} {items}, not of {found}");
            return Err(Invalid::new(OUT_OF_RANGE, message));
        }
        let read = |(place, value)| {
            let at = |invalid: Invalid| invalid.at(format!("[{place}]"));
            rule.read(value).map_err(at)
        };
        list.iter().enumerate().map(read).collect()
    }

    fn schema(&self, components: &mut Components) -> Value {
        let Self(lengths, _, rule) = self;
        let (low, high) = (lengths.start(), lengths.end());
        let items = rule.schema(components);
        json!({"type": "array", "items": items, "minItems": low, "maxItems": high})
    }
}

/// Reads `"none"`, or a value.
pub struct OrNoneRule<R>(pub R);

impl<T, R: Rule<T>> Rule<OrNone<T>> for OrNoneRule<R> {
    fn read(&self, value: &Value) -> Parsed<OrNone<T>> {
        if value == "none" {
            return Ok(OrNone::None);
        }
        let read = self.0.read(value).map(OrNone::Value);
        read.map_err(|invalid| invalid.or("\"none\""))
    }

    fn schema(&self, components: &mut Components) -> Value {
        one_word_or("none", self.0.schema(components))
    }
}

/// Reads `"auto"`, or a value.
pub struct AutoRule<R>(pub R);

impl<T, R: Rule<T>> Rule<Auto<T>> for AutoRule<R> {
    fn read(&self, value: &Value) -> Parsed<Auto<T>> {
        if value == "auto" {
            return Ok(Auto::Auto);
        }
        let read = self.0.read(value).map(Auto::Value);
        read.map_err(|invalid| invalid.or("\"auto\""))
    }

    fn schema(&self, components: &mut Components) -> Value {
        one_word_or("auto", self.0.schema(components))
    }
}

/// The schema of a word or a value. `anyOf`, because a text may be that word.
pub fn one_word_or(word: &str, schema: Value) -> Value {
    let mut choices = vec![json!({"type": "string", "enum": [word]})];
    match schema.get("anyOf").and_then(Value::as_array) {
        Some(inner) => choices.extend(inner.iter().cloned()),
        None => choices.push(schema),
    }
    json!({"anyOf": choices})
}

/// Names the JSON type of a value, with the value itself if it is short.
pub fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {:?}", text.chars().take(40).collect::<String>()),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_may_be_written_as_floats() {
        let read = |value: &Value| -> Parsed<u64> { Integer(1..=1_000).read(value) };
        assert_eq!(read(&json!(78.0)), Ok(78));
        assert_eq!(read(&json!(1e3)), Ok(1_000));
        for wrong in [
            json!(0),
            json!(-1),
            json!(1e9),
            json!(1.5),
            json!(1_001),
            json!(1e300),
        ] {
            assert_eq!(read(&wrong).unwrap_err().code, OUT_OF_RANGE, "{wrong}");
        }
        assert_eq!(read(&json!("3")).unwrap_err().code, WRONG_TYPE);
    }
}
