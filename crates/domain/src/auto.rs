//! Options that take a word instead of a value: `"auto"` or `"none"`.

use serde::{Deserialize, Serialize};

/// `"auto"`, which leaves the choice to the service, or a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Auto<T> {
    #[default]
    #[serde(with = "auto")]
    Auto,
    Value(T),
}

/// `"none"`, which turns the option off, or a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OrNone<T> {
    #[default]
    #[serde(with = "none")]
    None,
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

/// Serde for a unit variant that is written as one word.
macro_rules! word {
    ($word:ident) => {
        mod $word {
            use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

            const WORD: &str = stringify!($word);

            pub(super) fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(WORD)
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<(), D::Error> {
                match String::deserialize(deserializer)?.as_str() {
                    WORD => Ok(()),
                    other => Err(D::Error::custom(format!(
                        "expected \"{WORD}\", not {other:?}"
                    ))),
                }
            }
        }
    };
}

word!(auto);
word!(none);
