//! Downloads: one file by URL, as a stream within limits of size and time.

use std::{io, time::Duration};

use axum::body::Bytes;
use futures_util::{Stream, TryStreamExt as _, stream};
use reqwest::{
    Method, Response, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, LOCATION},
};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::client::{Outgoing, Refused, Target, Unsent, Use};
use crate::{
    config::DownloadLimits,
    domain::{limits::FILENAME_CHARACTERS, problem::quoted},
};

/// Redirects that are followed, each to a URL that is checked as the first one.
pub(super) const REDIRECTS: usize = 3;
/// Age of a download from which its average rate counts.
const GRACE: Duration = Duration::from_secs(60);

/// Why a download ended early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Interrupted {
    #[error("the URL {0}")]
    Refused(Refused),
    #[error("the server redirects to a URL that {0}")]
    Redirected(Refused),
    #[error("the server redirects more than {REDIRECTS} times; give the URL that it leads to")]
    TooManyRedirects,
    #[error(
        "the file has more than {limit} bytes, the limit; download less, or have `--max-download-bytes` raised"
    )]
    TooLarge { limit: u64 },
    #[error("the download took too long: {0}")]
    TimedOut(&'static str),
    #[error("the server answered {0}; check the URL, and that it needs no login")]
    Status(u16),
    #[error(
        "the server sent the content-encoding `{0}` though it was not asked for; give the URL of the plain file"
    )]
    Encoded(String),
    #[error("{0}; try again, or upload the file")]
    Broken(String),
}

impl Interrupted {
    /// The code of the problem, as docs/errors.md lists it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(_) | Self::Redirected(_) | Self::TooManyRedirects => "download_refused",
            Self::TooLarge { .. } => "download_too_large",
            Self::TimedOut(_) => "download_timeout",
            Self::Status(_) | Self::Encoded(_) | Self::Broken(_) => "download_failed",
        }
    }

    /// True when another try may succeed.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Status(status) => matches!(status, 408 | 429 | 500..),
            _ => false,
        }
    }
}

impl From<Unsent> for Interrupted {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Refused(refused) => Self::Refused(refused),
            Unsent::TimedOut => Self::TimedOut("the server did not answer"),
            other => Self::Broken(other.to_string()),
        }
    }
}

/// The times and sizes that end a download.
#[derive(Debug, Clone, Copy)]
struct Watch<'a> {
    limits: &'a DownloadLimits,
    begun: Instant,
}

impl Watch<'_> {
    /// The time by which the next bytes must be there.
    fn next(&self) -> Instant {
        let end = self.begun + self.limits.download_time;
        end.min(Instant::now() + self.limits.download_idle)
    }

    /// # Errors
    /// There are too many bytes, or they come too slowly.
    fn check(&self, bytes: u64) -> Result<(), Interrupted> {
        let limit = self.limits.max_download_bytes;
        if bytes > limit {
            return Err(Interrupted::TooLarge { limit });
        }
        let age = self.begun.elapsed();
        let least = self.limits.least_download_rate as f64 * age.as_secs_f64();
        if age > GRACE && (bytes as f64) < least {
            return Err(Interrupted::TimedOut("the server sends too slowly"));
        }
        Ok(())
    }
}

impl Outgoing {
    /// Downloads a file. The stream fails with an `Interrupted` inside its `io::Error`.
    ///
    /// # Errors
    /// There is no file, or it may not be downloaded.
    pub async fn download<'a>(
        &self,
        url: &str,
        limits: &'a DownloadLimits,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'a, Interrupted> {
        let begun = Instant::now();
        let watch = Watch { limits, begun };
        let target = self.target(url, Use::Download);
        let response = self.follow(target.map_err(Interrupted::Refused)?, watch);
        let response = response.await?;
        if let Some(bytes) = response.content_length() {
            watch.check(bytes)?;
        }
        let chunks = response.bytes_stream();
        let chunks = Box::pin(chunks.map_err(|error| Interrupted::from(Unsent::from(error))));
        let bytes = stream::try_unfold((chunks, 0), move |(mut chunks, seen)| async move {
            let late = Interrupted::TimedOut("no byte came for too long");
            let chunk = timeout_at(watch.next(), chunks.try_next()).await;
            let Some(chunk) = chunk.map_err(|_| late)?? else {
                return Ok(None);
            };
            let seen = seen + chunk.len() as u64;
            watch.check(seen)?;
            Ok::<_, Interrupted>(Some((chunk, (chunks, seen))))
        });
        Ok(Box::pin(
            bytes.map_err(|error: Interrupted| io::Error::other(error)),
        ))
    }

    /// Requests a file, and where the server says that it is.
    async fn follow(&self, target: Target, watch: Watch<'_>) -> Result<Response, Interrupted> {
        let mut target = target;
        for _ in 0..=REDIRECTS {
            let sent = self.send(Method::GET, &target, |request| {
                request.header(ACCEPT_ENCODING, "identity")
            });
            let late = Interrupted::TimedOut("the server did not answer");
            let response = timeout_at(watch.next(), sent).await.map_err(|_| late)??;
            match redirection(target.url(), &response) {
                Some(url) => {
                    let next = self.target(&url?, Use::Download);
                    target = next.map_err(Interrupted::Redirected)?;
                }
                None => return accept(response),
            }
        }
        Err(Interrupted::TooManyRedirects)
    }
}

/// The URL that a response redirects to, if it does.
pub(super) fn redirection(from: &Url, response: &Response) -> Option<Result<String, Interrupted>> {
    let status = response.status().as_u16();
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(LOCATION)?;
    let joined = location.to_str().ok().map(|text| from.join(text));
    Some(match joined {
        Some(Ok(url)) => Ok(url.into()),
        _ => Err(Interrupted::Redirected(Refused::Malformed(
            quoted(&String::from_utf8_lossy(location.as_bytes())).into_owned(),
        ))),
    })
}

/// Accepts a response that has the file as it is.
fn accept(response: Response) -> Result<Response, Interrupted> {
    if response.status() != StatusCode::OK {
        return Err(Interrupted::Status(response.status().as_u16()));
    }
    match response.headers().get(CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            let encoding = String::from_utf8_lossy(encoding.as_bytes()).into_owned();
            Err(Interrupted::Encoded(quoted(&encoding).into_owned()))
        }
        _ => Ok(response),
    }
}

/// The name of the file that a URL leads to: the last part of its path.
pub fn filename(target: &Target) -> String {
    let parts = target.url().path_segments();
    let last = parts
        .and_then(|mut parts| parts.next_back())
        .unwrap_or_default();
    let name = percent_encoding::percent_decode_str(last).decode_utf8_lossy();
    let plain = |c: &char| !c.is_control() && *c != '/' && *c != '\\';
    let name: String = name
        .chars()
        .filter(plain)
        .take(FILENAME_CHARACTERS)
        .collect();
    if name.is_empty() {
        "download".to_owned()
    } else {
        name
    }
}
