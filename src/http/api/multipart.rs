//! Streams `multipart/form-data`, with a limit on bytes and on the time between two pieces.

use std::{io, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest as _, Multipart, Request, multipart::Field},
    http::header,
};
use futures_util::{Stream, stream};

use crate::{
    domain::codes,
    http::api::{error::ApiError, state::AppState},
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
    fn answer(&self, param: &'static str) -> ApiError {
        match self {
            Self::TooLarge { limit } => ApiError::TooLarge {
                param,
                message: format!(
                    "`{param}` is larger than {limit} bytes, the limit of this service"
                ),
            },
            Self::Idle { seconds } => ApiError::TooSlow {
                message: format!(
                    "no data of `{param}` arrived for {seconds} seconds; send it again"
                ),
            },
            Self::Framing => broken(),
        }
    }
}

/// Starts to read a form.
///
/// # Errors
/// The body is not a form.
pub(crate) async fn open(request: Request, state: &AppState) -> Result<Multipart, ApiError> {
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    if !content_type
        .is_some_and(|text| text.to_ascii_lowercase().starts_with("multipart/form-data"))
    {
        return Err(ApiError::UnsupportedMediaType {
            expected: "multipart/form-data",
        });
    }
    Multipart::from_request(request, state)
        .await
        .map_err(|_| broken())
}

/// The next part.
///
/// # Errors
/// The framing is broken, or no data arrives for `idle`.
pub(crate) async fn next(
    parts: &mut Multipart,
    idle: Duration,
) -> Result<Option<Field<'_>>, ApiError> {
    match tokio::time::timeout(idle, parts.next_field()).await {
        Ok(Ok(field)) => Ok(field),
        Ok(Err(_)) => Err(broken()),
        Err(_) => Err(Broken::Idle {
            seconds: idle.as_secs(),
        }
        .answer("body")),
    }
}

/// A part's bytes, as they arrive.
pub(crate) fn bytes(
    field: Field<'_>,
    limit: u64,
    idle: Duration,
) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((field, 0u64), move |(mut field, seen)| async move {
        let chunk = match tokio::time::timeout(idle, field.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(_)) => return Err(io::Error::other(Broken::Framing)),
            Err(_) => {
                return Err(io::Error::other(Broken::Idle {
                    seconds: idle.as_secs(),
                }));
            }
        };
        let seen = seen + chunk.len() as u64;
        if seen > limit {
            return Err(io::Error::other(Broken::TooLarge { limit }));
        }
        Ok(Some((chunk, (field, seen))))
    })
}

/// The response to an error of `bytes`, or to another I/O error.
pub(crate) fn explain(error: io::Error, param: &'static str) -> ApiError {
    match error.downcast::<Broken>() {
        Ok(broken) => broken.answer(param),
        Err(error) if crate::objects::is_storage_full(&error) => ApiError::StorageFull,
        Err(error) => ApiError::Internal(error.into()),
    }
}

/// The response to an error of `bytes` that the object store passed on.
pub(crate) fn explain_stored(error: ObjectError, param: &'static str) -> ApiError {
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
    param: &'static str,
) -> Result<String, ApiError> {
    let mut all = Vec::new();
    loop {
        match tokio::time::timeout(idle, field.chunk()).await {
            Ok(Ok(Some(chunk))) if all.len() + chunk.len() <= limit => {
                all.extend_from_slice(&chunk)
            }
            Ok(Ok(Some(_))) => {
                return Err(ApiError::invalid(
                    param,
                    codes::OUT_OF_RANGE,
                    format!("must be at most {limit} bytes"),
                ));
            }
            Ok(Ok(None)) => break,
            Ok(Err(_)) => return Err(broken()),
            Err(_) => {
                return Err(Broken::Idle {
                    seconds: idle.as_secs(),
                }
                .answer(param));
            }
        }
    }
    String::from_utf8(all)
        .map_err(|_| ApiError::invalid(param, codes::WRONG_TYPE, "must be text in UTF-8"))
}

fn broken() -> ApiError {
    ApiError::Unreadable {
        code: "broken_multipart",
        message: "the body is not complete multipart/form-data; send it as curl's `-F` does"
            .to_owned(),
    }
}
