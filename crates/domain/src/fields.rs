//! Reads a JSON object field by field and collects every problem, where serde would stop at the first. A reader of
//! one value says what it expected; [`Fields`] adds where it was.

use std::{
    cell::RefCell,
    ops::{Bound, RangeBounds, RangeInclusive},
};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    problem::{Code, Problem, one_of, suggestion},
    request::Auto,
};

pub const MISSING_FIELD: Code = "missing_field";
pub const UNKNOWN_FIELD: Code = "unknown_field";
pub const WRONG_TYPE: Code = "wrong_type";
pub const OUT_OF_RANGE: Code = "out_of_range";
pub const INVALID_VALUE: Code = "invalid_value";
/// Part of the contract, but not of this version.
pub const NOT_AVAILABLE: Code = "not_available";

/// What reading one value gives: the value, or which kind of problem and a sentence.
pub type Read<T> = Result<T, (Code, String)>;

/// An object being read.
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    path: String,
    known: RefCell<Vec<&'static str>>,
    problems: &'a RefCell<Vec<Problem>>,
}

impl<'a> Fields<'a> {
    /// Starts to read `value`, which stands at `path`; notes a problem and gives nothing when it is not an object.
    pub fn new(value: &'a Value, path: &str, problems: &'a RefCell<Vec<Problem>>) -> Option<Self> {
        let Value::Object(object) = value else {
            let place = if path.is_empty() { "the body" } else { path };
            let message = format!("{place} must be a JSON object, not {}", kind(value));
            problems
                .borrow_mut()
                .push(Problem::new(path, WRONG_TYPE, message));
            return None;
        };
        Some(Self {
            object,
            path: path.to_owned(),
            known: RefCell::default(),
            problems,
        })
    }

    /// Where a field of this object stands.
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    pub fn problem(&self, name: &str, code: Code, message: impl Into<String>) {
        self.problems
            .borrow_mut()
            .push(Problem::new(self.path(name), code, message));
    }

    /// The raw field; `null` counts as left out.
    pub fn get(&self, name: &'static str) -> Option<&'a Value> {
        self.known.borrow_mut().push(name);
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// A field that may be left out; `None` also when it is wrong, which is then noted.
    pub fn optional<T>(&self, name: &'static str, read: impl Fn(&Value) -> Read<T>) -> Option<T> {
        match read(self.get(name)?) {
            Ok(value) => Some(value),
            Err((code, message)) => {
                self.problem(name, code, format!("{} {message}", self.path(name)));
                None
            }
        }
    }

    /// A field that must be there; `None` when it is missing or wrong, which is then noted.
    pub fn required<T>(&self, name: &'static str, read: impl Fn(&Value) -> Read<T>) -> Option<T> {
        if self.get(name).is_none() {
            self.problem(
                name,
                MISSING_FIELD,
                format!("{} is required", self.path(name)),
            );
            return None;
        }
        self.optional(name, read)
    }

    /// A field that may also be `"auto"`, which is its default.
    pub fn auto<T>(&self, name: &'static str, read: impl Fn(&Value) -> Read<T>) -> Auto<T> {
        let read = |value: &Value| match value {
            Value::String(word) if word == "auto" => Ok(Auto::Auto),
            other => match read(other) {
                Ok(value) => Ok(Auto::Value(value)),
                Err((code, message)) => Err((code, format!("{message}, or \"auto\""))),
            },
        };
        self.optional(name, read).unwrap_or_default()
    }

    /// A nested object that may be left out.
    pub fn object(&self, name: &'static str) -> Option<Fields<'a>> {
        Fields::new(self.get(name)?, &self.path(name), self.problems)
    }

    /// A field that this version knows but does not act on: only the values that mean "leave it" are taken.
    pub fn neutral(&self, name: &'static str, neutral: &[Value]) {
        if let Some(value) = self.get(name)
            && !neutral.contains(value)
        {
            let allowed: Vec<String> = neutral.iter().map(Value::to_string).collect();
            let path = self.path(name);
            let message = format!(
                "{path} is not available in this version; leave it out or give {}",
                allowed.join(" or ")
            );
            self.problem(name, NOT_AVAILABLE, message);
        }
    }

    /// Notes every field that nothing asked for.
    pub fn finish(self) {
        let known = self.known.borrow();
        for name in self
            .object
            .keys()
            .filter(|name| !known.contains(&name.as_str()))
        {
            let message = format!(
                "unknown field `{}`; {}",
                self.path(name),
                suggestion(name, known.iter().copied())
            );
            self.problem(name, UNKNOWN_FIELD, message);
        }
    }
}

/// Reads any text of at most `max` characters, none of them a control character.
pub fn text(max: usize) -> impl Fn(&Value) -> Read<String> {
    move |value| {
        let Value::String(text) = value else {
            return Err(wrong_type("a string", value));
        };
        if text.chars().count() > max {
            return Err((
                OUT_OF_RANGE,
                format!("must be at most {max} characters long"),
            ));
        }
        if text.chars().any(char::is_control) {
            return Err((INVALID_VALUE, "must not hold control characters".to_owned()));
        }
        Ok(text.clone())
    }
}

/// Reads a whole number; `78.0` and `1e3` are whole.
pub fn integer(range: RangeInclusive<u64>) -> impl Fn(&Value) -> Read<u64> {
    move |value| {
        let (low, high) = (range.start(), range.end());
        let Value::Number(number) = value else {
            return Err(wrong_type(
                &format!("a whole number from {low} to {high}"),
                value,
            ));
        };
        let whole = number.as_u64().or_else(|| {
            let float = number.as_f64()?;
            // 2^53: past it a float no longer tells neighbors apart.
            (float.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&float))
                .then_some(float as u64)
        });
        match whole {
            Some(whole) if range.contains(&whole) => Ok(whole),
            _ => Err((
                OUT_OF_RANGE,
                format!("must be a whole number from {low} to {high}, not {number}"),
            )),
        }
    }
}

/// Reads a finite number.
pub fn number(range: impl RangeBounds<f64>) -> impl Fn(&Value) -> Read<f64> {
    move |value| {
        let low = match range.start_bound() {
            Bound::Included(low) => format!("from {low}"),
            Bound::Excluded(low) => format!("above {low}"),
            Bound::Unbounded => String::new(),
        };
        let high = match range.end_bound() {
            Bound::Included(high) => format!("to {high}"),
            Bound::Excluded(high) => format!("below {high}"),
            Bound::Unbounded => String::new(),
        };
        let expected = format!("a number {low} {high}").trim_end().to_owned();
        let Value::Number(number) = value else {
            return Err(wrong_type(&expected, value));
        };
        match number.as_f64() {
            Some(float) if float.is_finite() && range.contains(&float) => Ok(float),
            _ => Err((OUT_OF_RANGE, format!("must be {expected}, not {number}"))),
        }
    }
}

/// Reads one of a closed set of words, by the names that serde gives them.
pub fn word<T: DeserializeOwned>(words: &'static [&'static str]) -> impl Fn(&Value) -> Read<T> {
    move |value| {
        let Value::String(given) = value else {
            return Err(wrong_type(&one_of(words), value));
        };
        let known = words
            .contains(&given.as_str())
            .then(|| serde_json::from_value(value.clone()).ok())
            .flatten();
        known.ok_or_else(|| {
            (
                INVALID_VALUE,
                format!("must be {}, not `{given}`", one_of(words)),
            )
        })
    }
}

/// Reads anything that parses from text, such as an id.
pub fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(value: &Value) -> Read<T> {
    let Value::String(text) = value else {
        return Err(wrong_type("a string", value));
    };
    text.parse()
        .map_err(|error| (INVALID_VALUE, format!("is {error}")))
}

/// The problem of a value that has another JSON type.
pub fn wrong_type(expected: &str, value: &Value) -> (Code, String) {
    (
        WRONG_TYPE,
        format!("must be {expected}, not {}", kind(value)),
    )
}

fn kind(value: &Value) -> String {
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
    use serde_json::json;

    use super::*;

    #[test]
    fn all_problems_come_at_once_with_their_paths() {
        let problems = RefCell::default();
        let body = json!({"epochs": 0, "rate": "NaN", "nmae": 1});
        let fields = Fields::new(&body, "method", &problems).unwrap();
        fields.auto("epochs", integer(1..=10));
        fields.auto("rate", number(0.0..=1.0));
        fields.required("name", text(3));
        fields.finish();
        let found: Vec<(String, String)> = problems
            .into_inner()
            .into_iter()
            .map(|p| (p.path, p.code))
            .collect();
        let expected = [
            ("method.epochs", OUT_OF_RANGE),
            ("method.rate", WRONG_TYPE),
            ("method.name", MISSING_FIELD),
            ("method.nmae", UNKNOWN_FIELD),
        ];
        assert_eq!(
            found,
            expected.map(|(path, code)| (path.to_owned(), code.to_owned()))
        );
    }

    #[test]
    fn whole_numbers_may_be_written_as_floats() {
        let read = integer(1..=1_000);
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
            assert_eq!(read(&wrong).unwrap_err().0, OUT_OF_RANGE, "{wrong}");
        }
        assert_eq!(read(&json!("3")).unwrap_err().0, WRONG_TYPE);
    }
}
