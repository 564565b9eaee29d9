//! Typed ids: a prefix for the noun, then a UUIDv7 in lower-case hex. Opaque to clients, sortable
//! by time.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

/// The text is not an id of the expected noun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    #[error("not an id that starts with `{prefix}`")]
    Prefix { prefix: &'static str },
    /// An id of another service, such as those in OpenAI's examples, or one that was cut off.
    #[error(
        "not an id of this service, `{prefix}` and 32 digits from 0 to f; use the one that was answered when it was created"
    )]
    Digits { prefix: &'static str },
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, later in order than every id made before it.
            #[expect(clippy::new_without_default, reason = "a default that differs each time would surprise")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.simple())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            /// Accepts exactly what `Display` writes: another spelling of an id would be a second
            /// name for one row.
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let error = ParseIdError::Digits { prefix: $prefix };
                let hex = text.strip_prefix($prefix).ok_or(ParseIdError::Prefix { prefix: $prefix })?;
                let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                if hex.len() != 32 || !hex.bytes().all(lower_hex) {
                    return Err(error);
                }
                Uuid::try_parse(hex).map(Self).map_err(|_| error)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::schema::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(concat!("^", $prefix, "[0-9a-f]{32}$")))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

id!(/** An uploaded file. */ FileId, "file-");
id!(/** An upload in parts. */ UploadId, "upload_");
id!(/** A part of an upload. */ PartId, "part_");
id!(/** A fine-tuning job. */ JobId, "ftjob-");
id!(/** A ranking of base models. */ RankingId, "rank-");
id!(/** A push of a model to a hub. */ PushId, "push-");
id!(/** One line of a job's history. */ EventId, "ftevent-");
id!(/** A stored checkpoint. */ CheckpointId, "ftckpt_");
id!(/** One HTTP request. */ RequestId, "req_");
id!(/** A registered webhook. */ WebhookId, "wh_");
id!(/** An event that webhooks are sent. */ WebhookEventId, "evt_");
id!(/** One event on its way to one webhook. */ DeliveryId, "whd_");
id!(/** One worker process, from its start to its end. */ WorkerId, "worker_");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = JobId::new();
        assert_eq!(id.to_string().parse::<JobId>(), Ok(id));
        for wrong in [
            id.to_string().to_uppercase(),
            id.0.to_string(),
            format!("ftjob-{}", id.0),
            format!("file-{}", id.0.simple()),
            "ftjob-".to_owned(),
            "ftjob-..%2f..%2f".to_owned(),
        ] {
            assert!(wrong.parse::<JobId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ids_sort_by_time() {
        let ids: Vec<JobId> = (0..100).map(|_| JobId::new()).collect();
        assert!(ids.is_sorted());
    }
}
