//! Early answers. A client may still be sending its body when the response is there: 401, 413, 422.
//! A socket that is closed with unread bytes is reset, and the client sees a broken pipe in place
//! of the answer. So the rest of the body is read and discarded for a while, and the response says
//! `connection: close`, because the client might never end.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderValue, header},
    middleware::Next,
    response::Response,
};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// Most bytes of a body that are discarded.
const BYTES: u64 = 8 << 20;
/// Most time for that.
const TIME: Duration = Duration::from_secs(5);
/// Time in which the end of a body may arrive that was read almost to its end; the connection then
/// stays open.
const GRACE: Duration = Duration::from_millis(10);

/// Middleware, around everything that may answer.
pub(crate) async fn linger(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let waits_for_continue = request.headers().contains_key(header::EXPECT);
    let (parts, body) = request.into_parts();
    let body = Shared::new(body);
    let lent = Body::new(Lent(body.clone()));
    let mut response = next.run(Request::from_parts(parts, lent)).await;
    // To read it would ask the client to send it.
    let is_held_back = waits_for_continue && !body.lock().is_begun;
    if !is_held_back && body.discard(BYTES, GRACE).await {
        return response;
    }
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    if !is_held_back {
        tokio::spawn(async move { body.discard(BYTES, TIME).await });
    }
    response
}

/// A request's body, which the handler reads first, and this module then.
#[derive(Clone)]
struct Shared(Arc<Mutex<Reading>>);

struct Reading {
    body: Body,
    is_begun: bool,
    has_ended: bool,
}

impl Shared {
    fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Reading {
            body,
            is_begun: false,
            has_ended: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Reading> {
        // A panic while reading leaves a body that can be read or has ended.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads on without keeping anything. Returns `false` if there may be more.
    async fn discard(&self, most: u64, time: Duration) -> bool {
        let read = async {
            let mut left = most;
            while !self.lock().has_ended() {
                let frame = poll_fn(|cx| self.lock().poll(cx)).await;
                let Some(Ok(frame)) = frame else {
                    return true;
                };
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                match left.checked_sub(bytes) {
                    Some(rest) => left = rest,
                    None => return false,
                }
            }
            true
        };
        tokio::time::timeout(time, read).await.unwrap_or(false)
    }
}

impl Reading {
    fn has_ended(&self) -> bool {
        self.has_ended || self.body.is_end_stream()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.is_begun = true;
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.has_ended |= !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }
}

/// The body as a handler has it.
struct Lent(Shared);

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.0.lock().poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().body.size_hint()
    }
}
