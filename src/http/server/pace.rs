//! The least speed of a client: in every span of waiting for it, a least number of bytes must
//! move. Only the time spent waiting counts, so a slow server, an idle stream and a long
//! computation never make a client slow.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    BoxError,
    body::{Bytes, HttpBody},
};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::connections::Connection;
use crate::config::HttpLimits;

/// A client that moves too few bytes.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the client moved fewer than {least} bytes in {seconds} seconds")]
pub(crate) struct TooSlow {
    pub least: u64,
    pub seconds: u64,
}

impl TooSlow {
    /// Finds this among the causes of an error.
    pub(crate) fn find(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(*found);
            }
            cause = error.source();
        }
        None
    }
}

/// Measures one direction of a connection.
pub(crate) struct Pace {
    /// Time of waiting after which the bytes are counted.
    span: Duration,
    /// Bytes that must move in it.
    least: u64,
    waited: Duration,
    moved: u64,
    /// Start of the current wait.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(crate) fn new(limits: &HttpLimits) -> Self {
        let seconds = limits.slow_client_seconds.max(1);
        Self {
            span: Duration::from_secs(seconds),
            least: limits.min_bytes_per_second.saturating_mul(seconds),
            waited: Duration::ZERO,
            moved: 0,
            since: None,
            timer: None,
        }
    }

    /// Bytes have moved, which ends a wait.
    fn moved(&mut self, bytes: usize) -> Result<(), TooSlow> {
        self.moved += bytes as u64;
        let Some(since) = self.since.take() else {
            return Ok(());
        };
        self.waited += since.elapsed();
        self.judge()
    }

    /// None move now: waits for the client. Wakes the task when the span is over.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<TooSlow> {
        loop {
            let now = Instant::now();
            let since = match self.since {
                Some(since) => since,
                None => {
                    self.since = Some(now);
                    let left = self.span.saturating_sub(self.waited);
                    match &mut self.timer {
                        Some(timer) => timer.as_mut().reset(now + left),
                        None => self.timer = Some(Box::pin(sleep_until(now + left))),
                    }
                    now
                }
            };
            let Some(timer) = &mut self.timer else {
                return Poll::Pending;
            };
            ready!(timer.as_mut().poll(context));
            self.waited += since.elapsed();
            self.since = None;
            if let Err(slow) = self.judge() {
                return Poll::Ready(slow);
            }
        }
    }

    fn judge(&mut self) -> Result<(), TooSlow> {
        if self.waited < self.span {
            return Ok(());
        }
        let moved = std::mem::take(&mut self.moved);
        self.waited = Duration::ZERO;
        if moved >= self.least {
            return Ok(());
        }
        Err(TooSlow {
            least: self.least,
            seconds: self.span.as_secs(),
        })
    }
}

/// A stream whose reader must not be too slow. Reads are not measured here: what is read outside of
/// a request has its own timeout, and a body is measured by `PacedBody`.
pub(crate) struct PacedStream<S> {
    stream: S,
    pace: Pace,
    connection: Arc<Connection>,
}

impl<S> PacedStream<S> {
    pub(crate) fn new(stream: S, pace: Pace, connection: Arc<Connection>) -> Self {
        Self {
            stream,
            pace,
            connection,
        }
    }

    fn measure(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let slow = |slow| io::Error::new(io::ErrorKind::TimedOut, slow);
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.connection.moves();
                self.pace.moved(bytes).map_err(slow)?;
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.connection.waits();
                self.pace.wait(context).map(|too_slow| Err(slow(too_slow)))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.measure(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.measure(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The body of a request, whose sender must not be too slow.
pub(crate) struct PacedBody {
    body: Incoming,
    pace: Pace,
    connection: Arc<Connection>,
}

impl PacedBody {
    pub(crate) fn new(body: Incoming, pace: Pace, connection: Arc<Connection>) -> Self {
        Self {
            body,
            pace,
            connection,
        }
    }
}

impl HttpBody for PacedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            self.connection.waits();
            return self.pace.wait(context).map(|slow| Some(Err(slow.into())));
        };
        self.connection.moves();
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        // The end of a body is not judged: it is complete.
        match self.pace.moved(bytes) {
            Err(slow) if frame.is_some() => Poll::Ready(Some(Err(slow.into()))),
            _ => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace {
            span: Duration::from_secs(30),
            least: 100,
            waited: Duration::ZERO,
            moved: 0,
            since: None,
            timer: None,
        }
    }

    /// As if it had waited for so long until now.
    fn wait(pace: &mut Pace, seconds: u64) {
        pace.since = Instant::now().checked_sub(Duration::from_secs(seconds));
    }

    #[tokio::test]
    async fn least_number_of_bytes_is_enough() {
        for (bytes, is_ok) in [(100, true), (99, false)] {
            let mut pace = pace();
            wait(&mut pace, 20);
            assert!(pace.moved(bytes).is_ok());
            // Without a wait, no time passes.
            assert!(pace.moved(0).is_ok());
            wait(&mut pace, 11);
            assert_eq!(pace.moved(0).is_ok(), is_ok, "{bytes}");
        }
    }

    #[tokio::test]
    async fn early_bytes_do_not_excuse_a_later_stall() {
        let mut pace = pace();
        assert!(pace.moved(1_000_000).is_ok());
        wait(&mut pace, 31);
        assert!(pace.moved(0).is_ok());
        wait(&mut pace, 31);
        assert!(pace.moved(0).is_err());
    }
}
