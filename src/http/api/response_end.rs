//! A response whose end is noticed.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    response::Response,
};
use hyper::body::{Frame, SizeHint};

/// Calls `ended` once the body of the response was read, or given up.
pub(crate) fn at_end(response: Response, ended: impl FnOnce() + Send + 'static) -> Response {
    let ended: Box<dyn FnOnce() + Send> = Box::new(ended);
    response.map(|body| {
        Body::new(Watched {
            body,
            ended: Some(ended),
        })
    })
}

struct Watched {
    body: Body,
    ended: Option<Box<dyn FnOnce() + Send>>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended();
        }
    }
}
