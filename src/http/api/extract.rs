//! Extractors: JSON bodies, query strings and path ids. Every rejection is an `ApiError`; axum's
//! own extractors reject in plain text.

use std::{str::FromStr, time::Duration};

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, Uri, header, request::Parts},
    middleware::Next,
    response::Response,
};
use futures_util::{Stream, StreamExt as _, stream};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::{
    domain::{
        codes, limits,
        problem::{Problem, one_of, quoted, suggestion},
    },
    http::{
        api::{
            error::{ApiError, Noun, refuse_any},
            state::AppState,
        },
        server::pace::TooSlow,
    },
};

/// Length up to which a message of serde is passed on whole.
const MESSAGE_BYTES: usize = 400;

/// A JSON body, checked for what Postgres cannot store. Typed reading is `read`.
pub(crate) struct Json(pub Value);

impl FromRequest<AppState> for Json {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::unsupported_media_type("application/json"));
        }
        let limits = &state.limits;
        let bytes = read_body(
            request.into_body(),
            limits.max_json_bytes,
            limits.body_seconds,
        )
        .await?;
        parse_json(&bytes).map(Self)
    }
}

impl Json {
    /// # Errors
    /// The first field that does not fit, by its path.
    pub(crate) fn read<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        serde_path_to_error::deserialize(self.0).map_err(|error| {
            let path = error.path().to_string();
            field_error(&path, &error.into_inner().to_string())
        })
    }
}

/// Middleware: refuses a body that says that it is compressed. It would be taken for what it is
/// not, and to decode it is to let a small body become a large one.
///
/// # Errors
/// 415 for any encoding but `identity`.
pub(crate) async fn refuse_encoded(request: Request, next: Next) -> Result<Response, ApiError> {
    match request.headers().get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(
            ApiError::unsupported_encoding(&String::from_utf8_lossy(encoding.as_bytes())),
        ),
        _ => Ok(next.run(request).await),
    }
}

/// The value of `content-type`; empty if there is none.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// True when the content type is JSON.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let essence = content_type(headers).split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

/// Reads a small body into memory.
///
/// # Errors
/// Those of `pieces`.
pub(crate) async fn read_body(body: Body, limit: usize, seconds: u64) -> Result<Vec<u8>, ApiError> {
    let mut all = Vec::new();
    let mut pieces = std::pin::pin!(pieces(body, limit, seconds));
    while let Some(piece) = pieces.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all)
}

/// A small body, as it arrives.
///
/// # Errors
/// It is larger than `limit`, takes longer than `seconds`, or ends early.
pub(crate) fn pieces(
    body: Body,
    limit: usize,
    seconds: u64,
) -> impl Stream<Item = Result<Bytes, ApiError>> {
    let too_large = move || {
        let message = format!("the body is larger than {limit} bytes, the limit of this route");
        ApiError::too_large("body", message)
    };
    let too_slow = move || {
        let message = format!("the body did not arrive within {seconds} seconds; send it again");
        ApiError::too_slow(message)
    };
    let announced = body.size_hint().lower();
    let deadline = Instant::now() + Duration::from_secs(seconds);
    stream::try_unfold(
        (body.into_data_stream(), 0),
        move |(mut body, seen)| async move {
            if announced > limit as u64 {
                return Err(too_large());
            }
            let piece = timeout_at(deadline, body.next()).await;
            let piece = match piece.map_err(|_| too_slow())? {
                None => return Ok(None),
                Some(Ok(piece)) => piece,
                Some(Err(error)) => return Err(broken(&error)),
            };
            let seen = seen + piece.len();
            if seen > limit {
                return Err(too_large());
            }
            Ok(Some((piece, (body, seen))))
        },
    )
}

/// The response to an error of a body.
fn broken(error: &axum::Error) -> ApiError {
    match TooSlow::find(error) {
        Some(slow) => ApiError::too_slow(format!("{slow}; send it again")),
        None => ApiError::unreadable("broken_body", "the body ended early; send it again"),
    }
}

/// Reads JSON into a type, without a `Value` between: for large bodies. Texts can stay where they
/// are in `bytes`.
///
/// # Errors
/// The body is not JSON in UTF-8; or the first field that does not fit.
pub(crate) fn read_json<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, ApiError> {
    let bytes = as_utf8(bytes)?;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut reader);
    let value = read.map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        let message = error.to_string();
        match (error.is_data(), message.rsplit_once(" at line ")) {
            (true, Some((message, _))) => field_error(&path, message),
            (true, None) => field_error(&path, &message),
            (false, _) => not_json(&message),
        }
    })?;
    reader.end().map_err(|error| not_json(&error.to_string()))?;
    Ok(value)
}

fn not_json(message: &str) -> ApiError {
    let message = format!("the body is not valid JSON: {message}");
    ApiError::unreadable("invalid_json", message)
}

/// The text of a body, without a byte order mark.
///
/// # Errors
/// It is in UTF-16 or UTF-32.
fn as_utf8(bytes: &[u8]) -> Result<&[u8], ApiError> {
    // PowerShell 5 writes a byte order mark, which a parser may ignore (RFC 8259, section 8.1).
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if matches!(
        bytes,
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [_, 0, ..] | [0, _, ..]
    ) {
        let message = "the body is UTF-16 or UTF-32; send JSON as UTF-8";
        return Err(ApiError::unreadable("invalid_json", message));
    }
    Ok(bytes)
}

/// # Errors
/// The body is not JSON in UTF-8, or contains U+0000.
pub(crate) fn parse_json(bytes: &[u8]) -> Result<Value, ApiError> {
    let value: Value =
        serde_json::from_slice(as_utf8(bytes)?).map_err(|error| not_json(&error.to_string()))?;
    let mut problems = Vec::new();
    find_nul(&value, &mut String::new(), &mut problems);
    refuse_any(problems)?;
    Ok(value)
}

/// Finds U+0000, which Postgres' text and jsonb cannot store.
fn find_nul(value: &Value, path: &mut String, problems: &mut Vec<Problem>) {
    let length = path.len();
    if problems.len() >= limits::PROBLEMS {
        return;
    }
    match value {
        Value::String(text) if text.contains('\0') => problems.push(nul(path)),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                find_nul(item, path, problems);
                path.truncate(length);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                if name.contains('\0') {
                    problems.push(nul(path));
                    continue;
                }
                if length > 0 {
                    path.push('.');
                }
                path.push_str(&quoted(name));
                find_nul(field, path, problems);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

fn nul(path: &str) -> Problem {
    Problem::new(
        path,
        "nul_character",
        "contains the character U+0000, which cannot be stored; remove it",
    )
}

/// A query string without unknown parameters.
pub(crate) struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        read_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// Reads `a=1&b=2`.
///
/// # Errors
/// An unknown name, or a value that does not fit.
pub(crate) fn read_query<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let unreadable = || {
        ApiError::invalid(
            "query",
            "invalid_query",
            "the query string is not valid; percent-encode its values",
        )
    };
    let uri = Uri::builder()
        .path_and_query(format!("/?{query}"))
        .build()
        .map_err(|_| unreadable())?;
    if let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(&uri)
        && let Some((name, _)) = pairs
            .iter()
            .find(|(name, value)| name.contains('\0') || value.contains('\0'))
    {
        return Err(vec![nul(&name.replace('\0', ""))].into());
    }
    Query::<T>::try_from_uri(&uri)
        .map(|Query(value)| value)
        .map_err(|rejection| {
            let text = rejection.body_text();
            let text = text
                .strip_prefix("Failed to deserialize query string: ")
                .unwrap_or(&text);
            match text.split_once(": ") {
                Some((path, message)) => field_error(path, message),
                None => field_error("", text),
            }
        })
}

/// The problem behind a serde message, in the words of `domain::fields`.
fn field_error(path: &str, message: &str) -> ApiError {
    // serde names the field or value first, then the known ones, each between backticks.
    let mut names = message.split('`').skip(1).step_by(2);
    let name: &str = &quoted(names.next().unwrap_or_default());
    let known: Vec<&str> = names.collect();
    let path: &str = &quoted(path.trim_matches(['.', '?']));
    let inside = match path {
        "" => name.to_owned(),
        _ if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        _ => format!("{path}.{name}"),
    };
    if message.starts_with("unknown field") {
        let hint = suggestion(name, known.iter().copied());
        let message = format!("unknown field `{inside}`; {hint}");
        ApiError::invalid(inside, codes::UNKNOWN_FIELD, message)
    } else if message.starts_with("missing field") {
        ApiError::invalid(inside, codes::MISSING_FIELD, "is required")
    } else if message.starts_with("unknown variant") {
        let message = format!("must be {}, not `{name}`", one_of(&known));
        ApiError::invalid(path, codes::INVALID_VALUE, message)
    } else {
        // serde repeats the value, which may be long.
        let is_short = message.len() <= MESSAGE_BYTES;
        let message = if is_short {
            message.into()
        } else {
            quoted(message)
        };
        ApiError::invalid(path, codes::INVALID_VALUE, message)
    }
}

/// An id in the path; a malformed one is answered like an unknown one.
pub(crate) struct Id<T>(pub T);

impl<T: Noun + FromStr> FromRequestParts<AppState> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let text = path_text(parts, state, T::NOUN).await?;
        parse_id(&text).map(Self)
    }
}

/// Two ids in the path, of an object and of one that belongs to it.
pub(crate) struct Ids<T, Of>(pub T, pub Of);

impl<T: Noun + FromStr, Of: Noun + FromStr> FromRequestParts<AppState> for Ids<T, Of> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let texts = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((first, second)) = texts.map_err(|_| ApiError::not_found(T::NOUN, ""))?;
        Ok(Self(parse_id(&first)?, parse_id(&second)?))
    }
}

fn parse_id<T: Noun + FromStr>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::not_found(T::NOUN, text))
}

/// A model's name in the path.
pub(crate) struct ModelName(pub String);

impl FromRequestParts<AppState> for ModelName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let text = path_text(parts, state, "model").await?;
        if text.contains('\0') || text.len() > 512 {
            return Err(ApiError::not_found("model", text.replace('\0', "")));
        }
        Ok(Self(text))
    }
}

async fn path_text(parts: &mut Parts, state: &AppState, noun: &str) -> Result<String, ApiError> {
    let text = Path::<String>::from_request_parts(parts, state).await;
    text.map(|Path(text)| text)
        .map_err(|_| ApiError::not_found(noun, ""))
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Small {
        #[serde(default)]
        limit: Option<u32>,
    }

    fn problem(error: ApiError) -> (String, String) {
        let first = &error.body.details[0];
        (first.path.clone(), first.code.clone())
    }

    #[test]
    fn a_bad_query_names_the_parameter() {
        assert_eq!(read_query::<Small>("limit=3").unwrap().limit, Some(3));
        assert_eq!(
            problem(read_query::<Small>("limt=3").unwrap_err()),
            ("limt".to_owned(), "unknown_field".to_owned())
        );
        let error = read_query::<Small>("limt=3").unwrap_err();
        let expected = "unknown field `limt`; did you mean `limit`?";
        assert_eq!(error.body.details[0].message, expected);
        assert_eq!(
            problem(read_query::<Small>("limit=x").unwrap_err()),
            ("limit".to_owned(), "invalid_value".to_owned())
        );
        assert_eq!(
            problem(read_query::<Small>("limit=%00").unwrap_err()).1,
            "nul_character"
        );
    }

    #[test]
    fn a_bad_body_names_the_field() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Outer {
            #[expect(dead_code, reason = "only its reading is tested")]
            inner: Small,
        }
        let read = |text: &str| {
            Json(serde_json::from_str(text).unwrap())
                .read::<Outer>()
                .unwrap_err()
        };
        assert_eq!(
            problem(read(r#"{"inner":{"limt":1}}"#)),
            ("inner.limt".to_owned(), "unknown_field".to_owned())
        );
        assert_eq!(
            problem(read("{}")),
            ("inner".to_owned(), "missing_field".to_owned())
        );
        assert_eq!(
            problem(read(r#"{"inner":{"limit":-1}}"#)),
            ("inner.limit".to_owned(), "invalid_value".to_owned())
        );
    }

    #[test]
    fn u0000_is_refused_with_its_path() {
        let error = parse_json(br#"{"a":[{"b":"x\u0000"}]}"#).unwrap_err();
        assert_eq!(
            problem(error),
            ("a[0].b".to_owned(), "nul_character".to_owned())
        );
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        assert_eq!(
            parse_json(b"\xef\xbb\xbf{}").unwrap(),
            serde_json::json!({})
        );
        let error = parse_json(b"\xff\xfe{\0}\0").unwrap_err();
        assert!(
            error.body.message.contains("UTF-16"),
            "{}",
            error.body.message
        );
    }

    #[test]
    fn deep_or_broken_json_is_refused() {
        let deep = "[".repeat(100_000);
        for text in [
            deep.as_str(),
            "",
            "{",
            "\u{feff}{",
            "\0{\0}",
            "{\0}\0",
            "NaN",
        ] {
            let error = parse_json(text.as_bytes()).unwrap_err();
            assert_eq!(error.status, StatusCode::BAD_REQUEST, "{text:.20}");
        }
    }
}
