//! Streams `multipart/form-data`, with a limit on bytes and on the time between two pieces.

use std::{io, time::Duration};

use axum::{
    body::Bytes,
    extract::{
        FromRequest as _, Multipart, Request,
        multipart::{Field, MultipartError},
    },
    http::header,
};
use futures_util::{Stream, stream};
use percent_encoding::percent_decode_str;

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

/// A part's file name: `filename`, or `filename*` (RFC 8187), which older clients send alone for
/// names that are not ASCII.
pub(crate) fn file_name(field: &Field<'_>) -> Option<String> {
    let plain = field.file_name().map(str::to_owned);
    plain.or_else(|| {
        let disposition = field.headers().get(header::CONTENT_DISPOSITION)?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
