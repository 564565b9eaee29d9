//! The outermost middleware: request id, log line, metrics, and the shape of every error, including
//! panics and axum's own plain-text rejections.

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use tracing::Instrument as _;

use crate::{
    domain::id::RequestId,
    http::api::{counted, error::ApiError},
    telemetry::metrics::{HTTP_REQUESTS, HTTP_SECONDS, Label},
};

/// Routes that are called every few seconds by machines.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// Characters of a path in the log.
const PATH_SHOWN: usize = 256;
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Most bytes of a client's own request id.
const REQUEST_ID_BYTES: usize = 128;

/// Wraps the router.
pub(crate) async fn wrap(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let method = request.method().clone();
    // The route's pattern, not the path: paths contain users' text, and the number of metrics must
    // stay bounded.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", |path| path.as_str())
        .to_owned();
    let path: String = request.uri().path().chars().take(PATH_SHOWN).collect();
    let started = Instant::now();
    let in_flight = counted::in_flight();
    let request = request.map(counted::received);
    let span = tracing::info_span!("request", request.id = %id, %method, %route);

    let outcome = AssertUnwindSafe(next.run(request).instrument(span.clone()))
        .catch_unwind()
        .await;
    let response = outcome.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        ApiError::from(anyhow::anyhow!("a handler panicked: {text}")).into_response()
    });
    let code = response.extensions().get::<ApiError>();
    let code = code.map(|error| error.body.code.clone());
    let mut response = span.in_scope(|| with_body(response, &id));

    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(&id) {
        headers.insert(X_REQUEST_ID, value);
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    let (status, took) = (response.status(), started.elapsed());
    measure(method.as_str(), &route, status, took);
    span.in_scope(|| log(&route, &path, status, code.as_deref(), took));
    response.map(|body| counted::sent(body, in_flight))
}

/// The access log: one line for each request. Those of probes and scrapers are shown by `debug`.
fn log(route: &str, path: &str, status: StatusCode, code: Option<&str>, took: Duration) {
    let (status, duration_ms) = (status.as_u16(), took.as_millis());
    if PROBES.contains(&route) {
        tracing::debug!(path, status, code, duration_ms, "response");
    } else {
        tracing::info!(path, status, code, duration_ms, "response");
    }
}

/// The client's own id where it can be logged as it is, otherwise a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(X_REQUEST_ID).map(HeaderValue::as_bytes);
    let given = given
        .filter(|id| (1..=REQUEST_ID_BYTES).contains(&id.len()))
        .filter(|id| id.iter().all(u8::is_ascii_graphic))
        .and_then(|id| str::from_utf8(id).ok());
    given.map_or_else(|| RequestId::new().to_string(), str::to_owned)
}

fn with_body(mut response: Response, id: &str) -> Response {
    let status = response.status();
    let error = match response.extensions_mut().remove::<ApiError>() {
        Some(error) => error,
        None if !(status.is_client_error() || status.is_server_error()) => return response,
        None if status == StatusCode::NOT_FOUND => ApiError::unknown_route(None),
        None if status == StatusCode::METHOD_NOT_ALLOWED => ApiError::method_not_allowed(),
        None if status.is_client_error() => {
            ApiError::unreadable("unreadable_request", "the request cannot be parsed")
        }
        None => anyhow::anyhow!("a handler answered {status} without an error").into(),
    };
    let mut rendered = error.render(id);
    if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
        rendered.headers_mut().insert(header::ALLOW, allow);
    }
    rendered
}

fn measure(method: &str, route: &str, status: StatusCode, took: Duration) {
    // A client may invent methods, too.
    let method = ["GET", "POST", "DELETE", "HEAD", "PUT", "PATCH", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other");
    let (method, route) = (Label::from(method), Label::bounded(route));
    let status = Label::bounded(status.as_str());
    HTTP_REQUESTS.add([method.clone(), route.clone(), status], 1);
    HTTP_SECONDS.record([method, route], took);
}
