//! The outermost middleware: request id, access log, metrics, and the shape of every error,
//! including panics and axum's own plain-text rejections.

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use tracing::{Instrument as _, Span};

use crate::{
    domain::id::RequestId,
    http::api::{
        access_log::{self, Line},
        counted,
        error::ApiError,
        identity::Identity,
        peer::Peer,
        rate_limit::Level,
    },
    telemetry::{
        metrics::{HTTP_REQUESTS, HTTP_SECONDS, Label},
        traces,
    },
};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Most bytes of a client's own request id.
const REQUEST_ID_BYTES: usize = 128;

/// Wraps the router.
pub(crate) async fn wrap(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let method = known_method(request.method());
    // The route's pattern, not the path: paths contain users' text, and the number of metrics must
    // stay bounded.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", |path| path.as_str())
        .to_owned();
    let started = Instant::now();
    let in_flight = counted::in_flight();
    let request = request.map(counted::received);
    let address = request.extensions().get::<Peer>().map(|peer| peer.0);
    let span = span(&id, method, &route);
    if let Some(parent) = request.headers().get(TRACEPARENT) {
        traces::continue_from(&span, parent.to_str().unwrap_or_default());
    }

    let outcome = AssertUnwindSafe(next.run(request).instrument(span.clone()))
        .catch_unwind()
        .await;
    let mut response = outcome.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        ApiError::from(anyhow::anyhow!("a handler panicked: {text}")).into_response()
    });
    let code = response.extensions().get::<ApiError>();
    let code = code.map(|error| error.body.code.clone());
    let identity = response.extensions_mut().remove::<Identity>();
    let level = response.extensions_mut().remove::<Level>();
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
    for (name, value) in level.iter().flat_map(Level::headers) {
        headers.insert(name, value);
    }
    span.record("http.response.status_code", response.status().as_u16());
    measure(method, &route, response.status(), started.elapsed());
    let line = Line {
        request_id: id,
        method,
        route,
        address,
        identity,
        code,
        started,
    };
    access_log::follow(response.map(|body| counted::sent(body, in_flight)), line)
}

/// The span of a request. Its log lines have its id, method and route; a trace has the names that
/// OpenTelemetry gives them.
fn span(id: &str, method: &str, route: &str) -> Span {
    #[cfg(feature = "otel")]
    return tracing::info_span!(
        "request", request.id = %id, method, %route, otel.name = %format!("{method} {route}"),
        otel.kind = "server", http.response.status_code = tracing::field::Empty
    );
    #[cfg(not(feature = "otel"))]
    tracing::info_span!("request", request.id = %id, method, %route)
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

/// The method's name. A client may invent methods, too, which must not become labels of metrics.
fn known_method(method: &Method) -> &'static str {
    ["GET", "POST", "DELETE", "HEAD", "PUT", "PATCH", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method.as_str())
        .unwrap_or("other")
}

fn measure(method: &'static str, route: &str, status: StatusCode, took: Duration) {
    let (method, route) = (Label::from(method), Label::bounded(route));
    let status = Label::bounded(status.as_str());
    HTTP_REQUESTS.add([method.clone(), route.clone(), status], 1);
    HTTP_SECONDS.record([method, route], took);
}
