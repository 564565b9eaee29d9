//! Streams `multipart/form-data`, with a limit on bytes and on the time between two pieces.

use std::{io, time::Duration};

use axum::{
    body::Bytes,
    extract::{
        FromRequest as _, Multipart, Request,
        multipart::{Field, MultipartError},
    },
};
use futures_util::{Stream, stream};

use crate::{
    domain::codes,
    http::api::{error::ApiError, extract::content_type, state::AppState},
    objects::ObjectError,
};

/// Why a part ended early; travels inside the object store's error.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the part is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("no data for {seconds} seconds")]
    Idle { seconds: u64 },
    #[error("the multipart framing is broken")]
    Framing,
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
    arrived.map_err(|_| Broken::Framing)
}

/// Starts to read a form. `expected` names the content types that the route takes.
///
/// # Errors
/// The body is not a form.
pub(crate) async fn open(
    request: Request,
    state: &AppState,
    expected: &str,
) -> Result<Multipart, ApiError> {
    let content_type = content_type(request.headers());
    if !content_type
        .to_ascii_lowercase()
        .starts_with("multipart/form-data")
    {
        return Err(ApiError::unsupported_media_type(expected));
    }
    let opened = Multipart::from_request(request, state).await;
    opened.map_err(|_| Broken::Framing.answer("body"))
}

/// The next part.
///
/// # Errors
/// The framing is broken, or no data arrives for `idle`.
pub(crate) async fn next(
    parts: &mut Multipart,
    idle: Duration,
) -> Result<Option<Field<'_>>, ApiError> {
    let part = arrive(idle, parts.next_field()).await;
    part.map_err(|broken| broken.answer("body"))
}

/// A part's bytes, as they arrive.
pub(crate) fn bytes(
    field: Field<'_>,
    limit: u64,
    idle: Duration,
) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((field, 0u64), move |(mut field, seen)| async move {
        let chunk = arrive(idle, field.chunk()).await;
        let Some(chunk) = chunk.map_err(io::Error::other)? else {
            return Ok(None);
        };
        let seen = seen + chunk.len() as u64;
        if seen > limit {
            return Err(io::Error::other(Broken::TooLarge { limit }));
        }
        Ok(Some((chunk, (field, seen))))
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
    mut field: Field<'_>,
    limit: usize,
    idle: Duration,
    param: &str,
) -> Result<String, ApiError> {
    let mut all = Vec::new();
    let answer = |broken: Broken| broken.answer(param);
    while let Some(chunk) = arrive(idle, field.chunk()).await.map_err(answer)? {
        if all.len() + chunk.len() > limit {
            let message = format!("must be at most {limit} bytes");
            return Err(ApiError::invalid(param, codes::OUT_OF_RANGE, message));
        }
        all.extend_from_slice(&chunk);
    }
    String::from_utf8(all)
        .map_err(|_| ApiError::invalid(param, codes::WRONG_TYPE, "must be text in UTF-8"))
}
