//! The session of a browser: a cookie in place of a key, so that images, downloads and streams of
//! the dashboard need no key in a script or an address.
//!
//! Scripts cannot read it, and browsers do not send it from other sites. Another port of the same
//! host is no other site, though, so every request that comes with it is checked by
//! `origin::check_page`.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use tokio::time::Instant;

use crate::{
    config::SessionArgs,
    db::{self, sessions::Lifetimes},
    http::api::{error::ApiError, identity::Sender, state::AppState},
    keys,
};

/// Name of the cookie.
pub(crate) const COOKIE: &str = "rehead_session";
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

impl SessionArgs {
    pub(crate) fn lifetimes(&self) -> Lifetimes {
        Lifetimes {
            idle: Duration::from_secs(self.session_idle_seconds),
            longest: Duration::from_secs(self.session_seconds),
        }
    }
}

/// A new token, which goes into the cookie and nowhere else.
pub(crate) fn new_token() -> String {
    hex::encode(rand::random::<[u8; TOKEN_BYTES]>())
}

/// The token in the request's cookie. Of several, which pages of neighboring hosts can cause, none
/// is taken.
pub(crate) fn token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let pairs = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    let mut tokens = pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value);
    let token = tokens.next()?;
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let fits = token.len() == 2 * TOKEN_BYTES && token.bytes().all(hex);
    (fits && tokens.next().is_none()).then_some(token)
}

/// The value of `set-cookie`. Without `max_age` the browser forgets the cookie when it is closed.
pub(crate) fn cookie(token: &str, max_age: Option<Duration>, is_secure: bool) -> HeaderValue {
    let mut text = format!("{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/");
    if let Some(age) = max_age {
        text += &format!("; Max-Age={}", age.as_secs());
    }
    if is_secure {
        text += "; Secure";
    }
    HeaderValue::try_from(text).expect("a cookie is made of plain characters: this is a bug")
}

/// The sender that a session belongs to.
///
/// # Errors
/// 401: it has ended, or its key is no longer valid.
pub(crate) async fn find(state: &AppState, token: &str) -> Result<Sender, ApiError> {
    let started = Instant::now();
    let digest = keys::digest(token);
    let attempts = &state.access.key_attempts;
    if let Some(sender) = attempts.recent(&digest) {
        return Ok(sender);
    }
    let refused = &state.access.refused_sessions;
    if refused.has(&digest) {
        return Err(ApiError::session_ended());
    }
    let refuse = || {
        refused.add(digest);
        ApiError::session_ended()
    };
    let session = db::sessions::find(&state.pool, &digest).await?;
    let (_, key) = session.ok_or_else(refuse)?;
    let found = db::keys::find(&state.pool, &key).await?;
    let found = found.filter(|found| found.is_valid).ok_or_else(refuse)?;
    let sender = Sender::new(key, found, &state.limits.tenant);
    if attempts.accept(digest, sender.clone(), started) {
        record_use(state, digest);
    }
    Ok(sender)
}

/// Records the use of a session, beside the request.
fn record_use(state: &AppState, digest: [u8; 32]) {
    let (pool, lifetimes) = (state.pool.clone(), state.sessions.lifetimes());
    tokio::spawn(async move {
        if let Err(error) = db::sessions::record_use(&pool, &digest, lifetimes).await {
            tracing::warn!("cannot record the use of a session: {error}");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token_of(cookies: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in cookies {
            headers.append(header::COOKIE, HeaderValue::from_static(value));
        }
        token(&headers).map(str::to_owned)
    }

    #[test]
    fn token_is_read_among_other_cookies() {
        const ONE: &str =
            "rehead_session=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        const AMONG: &str = "a=b; rehead_session=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef;c";
        let found = ONE.split_once('=').map(|(_, token)| token.to_owned());
        assert_eq!(token_of(&[ONE]), found);
        assert_eq!(token_of(&[AMONG]), found);
        assert_eq!(token_of(&["a=b", ONE]), found);
        for none in [
            &[][..],
            &["a=b"],
            &["rehead_session="],
            &["rehead_session=0123"],
            &[
                "other_rehead_session=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            ],
            &["rehead_session=0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef"],
            &[ONE, ONE],
        ] {
            assert_eq!(token_of(none), None, "{none:?}");
        }
    }

    #[test]
    fn cookie_is_out_of_reach_of_scripts_and_other_sites() {
        let token = new_token();
        assert_eq!(token.len(), 64);
        assert_eq!(
            cookie(&token, None, false),
            format!("rehead_session={token}; HttpOnly; SameSite=Strict; Path=/")
        );
        let kept = cookie("", Some(Duration::from_secs(5)), true);
        let kept = kept.to_str().unwrap();
        assert!(kept.ends_with("; Max-Age=5; Secure"), "{kept}");
    }
}
