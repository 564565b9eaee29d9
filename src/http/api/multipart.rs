//! Streams `multipart/form-data`, with a limit on bytes and on the time between two pieces.
//!
//! The parser holds in memory what it has not passed on: all that is there to be read at a time,
//! and, however long, what precedes a part and a part's headers. So the body is fed to it in
//! measure (`Fed`).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::{
        FromRequest as _, Multipart, Request,
        multipart::{Field, MultipartError, MultipartRejection},
    },
    http::header,
};
use futures_util::{Stream, TryStreamExt as _, future::ready, stream};
use percent_encoding::percent_decode_str;

use crate::{
    domain::codes,
    http::{
        api::{error::ApiError, extract::content_type, quotas::UploadBytes, state::AppState},
        server::pace::TooSlow,
    },
    objects::ObjectError,
};

/// Bytes that the parser may hold. Headers have some hundred bytes, and a piece of a body at most
/// 0.4 MB.
const HELD_BYTES: u64 = 1 << 20;

/// A form that is being read.
pub(crate) struct Form {
    parts: Multipart,
    passed_on: Arc<AtomicU64>,
}

/// A part of a form.
pub(crate) struct Part<'a> {
    field: Field<'a>,
    passed_on: Arc<AtomicU64>,
}

impl Part<'_> {
    pub(crate) fn name(&self) -> Option<&str> {
        self.field.name()
    }

    /// The next bytes; `None` at the end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, MultipartError> {
        let chunk = self.field.chunk().await?;
        pass_on(&self.passed_on, chunk.as_ref().map_or(0, Bytes::len));
        Ok(chunk)
    }

    /// Bytes of its headers.
    fn head_bytes(&self) -> usize {
        let headers = self.field.headers().iter();
        headers
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum()
    }
}

/// Counts bytes that the parser has passed on. A step without any counts as one: it is a step.
fn pass_on(passed_on: &AtomicU64, bytes: usize) {
    passed_on.fetch_add(bytes.max(1) as u64, Relaxed);
}

/// A body that gives no more while the parser holds `HELD_BYTES`, and fails when the parser cannot
/// go on with those.
struct Fed {
    body: BodyDataStream,
    /// Bytes that the parser was given.
    given: u64,
    /// Bytes that it passed on since.
    passed_on: Arc<AtomicU64>,
    /// The bytes that it had passed on when it was last given nothing.
    full_at: Option<u64>,
}

impl Stream for Fed {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let passed_on = self.passed_on.load(Relaxed);
        if self.given.saturating_sub(passed_on) >= HELD_BYTES {
            if self.full_at.replace(passed_on) == Some(passed_on) {
                let error = io::Error::other("what precedes a part is too long");
                return Poll::Ready(Some(Err(axum::Error::new(error))));
            }
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.body).poll_next(context);
        if let Poll::Ready(Some(Ok(bytes))) = &polled {
            self.given += bytes.len() as u64;
        }
        polled
    }
}

/// Why a part ended early; travels inside the object store's error.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the part is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("no data for {seconds} seconds")]
    Idle { seconds: u64 },
    #[error("the multipart framing is broken")]
    Framing,
    #[error(transparent)]
    TooSlow(TooSlow),
    /// For a reason of the route.
    #[error("refused by the route")]
    Refused(ApiError),
}

impl Broken {
    fn answer(&self, param: &str) -> ApiError {
        match self {
            Self::TooLarge { limit } => {
                let message =
                    format!("`{param}` is larger than {limit} bytes, the limit of this service");
                ApiError::too_large(param, message)
            }
            Self::Idle { seconds } => ApiError::too_slow(format!(
                "no data of `{param}` arrived for {seconds} seconds; send it again"
            )),
            Self::Framing => {
                let message =
                    "the body is not complete multipart/form-data; send it as curl's `-F` does";
                ApiError::unreadable("broken_multipart", message)
            }
            Self::TooSlow(slow) => ApiError::too_slow(format!("{slow}; send it again")),
            Self::Refused(error) => error.clone(),
        }
    }
}

/// Waits for the next piece of a form, at most for `idle`.
async fn arrive<T>(
    idle: Duration,
    piece: impl Future<Output = Result<T, MultipartError>>,
) -> Result<T, Broken> {
    let seconds = idle.as_secs();
    let arrived = tokio::time::timeout(idle, piece).await;
    let arrived = arrived.map_err(|_| Broken::Idle { seconds })?;
    arrived.map_err(|error| match TooSlow::find(&error) {
        Some(slow) => Broken::TooSlow(slow),
        None => Broken::Framing,
    })
}

/// An error that ends a stream of bytes, for `explain` to find.
pub(crate) fn refused(error: ApiError) -> io::Error {
    io::Error::other(Broken::Refused(error))
}

/// Starts to read a form. `expected` names the content types that the route takes.
///
/// # Errors
/// The body is not a form.
pub(crate) async fn open(
    request: Request,
    state: &AppState,
    expected: &str,
) -> Result<Form, ApiError> {
    let content_type = content_type(request.headers());
    if !content_type
        .to_ascii_lowercase()
        .starts_with("multipart/form-data")
    {
        return Err(ApiError::unsupported_media_type(expected));
    }
    let opened = fed(request, state).await;
    opened.map_err(|_| Broken::Framing.answer("body"))
}

/// The form of a request, fed in measure.
async fn fed<S: Send + Sync>(request: Request, state: &S) -> Result<Form, MultipartRejection> {
    let passed_on = Arc::new(AtomicU64::new(0));
    let request = request.map(|body| {
        Body::from_stream(Fed {
            body: body.into_data_stream(),
            given: 0,
            passed_on: Arc::clone(&passed_on),
            full_at: None,
        })
    });
    let parts = Multipart::from_request(request, state).await?;
    Ok(Form { parts, passed_on })
}

/// The next part.
///
/// # Errors
/// The framing is broken, or no data arrives for `idle`.
pub(crate) async fn next(form: &mut Form, idle: Duration) -> Result<Option<Part<'_>>, ApiError> {
    let field = arrive(idle, form.parts.next_field()).await;
    let field = field.map_err(|broken| broken.answer("body"))?;
    let part = field.map(|field| Part {
        field,
        passed_on: Arc::clone(&form.passed_on),
    });
    pass_on(&form.passed_on, part.as_ref().map_or(0, Part::head_bytes));
    Ok(part)
}

/// A part's file name: `filename`, or `filename*` (RFC 8187), which older clients send alone for
/// names that are not ASCII.
pub(crate) fn file_name(part: &Part<'_>) -> Option<String> {
    let plain = part.field.file_name().map(str::to_owned);
    plain.or_else(|| {
        let disposition = part.field.headers().get(header::CONTENT_DISPOSITION)?;
        extended_file_name(disposition.to_str().ok()?)
    })
}

fn extended_file_name(disposition: &str) -> Option<String> {
    let value = disposition.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("filename*")
            .then(|| value.trim().trim_matches('"'))
    })?;
    let mut parts = value.splitn(3, '\'');
    let (charset, _language, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes: Vec<u8> = percent_decode_str(encoded).collect();
    if charset.eq_ignore_ascii_case("iso-8859-1") {
        return Some(bytes.into_iter().map(char::from).collect());
    }
    charset.eq_ignore_ascii_case("utf-8").then_some(())?;
    String::from_utf8(bytes).ok()
}

/// A part's bytes, as they arrive.
pub(crate) fn bytes(
    part: Part<'_>,
    limit: u64,
    idle: Duration,
) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((part, 0u64), move |(mut part, seen)| async move {
        let chunk = arrive(idle, part.chunk()).await;
        let Some(chunk) = chunk.map_err(io::Error::other)? else {
            return Ok(None);
        };
        let seen = seen + chunk.len() as u64;
        if seen > limit {
            return Err(io::Error::other(Broken::TooLarge { limit }));
        }
        Ok(Some((chunk, (part, seen))))
    })
}

/// A part's bytes, as they arrive, as long as the tenant may store them.
pub(crate) fn counted(
    part: Part<'_>,
    limit: u64,
    idle: Duration,
    counter: &UploadBytes,
) -> impl Stream<Item = io::Result<Bytes>> {
    bytes(part, limit, idle).and_then(|piece| {
        let counted = counter.count(piece.len()).map(|()| piece);
        ready(counted.map_err(refused))
    })
}

/// The response to an error of `bytes`, or to another I/O error.
pub(crate) fn explain(error: io::Error, param: &str) -> ApiError {
    match error.downcast::<Broken>() {
        Ok(broken) => broken.answer(param),
        Err(error) if crate::objects::is_storage_full(&error) => ApiError::storage_full(),
        Err(error) => anyhow::Error::new(error).into(),
    }
}

/// The response to an error of `bytes` that the object store passed on.
pub(crate) fn explain_stored(error: ObjectError, param: &str) -> ApiError {
    match error {
        ObjectError::Input(error) => explain(error, param),
        other => other.into(),
    }
}

/// Reads a short part as text.
///
/// # Errors
/// It is too long, or not UTF-8.
pub(crate) async fn text(
    mut part: Part<'_>,
    limit: usize,
    idle: Duration,
    param: &str,
) -> Result<String, ApiError> {
    let mut all = Vec::new();
    let answer = |broken: Broken| broken.answer(param);
    while let Some(chunk) = arrive(idle, part.chunk()).await.map_err(answer)? {
        if all.len() + chunk.len() > limit {
            let message = format!("must be at most {limit} bytes");
            return Err(ApiError::invalid(param, codes::OUT_OF_RANGE, message));
        }
        all.extend_from_slice(&chunk);
    }
    String::from_utf8(all)
        .map_err(|_| ApiError::invalid(param, codes::WRONG_TYPE, "must be text in UTF-8"))
}

#[cfg(test)]
mod tests {
    use axum::extract::DefaultBodyLimit;
    use futures_util::StreamExt as _;

    use super::*;

    /// A form, the pieces in which it arrives at once, and its parts; `None` where it is refused.
    fn read(pieces: Vec<Vec<u8>>) -> Option<Vec<(String, usize)>> {
        let pieces = pieces
            .into_iter()
            .map(|piece| Ok::<_, io::Error>(Bytes::from(piece)));
        let body = Body::from_stream(stream::iter(pieces));
        let request = Request::post("/").header("content-type", "multipart/form-data; boundary=XX");
        let mut request = request.body(body).unwrap();
        DefaultBodyLimit::disable().apply(&mut request);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let idle = Duration::from_secs(20);
        runtime.unwrap().block_on(async {
            let mut form = fed(request, &()).await.ok()?;
            let mut parts = Vec::new();
            while let Some(part) = next(&mut form, idle).await.ok()? {
                let name = part.name().unwrap_or_default().to_owned();
                let mut bytes = std::pin::pin!(bytes(part, u64::MAX, idle));
                let mut length = 0;
                while let Some(piece) = bytes.next().await {
                    length += piece.ok()?.len();
                }
                parts.push((name, length));
            }
            Some(parts)
        })
    }

    fn part(name: &str, length: usize) -> Vec<u8> {
        let head = format!("--XX\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
        [head.as_bytes(), &vec![b'x'; length], b"\r\n"].concat()
    }

    /// All of a body is there at once, in pieces as small and as large as they come.
    #[test]
    fn forms_of_any_size_are_read_whole() {
        let sizes = [0, 1, 5 << 20, 0, 100];
        let mut body: Vec<u8> = Vec::new();
        let mut expected = Vec::new();
        for place in 0..500 {
            let length = sizes[place % sizes.len()];
            // Some of them are long, and all others small: what is held must not add up.
            let length = if place > 20 { length.min(100) } else { length };
            body.extend(part(&place.to_string(), length));
            expected.push((place.to_string(), length));
        }
        body.extend(b"--XX--\r\n");
        for size in [4_000, 400_000, body.len()] {
            let pieces = body.chunks(size).map(<[u8]>::to_vec).collect();
            assert_eq!(
                read(pieces),
                Some(expected.clone()),
                "pieces of {size} bytes"
            );
        }
    }

    #[test]
    fn what_precedes_a_part_has_a_limit() {
        let piece = |byte: u8| vec![byte; 1 << 12];
        let long = |start: &str, pieces: usize, end: Vec<u8>| {
            let mut all = vec![start.as_bytes().to_vec()];
            all.extend(std::iter::repeat_n(piece(b'x'), pieces));
            all.push([&b"\r\n"[..], &end, b"--XX--\r\n"].concat());
            read(all)
        };
        let fits = HELD_BYTES as usize / (1 << 12) - 1;
        assert_eq!(
            long("", fits, part("a", 1)),
            Some(vec![("a".to_owned(), 1)])
        );
        assert_eq!(long("", fits + 2, part("a", 1)), None);
        let header = "--XX\r\ncontent-disposition: form-data; name=\"a\"\r\nx-header: ";
        let rest = || b"\r\n\r\n".to_vec();
        assert_eq!(long(header, fits + 2, rest()), None);
    }

    #[test]
    fn extended_file_names_are_decoded() {
        for (header, name) in [
            (
                "form-data; name=\"file\"; filename*=UTF-8''na%C3%AFve.zip",
                Some("naïve.zip"),
            ),
            (
                "form-data; filename*=utf-8'en'a%20b.zip; name=file",
                Some("a b.zip"),
            ),
            (
                "form-data; FileName* = ISO-8859-1''na%EFve.zip",
                Some("naïve.zip"),
            ),
            ("form-data; filename*=UTF-8''%FF.zip", None),
            ("form-data; filename*=koi8-r''%D4.zip", None),
            ("form-data; filename*=broken", None),
            ("form-data; name=file", None),
        ] {
            assert_eq!(extended_file_name(header).as_deref(), name, "{header}");
        }
    }
}
