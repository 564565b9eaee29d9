//! Enums that are words in JSON, SQL and on the command line.

use crate::problem::{one_of, quoted};

/// A text that is none of an enum's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be {}, not `{}`", one_of(.known), quoted(.given))]
pub struct UnknownWord {
    pub given: String,
    pub known: &'static [&'static str],
}

/// An enum made by [`words!`](crate::words!).
pub trait Words: Copy + std::str::FromStr<Err = UnknownWord> + 'static {
    /// Every word, in the order of declaration.
    const WORDS: &'static [&'static str];
}

/// Declares an enum and the word of each variant, once: `as_str`, `ALL`, `FromStr`, `Display`,
/// serde and the schema follow.
///
/// ```
/// rehead_domain::words! {
/// /// How a door stands.
/// #[derive(PartialOrd, Ord)]
/// pub enum Door {
/// Open = "open",
/// /// Neither open nor locked.
/// Closed = "closed",
/// }
/// }
/// assert_eq!("closed".parse(), Ok(Door::Closed));
/// assert_eq!(Door::ALL.map(Door::as_str), ["open", "closed"]);
/// ```
#[macro_export]
macro_rules! words {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $($(#[$variant_meta:meta])* $variant:ident = $word:tt),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash,
            ::serde::Serialize, ::serde::Deserialize, ::utoipa::ToSchema,
        )]
        $vis enum $name {
            $($(#[$variant_meta])* #[serde(rename = $word)] $variant),+
        }

        #[allow(dead_code, reason = "not every enum needs everything")]
        impl $name {
            /// Every value, in the order of declaration.
            $vis const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// The word in JSON and SQL.
            $vis const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl $crate::words::Words for $name {
            const WORDS: &'static [&'static str] = &[$($word),+];
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::words::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.into_iter().find(|value| value.as_str() == text);
                found.ok_or_else(|| $crate::words::UnknownWord {
                    given: text.to_owned(),
                    known: <Self as $crate::words::Words>::WORDS,
                })
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    words! {
        /// How a door stands.
        enum Door {
            Open = "open",
            HalfOpen = "half-open",
        }
    }

    #[test]
    fn json_text_and_list_have_the_same_words() {
        for door in Door::ALL {
            assert_eq!(serde_json::to_value(door).unwrap(), door.as_str());
            assert_eq!(
                serde_json::from_value(door.as_str().into()).ok(),
                Some(door)
            );
            assert_eq!(door.to_string().parse(), Ok(door));
        }
        let schema = serde_json::to_value(<Door as utoipa::PartialSchema>::schema()).unwrap();
        assert_eq!(schema["enum"], serde_json::json!(Door::WORDS));
    }

    #[test]
    fn an_unknown_word_is_answered_with_the_known_ones() {
        let error = "ajar".parse::<Door>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "must be `open` or `half-open`, not `ajar`"
        );
    }
}
