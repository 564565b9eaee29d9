//! `Idempotency-Key`: a request that creates something may be sent again with the same key. It then
//! gets the first answer, or, with another body, a 409.

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, HeaderValue, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use utoipa::IntoParams;

use crate::{
    db::idempotency::{Idempotency, Keyed},
    domain::{codes, limits::IDEMPOTENCY_KEY_CHARACTERS},
    http::api::{error::ApiError, state::AppState},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The key of a request, if it has one.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct IdempotencyKey {
    /// The same key with the same body gives the first answer again.
    #[param(
        rename = "idempotency-key",
        min_length = 1,
        max_length = 255,
        pattern = "^[ -~]+$"
    )]
    pub key: Option<String>,
}

impl FromRequestParts<AppState> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(IDEMPOTENCY_KEY) else {
            return Ok(Self { key: None });
        };
        let key = value.to_str().unwrap_or_default();
        if !is_key(key) {
            let message =
                format!("must be 1 to {IDEMPOTENCY_KEY_CHARACTERS} printable ASCII characters");
            return Err(ApiError::invalid(
                "Idempotency-Key",
                codes::INVALID_VALUE,
                message,
            ));
        }
        let key = Some(key.to_owned());
        Ok(Self { key })
    }
}

/// True for printable ASCII of a length that the database takes. A header may have tabs, too.
fn is_key(text: &str) -> bool {
    (1..=IDEMPOTENCY_KEY_CHARACTERS).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

impl IdempotencyKey {
    /// The key, and the hash of the body's values (its white space does not count).
    pub(crate) fn with_body(self, body: &Value) -> Option<Idempotency> {
        let body_sha256 = || Sha256::digest(body.to_string()).into();
        self.key.map(|key| Idempotency {
            body_sha256: body_sha256(),
            key,
        })
    }
}

/// 409: the key came with another body.
pub(crate) fn key_reused() -> ApiError {
    let message =
        "this `Idempotency-Key` was used with another body; use a new key for a new request";
    ApiError::conflict("idempotency_key_reused", message)
}

/// The response with an object that was created, perhaps by an earlier request.
///
/// # Errors
/// The key was used with another body.
pub(crate) fn respond<T: Serialize>(outcome: Keyed<T>) -> Result<Response, ApiError> {
    match outcome {
        Keyed::New(object) => Ok(axum::Json(object).into_response()),
        Keyed::Replayed(object) => Ok(replayed(axum::Json(object).into_response())),
        Keyed::KeyConflict => Err(key_reused()),
    }
}

/// The response to a request whose key made the object before.
pub(crate) fn replayed(mut response: Response) -> Response {
    let replayed = HeaderValue::from_static("true");
    response.headers_mut().insert(IDEMPOTENT_REPLAYED, replayed);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_printable() {
        for key in ["k", "a b", "~!\"{}", &"k".repeat(255)] {
            assert!(is_key(key), "{key}");
        }
        for key in ["", "a\tb", "\u{7f}", "ü", &"k".repeat(256)] {
            assert!(!is_key(key), "{key}");
        }
    }

    #[test]
    fn idempotency_ignores_white_space() {
        let hash = |text: &str| {
            let key = Some("k".to_owned());
            let body = serde_json::from_str(text).unwrap();
            IdempotencyKey { key }.with_body(&body).unwrap().body_sha256
        };
        assert_eq!(hash(r#"{"a": 1}"#), hash(r#"{"a":1}"#));
        assert_ne!(hash(r#"{"a": 1}"#), hash(r#"{"a":2}"#));
    }
}
