//! Bodies whose bytes are counted.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

use crate::telemetry::metrics::{HTTP_IN_FLIGHT, HTTP_RECEIVED, HTTP_SENT, Held};

/// A body that adds its bytes to a counter.
struct Counted {
    body: Body,
    counter: metrics::Counter,
    /// The request counts as in flight until its response has been sent, or was given up.
    _held: Option<Held>,
}

/// Counts the bytes of a request's body.
pub(crate) fn received(body: Body) -> Body {
    Body::new(Counted {
        body,
        counter: HTTP_RECEIVED.handle([]),
        _held: None,
    })
}

/// Counts a request from its headers on.
pub(crate) fn in_flight() -> Held {
    HTTP_IN_FLIGHT.hold([])
}

/// Counts the bytes of a response's body, and ends `held` with it.
pub(crate) fn sent(body: Body, held: Held) -> Body {
    Body::new(Counted {
        body,
        counter: HTTP_SENT.handle([]),
        _held: Some(held),
    })
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.counter.increment(data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
