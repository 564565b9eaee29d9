//! The error of the API. A handler returns an `ApiError`; the outermost middleware (`envelope`)
//! renders it, so that all errors have the same shape, including axum's own and panics.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::problem::{Code, Problem},
    jobs::admit::AdmitError,
    objects::ObjectError,
    serving::error::ServingError,
};

/// Each variant has one status; docs/errors.md lists the codes.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// 400: bad JSON, bad multipart framing, or a bad header.
    Unreadable { code: Code, message: String },
    /// 401
    Unauthorized,
    /// 403
    Forbidden { code: Code, message: String },
    /// 404: it does not exist, or belongs to another tenant.
    NotFound { noun: &'static str, id: String },
    /// 404: unknown route.
    UnknownRoute,
    /// 405
    MethodNotAllowed,
    /// 408: the body did not arrive in time.
    TooSlow { message: String },
    /// 409
    Conflict { code: Code, message: String },
    /// 413
    TooLarge {
        param: &'static str,
        message: String,
    },
    /// 415
    UnsupportedMediaType { expected: &'static str },
    /// 416
    RangeNotSatisfiable { size: u64 },
    /// 422: well-formed but invalid; never empty.
    Invalid(Vec<Problem>),
    /// 429
    TooMany {
        code: Code,
        message: String,
        retry_after_seconds: u32,
    },
    /// 500: a bug or a broken installation; details are logged, not sent.
    Internal(anyhow::Error),
    /// 503: temporary.
    Unavailable {
        code: Code,
        message: String,
        retry_after_seconds: u32,
    },
    /// 507
    StorageFull,
}

impl ApiError {
    /// A request with one problem.
    pub(crate) fn invalid(path: impl Into<String>, code: Code, message: impl Into<String>) -> Self {
        Self::Invalid(vec![Problem::new(path, code, message)])
    }

    /// `id` is truncated: it comes from the client and is sent back.
    pub(crate) fn not_found(noun: &'static str, id: &str) -> Self {
        Self::NotFound {
            noun,
            id: id.chars().take(80).collect(),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Unreadable { .. } => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::NotFound { .. } | Self::UnknownRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict { .. } => StatusCode::CONFLICT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RangeNotSatisfiable { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    fn code(&self) -> String {
        match self {
            Self::Unreadable { code, .. }
            | Self::Forbidden { code, .. }
            | Self::Conflict { code, .. }
            | Self::TooMany { code, .. }
            | Self::Unavailable { code, .. } => (*code).to_owned(),
            Self::Unauthorized => "invalid_api_key".to_owned(),
            Self::NotFound { .. } => "not_found".to_owned(),
            Self::UnknownRoute => "unknown_route".to_owned(),
            Self::MethodNotAllowed => "method_not_allowed".to_owned(),
            Self::TooSlow { .. } => "request_timeout".to_owned(),
            Self::TooLarge { .. } => "too_large".to_owned(),
            Self::UnsupportedMediaType { .. } => "unsupported_media_type".to_owned(),
            Self::RangeNotSatisfiable { .. } => "range_not_satisfiable".to_owned(),
            Self::Invalid(problems) => problems
                .first()
                .map_or_else(String::new, |first| first.code.clone()),
            Self::Internal(_) => "internal_error".to_owned(),
            Self::StorageFull => "storage_full".to_owned(),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Unreadable { message, .. }
            | Self::Forbidden { message, .. }
            | Self::TooSlow { message }
            | Self::Conflict { message, .. }
            | Self::TooLarge { message, .. }
            | Self::TooMany { message, .. }
            | Self::Unavailable { message, .. } => message.clone(),
            Self::Unauthorized => {
                "missing or wrong API key: send `Authorization: Bearer rh_…`; `rehead keys create` creates keys"
                    .to_owned()
            }
            Self::NotFound { noun, id } => format!("there is no {noun} `{id}`"),
            Self::UnknownRoute => "unknown route; see /docs".to_owned(),
            Self::MethodNotAllowed => "this route does not accept this method; the `allow` header lists those it accepts".to_owned(),
            Self::UnsupportedMediaType { expected } => format!("the body must be `{expected}`; set `content-type`"),
            Self::RangeNotSatisfiable { size } => format!("the range lies outside the object, which has {size} bytes"),
            Self::Invalid(problems) => summary(problems),
            Self::Internal(_) => "internal error; report `request_id`, under which the log has the details".to_owned(),
            Self::StorageFull => "the disk is full and nothing was stored; free some space, then send the request again".to_owned(),
        }
    }

    fn param(&self) -> Option<String> {
        match self {
            Self::TooLarge { param, .. } => Some((*param).to_owned()),
            Self::Invalid(problems) => problems
                .first()
                .map(|first| first.path.clone())
                .filter(|path| !path.is_empty()),
            _ => None,
        }
    }

    /// The response's body.
    fn body(self, request_id: &str) -> ErrorBody {
        ErrorBody {
            error: ErrorObject {
                message: self.message(),
                kind: ErrorType::of(self.status()),
                param: self.param(),
                code: self.code(),
                request_id: request_id.to_owned(),
                details: match self {
                    Self::Invalid(problems) => problems,
                    _ => Vec::new(),
                },
            },
        }
    }

    /// The response; an internal error is logged.
    pub(crate) fn render(self, request_id: &str) -> Response {
        let status = self.status();
        let mut headers = axum::http::HeaderMap::new();
        match &self {
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::TooMany {
                retry_after_seconds,
                ..
            }
            | Self::Unavailable {
                retry_after_seconds,
                ..
            } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(*retry_after_seconds));
            }
            Self::RangeNotSatisfiable { size } => {
                if let Ok(value) = HeaderValue::try_from(format!("bytes */{size}")) {
                    headers.insert(header::CONTENT_RANGE, value);
                }
            }
            Self::Internal(error) => {
                tracing::error!(request.id = request_id, "request failed: {error:#}");
            }
            _ => {}
        }
        (status, headers, axum::Json(self.body(request_id))).into_response()
    }
}

/// The first problem, and the number of further ones.
fn summary(problems: &[Problem]) -> String {
    let Some(first) = problems.first() else {
        return String::new();
    };
    let place = if first.path.is_empty() {
        String::new()
    } else {
        format!("{}: ", first.path)
    };
    match problems.len() {
        1 => format!("{place}{}", first.message),
        count => format!(
            "{place}{} (and {} more, see details)",
            first.message,
            count - 1
        ),
    }
}

/// Body of every error response.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    pub error: ErrorObject,
}

#[derive(Debug, Serialize, ToSchema)]
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
    /// Every problem of the request.
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

/// Carries an error from a handler to `envelope`, which knows the request id.
#[derive(Clone)]
pub(crate) struct Pending(pub(crate) std::sync::Arc<std::sync::Mutex<Option<ApiError>>>);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response
            .extensions_mut()
            .insert(Pending(std::sync::Arc::new(std::sync::Mutex::new(Some(
                self,
            )))));
        response
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut
            | sqlx::Error::Io(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => {
                tracing::warn!("cannot reach the database: {error}");
                Self::database_unavailable()
            }
            // Class 57: the server is shutting down or starting; class 53: out of connections or
            // memory.
            sqlx::Error::Database(ref inner)
                if inner
                    .code()
                    .is_some_and(|code| code.starts_with("57P") || code.starts_with("53")) =>
            {
                tracing::warn!("the database refused a query: {error}");
                Self::database_unavailable()
            }
            other => Self::Internal(anyhow::Error::new(other).context("a query failed")),
        }
    }
}

impl ApiError {
    fn database_unavailable() -> Self {
        Self::Unavailable {
            code: "database_unavailable",
            message: "cannot reach the database; try again".to_owned(),
            retry_after_seconds: 2,
        }
    }
}

impl From<AdmitError> for ApiError {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::Refused(problems) => Self::Invalid(problems),
            AdmitError::Database(error) => error.into(),
        }
    }
}

impl From<ObjectError> for ApiError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::StorageFull { .. } => Self::StorageFull,
            other => Self::Internal(anyhow::Error::new(other)),
        }
    }
}

impl From<ServingError> for ApiError {
    fn from(error: ServingError) -> Self {
        let (code, message, retry_after_seconds) = match error {
            ServingError::Objects(error) => return error.into(),
            ServingError::Other(error) => return error.into(),
            ServingError::Busy => ("predictions_busy", format!("{error}; try again"), 1),
            ServingError::TimedOut { .. } => (
                "prediction_timeout",
                format!("{error}; send fewer images, or try again"),
                5,
            ),
            ServingError::Crashed => (
                "inference_crashed",
                format!("{error}; check that each opens, or try again"),
                5,
            ),
        };
        Self::Unavailable {
            code,
            message,
            retry_after_seconds,
        }
    }
}

impl From<anyhow::Error> for ApiError {
    fn from(error: anyhow::Error) -> Self {
        Self::Internal(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_the_first_problem_and_counts_others() {
        let one = ApiError::invalid("seed", "out_of_range", "must be 0 or more");
        assert_eq!(one.message(), "seed: must be 0 or more");
        let two = ApiError::Invalid(vec![
            Problem::new("a", "x", "b"),
            Problem::new("c", "y", "d"),
        ])
        .body("req_1");
        assert_eq!(two.error.message, "a: b (and 1 more, see details)");
        assert_eq!(two.error.code, "x");
        assert_eq!(two.error.details.len(), 2);
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
