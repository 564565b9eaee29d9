//! The access log: one line for each request, written when its response has been sent, or given up.
//! It has no text of the client but its address: the route is a pattern, and a key is its public
//! part, so that no line can be forged and no secret is kept.

use std::{
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    response::Response,
};
use hyper::body::{Frame, SizeHint};

use crate::http::api::identity::Identity;

/// Target of the lines, for filters such as `--log info,access=off`.
const TARGET: &str = "access";
/// Routes that machines call every few seconds; what succeeds there is shown by `debug` only.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// A line, complete but for what the response's body adds.
pub(crate) struct Line {
    pub request_id: String,
    pub method: &'static str,
    pub route: String,
    pub address: Option<IpAddr>,
    /// `None`: the route is public, or the key was refused.
    pub identity: Option<Identity>,
    /// Code of an error.
    pub code: Option<String>,
    pub started: Instant,
}

/// Writes the line once the body of `response` has ended.
pub(crate) fn follow(response: Response, line: Line) -> Response {
    let status = response.status().as_u16();
    response.map(|body| {
        let expected = body.size_hint().exact();
        Body::new(Logged {
            line,
            status,
            bytes: 0,
            is_complete: body.is_end_stream(),
            expected,
            body,
        })
    })
}

/// A body that is counted.
struct Logged {
    line: Line,
    status: u16,
    body: Body,
    bytes: u64,
    /// Length of the body, if it was known at its start.
    expected: Option<u64>,
    /// True once the body's end was read.
    is_complete: bool,
}

impl HttpBody for Logged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                self.is_complete = self.body.is_end_stream();
            }
            Poll::Ready(None) => self.is_complete = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let Line {
            request_id,
            method,
            route,
            address,
            identity,
            code,
            started,
        } = &self.line;
        let tenant = identity.as_ref().map(|one| one.tenant_name.as_str());
        let key = identity.as_ref().and_then(|one| one.key.as_ref());
        let is_cut_off = !self.is_complete && self.expected != Some(self.bytes);
        // A macro, because the level of a record is fixed where it is made.
        macro_rules! record {
            ($level:ident) => {
                tracing::$level!(
                    target: TARGET,
                    {
                        request.id = request_id,
                        method,
                        route,
                        status = self.status,
                        code,
                        ms = started.elapsed().as_millis() as u64,
                        bytes = self.bytes,
                        tenant,
                        key = key.map(tracing::field::display),
                        address = address.map(tracing::field::display),
                        cut_off = is_cut_off.then_some(true),
                    },
                    "request"
                )
            };
        }
        if PROBES.contains(&route.as_str()) && self.status < 400 {
            record!(debug);
        } else {
            record!(info);
        }
    }
}
