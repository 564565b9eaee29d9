//! Streams an object of the store, or a range of it. The whole object is compared with its row
//! before the first byte is sent: a client has no way to tell a body that went wrong from its end.

use std::ops::Range;

use axum::{
    body::{Body, Bytes},
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use futures_util::stream::BoxStream;

use crate::{
    domain::object::Descriptor,
    http::api::{
        error::ApiError, identity::Identity, quota::Share, response_end::at_end, state::AppState,
    },
    objects::{ObjectError, Objects},
};

/// A place among the contents that are sent to a tenant at the same time. Each keeps a disk and a
/// socket's buffers busy, however slowly it is read.
pub(crate) struct Place {
    _share: Share,
}

impl FromRequestParts<AppState> for Place {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let identity = Identity::from_request_parts(parts, state).await?;
        let _share = state.quotas.read(&identity)?;
        Ok(Self { _share })
    }
}

impl Place {
    /// Keeps the place until the response's body has been sent, or was given up.
    pub(crate) fn until_sent(self, response: Response) -> Response {
        at_end(response, move || drop(self))
    }
}

/// An object to send.
pub(crate) struct Download<'a> {
    pub object: &'a Descriptor,
    pub filename: &'a str,
}

impl Download<'_> {
    /// Responds with the object's bytes, or with the range that `headers` request.
    ///
    /// # Errors
    /// The object is damaged; the range lies outside it.
    pub(crate) async fn send(
        &self,
        objects: &Objects,
        headers: &HeaderMap,
    ) -> Result<Response, ApiError> {
        let size = objects.verify(self.object).await?;
        let requested = headers
            .get(header::RANGE)
            .and_then(|value| value.to_str().ok());
        let range = match requested.map_or(Requested::Whole, |text| parse_range(text, size)) {
            Requested::Whole => None,
            Requested::Part(range) => Some(range),
            Requested::Outside => return Err(ApiError::range_not_satisfiable(size)),
        };
        let bytes = objects.read(&self.object.key, range.clone()).await?;
        let mut response = whole(bytes, size, self.filename);
        let headers = response.headers_mut();
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Some(range) = range {
            headers.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
            let value = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(header::CONTENT_RANGE, value);
            }
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        Ok(response)
    }
}

/// Responds with the `size` bytes of a whole file.
pub(crate) fn whole(
    bytes: BoxStream<'static, Result<Bytes, ObjectError>>,
    size: u64,
    filename: &str,
) -> Response {
    let content_type = HeaderValue::from_static("application/octet-stream");
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_LENGTH, size.into()),
        (header::CONTENT_DISPOSITION, attachment(filename)),
    ];
    (headers, Body::from_stream(bytes)).into_response()
}

/// `content-disposition` with a name that cannot break out of its quotes.
pub(crate) fn attachment(filename: &str) -> HeaderValue {
    let plain = plain_name(filename);
    HeaderValue::try_from(format!("attachment; filename=\"{plain}\""))
        .unwrap_or(HeaderValue::from_static("attachment"))
}

/// A file's name of letters, digits, dots, hyphens and spaces.
pub(crate) fn plain_name(filename: &str) -> String {
    let plain = |c: char| match c {
        '.' | '-' | ' ' => c,
        _ if c.is_ascii_alphanumeric() => c,
        _ => '_',
    };
    filename.chars().map(plain).collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Requested {
    Whole,
    Part(Range<u64>),
    Outside,
}

/// Parses one range of bytes (RFC 9110, 14.1.2). Several ranges or other units give the whole
/// object, which the RFC allows.
fn parse_range(text: &str, size: u64) -> Requested {
    let Some((first, last)) = text
        .strip_prefix("bytes=")
        .and_then(|ranges| ranges.trim().split_once('-'))
    else {
        return Requested::Whole;
    };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Ok(first), Err(_)) if last.is_empty() => first..size,
        (Err(_), Ok(count)) if first.is_empty() => size.saturating_sub(count)..size,
        _ => return Requested::Whole,
    };
    if range.start >= range.end {
        Requested::Outside
    } else {
        Requested::Part(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_parsed_as_in_the_rfc() {
        for (text, requested) in [
            ("bytes=0-0", Requested::Part(0..1)),
            ("bytes=2-5", Requested::Part(2..6)),
            ("bytes=8-", Requested::Part(8..10)),
            ("bytes=-3", Requested::Part(7..10)),
            ("bytes=-30", Requested::Part(0..10)),
            ("bytes=5-18446744073709551615", Requested::Part(5..10)),
            ("bytes=10-", Requested::Outside),
            ("bytes=-0", Requested::Outside),
            ("bytes=5-2", Requested::Whole),
            ("bytes=0-1,4-5", Requested::Whole),
            ("pages=1-2", Requested::Whole),
            ("bytes=x-", Requested::Whole),
        ] {
            assert_eq!(parse_range(text, 10), requested, "{text}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Requested::Outside);
    }

    #[test]
    fn a_filename_cannot_leave_its_quotes() {
        assert_eq!(
            attachment("a\"; x=\r\ny.zip"),
            "attachment; filename=\"a__ x___y.zip\""
        );
    }
}
