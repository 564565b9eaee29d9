//! Reading `multipart/form-data` piece by piece, with a limit on bytes and on silence. Nothing is held in memory but the
//! piece at hand.

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

/// Why a part's bytes ended before their end; travels through the object store's error.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the part is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("nothing came for {seconds} seconds")]
    Silent { seconds: u64 },
    #[error("the multipart framing is broken")]
    Framing,
}

impl Broken {
    fn answer(&self, param: &'static str) -> ApiError {
        match self {
            Self::TooLarge { limit } => ApiError::TooLarge {
                param,
                message: format!(
                    "`{param}` is larger than the {limit} bytes that this service takes"
                ),
            },
            Self::Silent { seconds } => ApiError::TooSlow {
                message: format!("nothing of `{param}` came for {seconds} seconds; send it again"),
            },
            Self::Framing => broken(),
        }
    }
}

/// Starts to read a body of parts.
///
/// # Errors
/// The body is something else.
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
/// Broken framing, or silence.
pub(crate) async fn next(
    parts: &mut Multipart,
    silence: Duration,
) -> Result<Option<Field<'_>>, ApiError> {
    match tokio::time::timeout(silence, parts.next_field()).await {
        Ok(Ok(field)) => Ok(field),
        Ok(Err(_)) => Err(broken()),
        Err(_) => Err(Broken::Silent {
            seconds: silence.as_secs(),
        }
        .answer("body")),
    }
}

/// A part's bytes as they come.
pub(crate) fn bytes(
    field: Field<'_>,
    limit: u64,
    silence: Duration,
) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((field, 0u64), move |(mut field, seen)| async move {
        let chunk = match tokio::time::timeout(silence, field.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(_)) => return Err(io::Error::other(Broken::Framing)),
            Err(_) => {
                return Err(io::Error::other(Broken::Silent {
                    seconds: silence.as_secs(),
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

/// What an error of `bytes` means to the client; other errors stay what they are.
pub(crate) fn explain(error: io::Error, param: &'static str) -> ApiError {
    match error.downcast::<Broken>() {
        Ok(broken) => broken.answer(param),
        Err(error) if crate::objects::is_storage_full(&error) => ApiError::StorageFull,
        Err(error) => ApiError::Internal(error.into()),
    }
}

/// The same, where the object store passed it on.
pub(crate) fn explain_stored(error: ObjectError, param: &'static str) -> ApiError {
    match error {
        ObjectError::Input(error) => explain(error, param),
        other => other.into(),
    }
}

/// A short part that is text.
///
/// # Errors
/// It is long, or no text.
pub(crate) async fn text(
    mut field: Field<'_>,
    limit: usize,
    silence: Duration,
    param: &'static str,
) -> Result<String, ApiError> {
    let mut all = Vec::new();
    loop {
        match tokio::time::timeout(silence, field.chunk()).await {
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
                return Err(Broken::Silent {
                    seconds: silence.as_secs(),
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
        message: "the body is not complete multipart/form-data; send it again, with curl's `-F`"
            .to_owned(),
    }
}
