//! Redirects: a URL that a server names is checked as the first one was.

use reqwest::{
    Method, Response,
    header::{HeaderMap, LOCATION},
};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::client::{Outgoing, Refused, Unsent, Use};
use crate::domain::problem::quoted;

/// Redirects that are followed.
pub(super) const REDIRECTS: usize = 3;

/// Why neither a URL, nor what it redirects to, gave a response.
#[derive(Debug)]
pub(super) enum NoResponse {
    Refused(Refused),
    /// A redirect leads to a URL that may not be used.
    Redirected(Refused),
    TooManyRedirects,
    TimedOut,
    Unsent(Unsent),
}

impl Outgoing {
    /// Gets a URL, or what it redirects to. `by` is the time by which the next response must be
    /// there.
    pub(super) async fn get(
        &self,
        url: &str,
        headers: &HeaderMap,
        by: impl Fn() -> Instant,
    ) -> Result<Response, NoResponse> {
        let target = self.target(url, Use::Download);
        let mut target = target.map_err(NoResponse::Refused)?;
        for _ in 0..=REDIRECTS {
            let sent = self.send(Method::GET, &target, |request| {
                request.headers(headers.clone())
            });
            let response = timeout_at(by(), sent).await;
            let response = response
                .map_err(|_| NoResponse::TimedOut)?
                .map_err(NoResponse::Unsent)?;
            let Some(next) = redirection(target.url(), &response) else {
                return Ok(response);
            };
            let next = next.and_then(|url| self.target(&url, Use::Download));
            target = next.map_err(NoResponse::Redirected)?;
        }
        Err(NoResponse::TooManyRedirects)
    }
}

/// The URL that a response redirects to, if it does.
fn redirection(from: &Url, response: &Response) -> Option<Result<String, Refused>> {
    let status = response.status().as_u16();
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(LOCATION)?;
    let joined = location.to_str().ok().map(|text| from.join(text));
    Some(match joined {
        Some(Ok(url)) => Ok(url.into()),
        _ => {
            let text = String::from_utf8_lossy(location.as_bytes());
            Err(Refused::Malformed(quoted(&text).into_owned()))
        }
    })
}
