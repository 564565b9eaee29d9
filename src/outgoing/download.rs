//! Downloads: one file by URL, as a stream within limits of size and time. A download that broke
//! off goes on where it was (RFC 9110, section 14), if the server still has the same file.

use std::time::Duration;

use axum::body::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use reqwest::{
    Response, StatusCode,
    header::{
        ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE,
        RANGE, RETRY_AFTER,
    },
};
use tokio::time::{Instant, timeout_at};

use super::{
    client::{Outgoing, Refused, Target, Unsent},
    redirects::{NoResponse, REDIRECTS},
};
use crate::{
    config::DownloadLimits,
    domain::{limits::FILENAME_CHARACTERS, problem::quoted},
};

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
    /// With the pause that the server asks for.
    #[error("the server answered {0}; check the URL, and that it needs no login")]
    Status(u16, Option<Duration>),
    #[error(
        "the server sent the content-encoding `{0}` though it was not asked for; give the URL of the plain file"
    )]
    Encoded(String),
    #[error("{0}; try again, or upload the file")]
    Broken(String),
    #[error(
        "{name} has the SHA-256 `{found}`, not `{expected}`; check both, or that the file has not changed"
    )]
    WrongHash {
        name: String,
        found: String,
        expected: String,
    },
    #[error("{0} is empty; check the URL")]
    Empty(String),
}

impl Interrupted {
    /// The code of the problem, as docs/errors.md lists it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(_) | Self::Redirected(_) | Self::TooManyRedirects => "download_refused",
            Self::TooLarge { .. } => "download_too_large",
            Self::TimedOut(_) => "download_timeout",
            Self::Status(..) | Self::Encoded(_) | Self::Broken(_) => "download_failed",
            Self::WrongHash { .. } => "wrong_sha256",
            Self::Empty(_) => "empty_file",
        }
    }

    /// The field of a request that is wrong.
    pub fn field(&self) -> &'static str {
        let is_hash = matches!(self, Self::WrongHash { .. });
        if is_hash { "sha256" } else { "url" }
    }

    /// True when another try may succeed.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Status(status, _) => matches!(status, 408 | 429 | 500..),
            _ => false,
        }
    }

    /// The pause before another try that the server asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status(_, pause) => *pause,
            _ => None,
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

impl From<NoResponse> for Interrupted {
    fn from(failure: NoResponse) -> Self {
        match failure {
            NoResponse::Refused(refused) => Self::Refused(refused),
            NoResponse::Redirected(refused) => Self::Redirected(refused),
            NoResponse::TooManyRedirects => Self::TooManyRedirects,
            NoResponse::TimedOut => Self::TimedOut("the server did not answer"),
            NoResponse::Unsent(unsent) => unsent.into(),
        }
    }
}

/// A file that is to be downloaded, and how much of it is there already.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub url: &'a str,
    /// Bytes that are there; the server is asked for those behind them.
    pub have: u64,
    /// The tag that the file had when they came. Without one the caller knows by a hash whether
    /// the parts are of one file.
    pub tag: Option<&'a str>,
    /// Size of the file, if that is known.
    pub bytes: Option<u64>,
    pub limits: &'a DownloadLimits,
    /// The time by which the download must have ended.
    pub end: Instant,
}

/// A download that has begun.
pub struct Download<S> {
    /// Bytes of the file before those of the stream: `have`, or 0 if it begins anew.
    pub start: u64,
    /// The file's tag, if it has one that tells its versions apart byte by byte.
    pub tag: Option<String>,
    pub stream: S,
}

/// The times and sizes that end a download.
#[derive(Debug, Clone, Copy)]
struct Watch<'a> {
    wanted: Wanted<'a>,
    begun: Instant,
}

impl Watch<'_> {
    /// The time by which the next bytes must be there.
    fn next(&self) -> Instant {
        let idle = self.wanted.limits.download_idle;
        self.wanted.end.min(Instant::now() + idle)
    }

    /// # Errors
    /// There are too many bytes of the file, or those of the stream come too slowly.
    fn check(&self, bytes: u64, came: u64) -> Result<(), Interrupted> {
        let limits = self.wanted.limits;
        if let Some(expected) = self.wanted.bytes
            && bytes > expected
        {
            let message = format!("the file has {bytes} bytes or more, not {expected}");
            return Err(Interrupted::Broken(message));
        }
        let limit = limits.max_download_bytes;
        if bytes > limit {
            return Err(Interrupted::TooLarge { limit });
        }
        let age = self.begun.elapsed();
        let least = limits.least_download_rate as f64 * age.as_secs_f64();
        if age > GRACE && (came as f64) < least {
            return Err(Interrupted::TimedOut("the server sends too slowly"));
        }
        Ok(())
    }
}

impl Outgoing {
    /// Downloads a file, or what is missing of it.
    ///
    /// # Errors
    /// There is no file, or it may not be downloaded.
    pub async fn download<'a>(
        &self,
        wanted: Wanted<'a>,
    ) -> Result<Download<impl Stream<Item = Result<Bytes, Interrupted>> + Send + 'a>, Interrupted>
    {
        let begun = Instant::now();
        let watch = Watch { wanted, begun };
        let (response, start) = self.request(watch).await?;
        if let Some(bytes) = response.content_length() {
            watch.check(start.saturating_add(bytes), u64::MAX)?;
        }
        let tag = response.headers().get(ETAG).and_then(|tag| {
            let text = tag.to_str().ok()?;
            text.starts_with('"').then(|| text.to_owned())
        });
        let is_whole = response.status() == StatusCode::RANGE_NOT_SATISFIABLE;
        let chunks = response.bytes_stream();
        let chunks = chunks.map_err(|error| Interrupted::from(Unsent::from(error)));
        let chunks = Box::pin(if is_whole {
            stream::empty().left_stream()
        } else {
            chunks.right_stream()
        });
        let stream = stream::try_unfold((chunks, 0), move |(mut chunks, came)| async move {
            let late = Interrupted::TimedOut("no byte came for too long");
            let chunk = timeout_at(watch.next(), chunks.try_next()).await;
            let Some(chunk) = chunk.map_err(|_| late)?? else {
                return Ok(None);
            };
            let came = came + chunk.len() as u64;
            watch.check(start + came, came)?;
            Ok::<_, Interrupted>(Some((chunk, (chunks, came))))
        });
        let stream = Box::pin(stream);
        Ok(Download { start, tag, stream })
    }

    /// Requests what is missing of a file, or the whole file if the server has another one by now.
    /// The number of bytes that come before those of the response stands beside it.
    async fn request(&self, watch: Watch<'_>) -> Result<(Response, u64), Interrupted> {
        let Wanted { url, have, tag, .. } = watch.wanted;
        let identity = (ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let headers = HeaderMap::from_iter([identity]);
        if have > 0 {
            let mut rest = headers.clone();
            rest.insert(RANGE, header(format!("bytes={have}-")));
            rest.extend(tag.map(|tag| (IF_RANGE, header(tag.to_owned()))));
            let response = self.get(url, &rest, || watch.next()).await?;
            match (response.status(), content_range(&response)) {
                (StatusCode::PARTIAL_CONTENT, Some((Some(first), _))) if first == have => {
                    return Ok((accept(response)?, have));
                }
                (StatusCode::RANGE_NOT_SATISFIABLE, Some((None, Some(total)))) if total == have => {
                    return Ok((response, have));
                }
                (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE, _) => {}
                _ => return Ok((accept(response)?, 0)),
            }
        }
        let response = self.get(url, &headers, || watch.next()).await?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            return Err(Interrupted::Status(206, None));
        }
        Ok((accept(response)?, 0))
    }
}

/// A header's value; an empty one, which no tag equals, for a text that cannot be sent.
fn header(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// The first byte and the size of the file that a response names, such as `bytes 5-9/10` or
/// `bytes */10`.
fn content_range(response: &Response) -> Option<(Option<u64>, Option<u64>)> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let first = range
        .split_once('-')
        .and_then(|(first, _)| first.parse().ok());
    Some((first, size.parse().ok()))
}

/// Accepts a response that has the file, or a part of it, as it is.
fn accept(response: Response) -> Result<Response, Interrupted> {
    let status = response.status();
    if !matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
        let pause = response.headers().get(RETRY_AFTER);
        let seconds = pause.and_then(|text| text.to_str().ok()?.parse().ok());
        let pause = seconds.map(Duration::from_secs);
        return Err(Interrupted::Status(status.as_u16(), pause));
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
