//! Authentication. A service without keys that listens on loopback is open: every request belongs
//! to the default tenant. Any other requires `Authorization: Bearer rh_<public prefix>_<secret>`;
//! all wrong keys get the same response.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{
    db::{self, tenants::TenantId},
    http::api::{error::ApiError, state::AppState},
};

/// The beginning of every key.
const MARK: &str = "rh_";
const PREFIX_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;

/// A new key. Its text is shown once and not stored.
pub struct NewKey {
    pub text: String,
    /// The public part, by which the key is looked up.
    pub prefix: String,
    /// SHA-256 of the text, which the database stores. The secret has 256 random bits, so a fast
    /// hash is enough.
    pub sha256: [u8; 32],
}

impl NewKey {
    /// Generates a key.
    #[expect(
        clippy::new_without_default,
        reason = "a default must not differ from call to call"
    )]
    pub fn new() -> Self {
        let prefix = hex::encode(rand::random::<[u8; PREFIX_BYTES]>());
        let secret = hex::encode(rand::random::<[u8; SECRET_BYTES]>());
        let text = format!("{MARK}{prefix}_{secret}");
        let sha256 = Sha256::digest(&text).into();
        Self {
            text,
            prefix,
            sha256,
        }
    }
}

/// The public prefix of a well-formed key.
fn prefix_of(key: &str) -> Option<&str> {
    let (prefix, secret) = key.strip_prefix(MARK)?.split_once('_')?;
    let hex = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let sized = prefix.len() == 2 * PREFIX_BYTES && secret.len() == 2 * SECRET_BYTES;
    (sized && hex(prefix) && hex(secret)).then_some(prefix)
}

/// The tenant of a request, and the state that serves it; every route that reads or writes rows
/// extracts both.
pub(crate) struct Caller {
    pub state: AppState,
    pub tenant: TenantId,
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        Ok(Self {
            tenant: authenticate(&parts.headers, state).await?,
            state: state.clone(),
        })
    }
}

async fn authenticate(headers: &HeaderMap, state: &AppState) -> Result<TenantId, ApiError> {
    let address = state.address.get();
    let loopback = address.is_some_and(|address| address.ip().is_loopback());
    if loopback && !state.keys_exist().await? {
        refuse_other_sites(headers)?;
        return Ok(db::tenants::default_id(&state.pool).await?);
    }
    let key = bearer(headers).ok_or_else(ApiError::unauthorized)?;
    let prefix = prefix_of(key).ok_or_else(ApiError::unauthorized)?;
    let stored = db::keys::find(&state.pool, prefix).await?;
    let digest = Sha256::digest(key);
    stored
        .filter(|stored| digest.as_slice().ct_eq(&stored.sha256).into())
        .map(|stored| stored.tenant)
        .ok_or_else(ApiError::unauthorized)
}

/// The key in the `authorization` header, if there is exactly one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// Refuses requests that a browser makes for other sites: an open service trusts this machine, but
/// pages of other sites run on it too, and their names may resolve to 127.0.0.1 (DNS rebinding).
fn refuse_other_sites(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let cross = matches!(text("sec-fetch-site"), Some("cross-site" | "same-site"));
    let host = text("host").unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let local = name.is_empty() || name == "localhost" || name.parse::<std::net::IpAddr>().is_ok();
    if cross || !local {
        let message = "this service has no API keys and accepts only requests from this machine, to `localhost` or an address; \
                       create a key with `rehead keys create` to use it from elsewhere";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "other_site", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_one_shape() {
        let key = NewKey::new();
        assert_eq!(prefix_of(&key.text), Some(key.prefix.as_str()));
        for wrong in [
            "",
            "rh_",
            "rh__",
            &key.text[1..],
            &key.text.to_uppercase(),
            &format!("{}0", key.text),
            "rh_é_",
        ] {
            assert_eq!(prefix_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn other_sites_are_refused() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect()
        };
        for good in [
            &[("host", "127.0.0.1:8080")][..],
            &[("host", "localhost:1")],
            &[("host", "[::1]:80")],
            &[],
        ] {
            assert!(refuse_other_sites(&headers(good)).is_ok(), "{good:?}");
        }
        for bad in [
            &[("host", "evil.example:8080")][..],
            &[("host", "127.0.0.1"), ("sec-fetch-site", "cross-site")],
        ] {
            assert!(refuse_other_sites(&headers(bad)).is_err(), "{bad:?}");
        }
    }
}
