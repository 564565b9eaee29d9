//! Options that take a word instead of a value: `"auto"` or `"none"`.

use serde::{Deserialize, Serialize};

/// `"auto"`, which leaves the choice to the service, or a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auto<T> {
    #[default]
    Auto,
    #[serde(untagged)]
    Value(T),
}

/// `"none"`, which turns the option off, or a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrNone<T> {
    #[default]
    None,
    #[serde(untagged)]
    Value(T),
}

impl<T> Auto<T> {
    /// The value, if the request gives one.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Auto => None,
            Self::Value(value) => Some(value),
        }
    }
}

impl<T> OrNone<T> {
    pub fn value(self) -> Option<T> {
        match self {
            Self::None => None,
            Self::Value(value) => Some(value),
        }
    }
}
