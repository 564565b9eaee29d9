//! The error of the API. A handler returns an `ApiError`; the outermost middleware (`envelope`)
//! renders it, so that all errors have the same shape, including axum's own and panics.

use std::{collections::HashSet, fmt::Display, sync::Arc, time::Duration};

use axum::{
    Extension,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    db::keys::KeyId,
    domain::{
        id::{CheckpointId, DeliveryId, FileId, JobId, PushId, RankingId, UploadId, WebhookId},
        limits,
        problem::{Code, Problem, quoted},
    },
    jobs::admit::AdmitError,
    objects::ObjectError,
    serving::error::ServingError,
};

/// Tells OpenAI's clients whether to send the same request again.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// The tenant's queue is full; which does not change within the seconds that clients wait.
pub(crate) const QUEUE_FULL: Code = "queue_full";
/// The tenant stores as much as it may; the same holds.
pub(crate) const STORAGE_QUOTA: Code = "storage_quota_exceeded";
/// A stored object has other bytes than when it was stored. Nothing but a backup changes that.
pub(crate) const OBJECT_DAMAGED: Code = "object_damaged";
/// The tenant has as many pending uploads as it may have.
pub(crate) const TOO_MANY_UPLOADS: Code = "too_many_uploads";

/// An error response; docs/errors.md lists the codes.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    /// A header that goes with the status.
    header: Option<(HeaderName, HeaderValue)>,
    /// Its request id is filled in by `render`.
    pub body: Box<ErrorObject>,
    /// Details of an internal error: logged, not sent.
    cause: Option<Arc<anyhow::Error>>,
}

/// The noun of an id, for "there is no …".
pub(crate) trait Noun: Display {
    const NOUN: &'static str;
}

impl Noun for FileId {
    const NOUN: &'static str = "file";
}

impl Noun for UploadId {
    const NOUN: &'static str = "upload";
}

impl Noun for JobId {
    const NOUN: &'static str = "fine-tuning job";
}

impl Noun for RankingId {
    const NOUN: &'static str = "ranking";
}

impl Noun for PushId {
    const NOUN: &'static str = "push";
}

impl Noun for KeyId {
    const NOUN: &'static str = "API key";
}

impl Noun for CheckpointId {
    const NOUN: &'static str = "checkpoint";
}

impl Noun for WebhookId {
    const NOUN: &'static str = "webhook";
}

impl Noun for DeliveryId {
    const NOUN: &'static str = "delivery";
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            header: None,
            body: Box::new(ErrorObject {
                message: message.into(),
                kind: ErrorType::of(status),
                param: None,
                code: code.to_owned(),
                request_id: String::new(),
                details: Vec::new(),
            }),
            cause: None,
        }
    }

    fn with_header(self, name: HeaderName, value: impl TryInto<HeaderValue>) -> Self {
        let header = value.try_into().ok().map(|value| (name, value));
        Self { header, ..self }
    }

    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        self.with_header(header::RETRY_AFTER, seconds)
    }

    /// 400: bad JSON, bad multipart framing, or a bad header.
    pub(crate) fn unreadable(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 401
    pub(crate) fn unauthorized() -> Self {
        let message = "missing or wrong API key: send `Authorization: Bearer rh_…`; `rehead keys create` creates keys";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
            .with_header(header::WWW_AUTHENTICATE, "Bearer")
    }

    /// 401: the cookie's session has ended.
    pub(crate) fn session_ended() -> Self {
        let message = "the session has ended; sign in again";
        Self::new(StatusCode::UNAUTHORIZED, "session_ended", message)
    }

    /// 403: the key's role is not enough.
    pub(crate) fn admin_only() -> Self {
        let message =
            "this needs a key with the role `admin`; `rehead keys create --role admin` creates one";
        Self::new(StatusCode::FORBIDDEN, "admin_only", message)
    }

    /// 404: it does not exist, or belongs to another tenant. `id` is truncated: it comes from the
    /// client and is sent back.
    pub(crate) fn not_found(noun: &str, id: impl Display) -> Self {
        let message = format!("there is no {noun} `{}`", quoted(&id.to_string()));
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 404: there is no object with this id.
    pub(crate) fn unknown<Id: Noun>(id: Id) -> Self {
        Self::not_found(Id::NOUN, id)
    }

    /// 404; `near` is the path that was meant, if one is likely.
    pub(crate) fn unknown_route(near: Option<String>) -> Self {
        let message = match near {
            Some(near) => format!("unknown route; did you mean `{}`?", quoted(&near)),
            None => "unknown route; see /docs".to_owned(),
        };
        Self::new(StatusCode::NOT_FOUND, "unknown_route", message)
    }

    /// 405
    pub(crate) fn method_not_allowed() -> Self {
        let message =
            "this route does not accept this method; the `allow` header lists those it accepts";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            message,
        )
    }

    /// 408: the body did not arrive in time.
    pub(crate) fn too_slow(message: String) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
    }

    /// 409
    pub(crate) fn conflict(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 413
    pub(crate) fn too_large(param: &str, message: String) -> Self {
        let mut error = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message);
        error.body.param = Some(param.to_owned());
        error
    }

    /// 415
    pub(crate) fn unsupported_media_type(expected: &str) -> Self {
        let message = format!("the body must be `{expected}`; set `content-type`");
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            message,
        )
    }

    /// 415: the body has this `content-encoding`.
    pub(crate) fn unsupported_encoding(encoding: &str) -> Self {
        let encoding = quoted(encoding);
        let message =
            format!("`content-encoding: {encoding}` is not decoded here; send the body as it is");
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_encoding",
            message,
        )
    }

    /// 416: the object has `size` bytes.
    pub(crate) fn range_not_satisfiable(size: u64) -> Self {
        let message = format!("the range lies outside the object, which has {size} bytes");
        Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "range_not_satisfiable",
            message,
        )
        .with_header(header::CONTENT_RANGE, format!("bytes */{size}"))
    }

    /// 422: a request with one problem.
    pub(crate) fn invalid(path: impl Into<String>, code: Code, message: impl Into<String>) -> Self {
        vec![Problem::new(path, code, message)].into()
    }

    /// 429: too often, or too many at once; `wait` says until when.
    pub(crate) fn rate_limited(message: impl Into<String>, wait: Duration) -> Self {
        let seconds = wait.as_secs_f64().ceil().max(1.0) as u32;
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_exceeded",
            message,
        )
        .retry_after(seconds)
    }

    /// 429: as many of something as the tenant may have at once.
    pub(crate) fn too_many(code: Code, message: impl Into<String>, retry_after: u32) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, message).retry_after(retry_after)
    }

    /// 500: a stored object has other bytes than when it was stored.
    pub(crate) fn damaged(message: String) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, OBJECT_DAMAGED, message)
    }

    /// 503: temporary.
    pub(crate) fn unavailable(code: Code, message: impl Into<String>, retry_after: u32) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).retry_after(retry_after)
    }

    /// 507
    pub(crate) fn storage_full() -> Self {
        let message =
            "the disk is full and nothing was stored; free some space, then send the request again";
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "storage_full", message)
    }

    /// The response; an internal error is logged.
    pub(crate) fn render(mut self, request_id: &str) -> Response {
        if let Some(cause) = self.cause {
            tracing::error!(request.id = request_id, "request failed: {cause:#}");
        }
        self.body.request_id = request_id.to_owned();
        let mut headers = HeaderMap::from_iter(self.header);
        let code = self.body.code.as_str();
        let lasts = [QUEUE_FULL, STORAGE_QUOTA, OBJECT_DAMAGED, TOO_MANY_UPLOADS];
        if self.status == StatusCode::CONFLICT || lasts.contains(&code) {
            // OpenAI's clients repeat a 409, a 429 and a 500 at once, unless told not to.
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        let body = axum::Json(ErrorBody { error: *self.body });
        (self.status, headers, body).into_response()
    }
}

/// The result, or 404 where an object is missing because its row, which `find` looks for, was
/// deleted meanwhile.
pub(crate) async fn unless_deleted<T, Row>(
    result: Result<T, ApiError>,
    find: impl Future<Output = Result<Row, ApiError>>,
) -> Result<T, ApiError> {
    if let Err(error) = &result
        && error.body.code == OBJECT_DAMAGED
    {
        find.await?;
    }
    result
}

/// # Errors
/// There is a problem.
pub(crate) fn refuse_any(problems: Vec<Problem>) -> Result<(), ApiError> {
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems.into())
    }
}

/// Body of every error response.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    pub error: ErrorObject,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ErrorObject {
    /// The problem and what to do about it, in words.
    pub message: String,
    #[serde(rename = "type")]
    pub kind: ErrorType,
    /// Path of the first problem in the request.
    pub param: Option<String>,
    /// Stable code, listed in docs/errors.md.
    pub code: String,
    /// Equal to the header `x-request-id`.
    pub request_id: String,
    /// The problems of the request, at most 100; the message counts all.
    pub details: Vec<Problem>,
}

/// Class of an error, as in OpenAI's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "the words of the API")]
pub(crate) enum ErrorType {
    InvalidRequestError,
    AuthenticationError,
    PermissionError,
    NotFoundError,
    RateLimitError,
    ConflictError,
    ServerError,
}

impl ErrorType {
    fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            401 => Self::AuthenticationError,
            403 => Self::PermissionError,
            404 => Self::NotFoundError,
            409 => Self::ConflictError,
            429 => Self::RateLimitError,
            500.. => Self::ServerError,
            _ => Self::InvalidRequestError,
        }
    }
}

/// `envelope` finds the error among the extensions, and renders it with the request's id.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Extension(self)).into_response()
    }
}

/// 422: well-formed but invalid. The message is that of the first problem, and counts the others.
impl From<Vec<Problem>> for ApiError {
    fn from(problems: Vec<Problem>) -> Self {
        let Some((first, others)) = problems.split_first() else {
            return anyhow::anyhow!("a request was refused without a problem: this is a bug")
                .into();
        };
        let mut message = first.message.clone();
        if !first.path.is_empty() {
            message = format!("{}: {message}", first.path);
        }
        if !others.is_empty() {
            message += &format!(" (and {} more, see details)", others.len());
        }
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, &first.code, message);
        error.body.param = Some(first.path.clone()).filter(|path| !path.is_empty());
        error.body.details = listed(problems);
        error
    }
}

/// As many problems as an answer lists: where there are more, the first of each code before others.
fn listed(problems: Vec<Problem>) -> Vec<Problem> {
    if problems.len() <= limits::PROBLEMS {
        return problems;
    }
    let mut codes = HashSet::new();
    let is_first = |problem: &Problem| codes.insert(problem.code.clone());
    let (mut listed, others): (Vec<_>, Vec<_>) = problems.into_iter().partition(is_first);
    listed.extend(others);
    listed.truncate(limits::PROBLEMS);
    listed
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut
            | sqlx::Error::Io(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => {
                tracing::warn!("cannot reach the database: {error}");
                database_unavailable()
            }
            // Class 57: the server is shutting down or starting; class 53: out of connections or
            // memory.
            sqlx::Error::Database(ref inner)
                if inner
                    .code()
                    .is_some_and(|code| code.starts_with("57P") || code.starts_with("53")) =>
            {
                tracing::warn!("the database refused a query: {error}");
                database_unavailable()
            }
            other => anyhow::Error::new(other).context("a query failed").into(),
        }
    }
}

fn database_unavailable() -> ApiError {
    let message = "cannot reach the database; try again";
    ApiError::unavailable("database_unavailable", message, 2)
}

impl From<AdmitError> for ApiError {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::Refused(problems) => problems.into(),
            AdmitError::Database(error) => error.into(),
        }
    }
}

impl From<ObjectError> for ApiError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::StorageFull { .. } => Self::storage_full(),
            ObjectError::Damaged { .. } => Self::damaged(error.to_string()),
            other => anyhow::Error::new(other).into(),
        }
    }
}

impl From<ServingError> for ApiError {
    fn from(error: ServingError) -> Self {
        let (code, advice, retry_after) = match error {
            ServingError::Objects(error) => return error.into(),
            ServingError::Other(error) => return error.into(),
            ServingError::Busy => ("predictions_busy", "try again", 1),
            ServingError::TimedOut { .. } => {
                ("prediction_timeout", "send fewer images, or try again", 5)
            }
            ServingError::Crashed => (
                "inference_crashed",
                "check that each opens, or try again",
                5,
            ),
        };
        Self::unavailable(code, format!("{error}; {advice}"), retry_after)
    }
}

/// 500: a bug or a broken installation.
impl From<anyhow::Error> for ApiError {
    fn from(cause: anyhow::Error) -> Self {
        let message = "internal error; report `request_id`, under which the log has the details";
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self {
            cause: Some(Arc::new(cause)),
            ..Self::new(status, "internal_error", message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_the_first_problem_and_counts_others() {
        let one = ApiError::invalid("seed", "out_of_range", "must be 0 or more");
        assert_eq!(one.body.message, "seed: must be 0 or more");
        let problems = vec![Problem::new("a", "x", "b"), Problem::new("c", "y", "d")];
        let two = ApiError::from(problems).body;
        assert_eq!(two.message, "a: b (and 1 more, see details)");
        assert_eq!(two.code, "x");
        assert_eq!(two.details.len(), 2);
    }

    #[test]
    fn each_status_has_an_error_type() {
        for (status, kind) in [
            (400, "invalid_request_error"),
            (404, "not_found_error"),
            (507, "server_error"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(serde_json::to_value(ErrorType::of(status)).unwrap(), kind);
        }
    }
}
