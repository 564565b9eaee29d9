//! `ETag` and `If-None-Match` (RFC 9110, 13.1.2): a client that polls gets 304 while nothing has
//! changed.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// Bytes of the hash in a tag.
const TAG_BYTES: usize = 16;

/// The tag of an object that has no version of its own: a hash of its JSON.
pub(crate) fn etag_of<T: Serialize>(object: &T) -> String {
    let json = serde_json::to_vec(object).unwrap_or_default();
    let hash = hex::encode(&Sha256::digest(json)[..TAG_BYTES]);
    format!("W/\"{hash}\"")
}

/// True when `if-none-match` has this tag, weak or strong, or `*`.
pub(crate) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut tags = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let etag = opaque(etag);
    tags.any(|tag| tag.trim() == "*" || opaque(tag) == etag)
}

/// True when there is a tag that `is_known` could compare.
pub(crate) fn is_conditional(headers: &HeaderMap) -> bool {
    headers.contains_key(header::IF_NONE_MATCH)
}

/// True for a client that accepts nothing that is kept (RFC 9111, 5.2.1.4).
pub(crate) fn wants_current(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|directive| directive.trim().eq_ignore_ascii_case("no-cache"))
}

/// True when an object is no longer as the client knows it, or, where the request has no tag, as
/// it was `before`.
pub(crate) fn has_changed(headers: &HeaderMap, before: Option<&str>, etag: &str) -> bool {
    match before {
        Some(before) => before != etag,
        None => !is_known(headers, etag),
    }
}

/// The object with its tag, or 304 if the client has it.
pub(crate) fn respond<T: Serialize>(
    headers: &HeaderMap,
    etag: String,
    object: impl FnOnce() -> T,
) -> Response {
    let mut response = if is_known(headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        axum::Json(object()).into_response()
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_weakly_and_in_lists() {
        let known = |value: &'static str, etag: &str| {
            let value = HeaderValue::from_static(value);
            is_known(
                &HeaderMap::from_iter([(header::IF_NONE_MATCH, value)]),
                etag,
            )
        };
        for yes in ["W/\"1\"", "\"1\"", "\"0\", W/\"1\"", "*", " \"1\" "] {
            assert!(known(yes, "W/\"1\""), "{yes}");
        }
        for no in ["W/\"2\"", "1", "", "\"11\""] {
            assert!(!known(no, "W/\"1\""), "{no}");
        }
        assert!(!is_known(&HeaderMap::new(), "W/\"1\""));
        assert_ne!(etag_of(&1), etag_of(&2));
    }
}
