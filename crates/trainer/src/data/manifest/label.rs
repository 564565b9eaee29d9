//! The label of one row: the cell under `label` or `value`.

use serde_json::Value;

use crate::{
    data::codes,
    domain::{limits, problem::Code},
};

/// The result of reading: the value, or a problem's code and message.
pub(in crate::data) type Read<T> = Result<T, (Code, String)>;

fn refused<T>(code: Code, message: impl Into<String>) -> Read<T> {
    Err((code, message.into()))
}

/// A row's label, as written.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::data) enum Label {
    /// Under `value`.
    Value(f64),
    /// A number under `label`: a target of regression, or the name of a class.
    Number {
        value: f64,
        text: String,
    },
    Name(String),
    /// Different names; there may be none.
    List(Vec<String>),
}

impl Label {
    /// The names of classes in it.
    pub(in crate::data) fn names(&self) -> &[String] {
        match self {
            Self::Value(_) => &[],
            Self::Number { text, .. } => std::slice::from_ref(text),
            Self::Name(name) => std::slice::from_ref(name),
            Self::List(names) => names,
        }
    }

    pub(in crate::data) fn number(&self) -> Option<f64> {
        match *self {
            Self::Value(value) | Self::Number { value, .. } => Some(value),
            Self::Name(_) | Self::List(_) => None,
        }
    }
}

/// A cell of a CSV that is not empty: a JSON list, `a|b`, a number, or a name.
pub(in crate::data) fn of_text(cell: &str) -> Read<Label> {
    if cell.trim_start().starts_with('[') {
        return match serde_json::from_str(cell) {
            Ok(Value::Array(items)) => list_of_json(&items),
            _ => {
                let message = "this begins as a list but is no JSON, such as [\"cat\", \"dog\"]; in a CSV, quotes inside a field are doubled";
                refused(codes::INVALID_LABEL, message)
            }
        };
    }
    if cell.contains('|') {
        return list(separated(cell));
    }
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    let number = cell.trim();
    match number.parse() {
        Ok(value) if number.chars().all(plain) => Ok(Label::Number {
            value,
            text: number.to_owned(),
        }),
        _ => Ok(Label::Name(cell.to_owned())),
    }
}

pub(in crate::data) fn of_json(value: &Value) -> Read<Label> {
    match value {
        Value::String(text) if text.is_empty() => {
            let message = "this row's label is empty; a sample without any label has []";
            refused(codes::MISSING_LABEL, message)
        }
        Value::String(text) if text.contains('|') => list(separated(text)),
        Value::String(text) => Ok(Label::Name(text.clone())),
        Value::Number(number) => Ok(Label::Number {
            value: number.as_f64().unwrap_or(f64::INFINITY),
            text: number.to_string(),
        }),
        Value::Array(items) => list_of_json(items),
        _ => {
            let message = "`label` must be a name, a list of names, or a number";
            refused(codes::INVALID_LABEL, message)
        }
    }
}

fn list_of_json(items: &[Value]) -> Read<Label> {
    let name = |item: &Value| match item {
        Value::String(name) => Ok(name.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => refused(
            codes::INVALID_LABEL,
            "a list of labels must hold names only",
        ),
    };
    list(items.iter().map(name).collect::<Read<_>>()?)
}

fn separated(text: &str) -> Vec<String> {
    text.split('|').map(str::to_owned).collect()
}

pub(in crate::data) fn list(mut names: Vec<String>) -> Read<Label> {
    let most = limits::LABELS;
    if names.len() > most {
        let message = format!("this row has {} labels, more than {most}", names.len());
        return refused(codes::TOO_MANY_LABELS, message);
    }
    names.sort();
    if names.iter().any(String::is_empty) {
        let message = "a label of this list is empty; remove the `|` too much";
        return refused(codes::INVALID_LABEL, message);
    }
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let shown: String = twice[0].chars().take(limits::LABEL_CHARACTERS).collect();
        let message = format!("this list has the label {shown:?} twice");
        return refused(codes::INVALID_LABEL, message);
    }
    Ok(Label::List(names))
}

pub(in crate::data) fn value_of_text(cell: &str) -> Read<Label> {
    checked(cell.trim().parse().ok())
}

pub(in crate::data) fn value_of_json(value: &Value) -> Read<Label> {
    checked(value.as_f64())
}

pub(in crate::data) fn value(number: f64) -> Read<Label> {
    checked(Some(number))
}

fn checked(value: Option<f64>) -> Read<Label> {
    value
        .filter(in_range)
        .map(Label::Value)
        .ok_or_else(|| (codes::INVALID_NUMBER, number_rule()))
}

/// True for numbers that can be a target.
pub(in crate::data) fn in_range(value: &f64) -> bool {
    limits::VALUE.contains(value)
}

pub(in crate::data) fn number_rule() -> String {
    let (low, high) = (limits::VALUE.start(), limits::VALUE.end());
    format!("must be a number from {low:e} to {high:e}, with a decimal point")
}
