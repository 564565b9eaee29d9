//! Server-sent events of JSON.

use std::time::Duration;

use anyhow::Context as _;
use axum::body::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use reqwest::Response;
use serde_json::Value;

/// Silence after which a stream is given up; the service sends something every 15 seconds.
const SILENCE: Duration = Duration::from_secs(60);

/// An open stream.
pub(super) struct Stream {
    pieces: BoxStream<'static, reqwest::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Stream {
    pub(super) fn of(response: Response) -> Self {
        Self {
            pieces: response.bytes_stream().boxed(),
            buffer: Vec::new(),
        }
    }

    /// The next event; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        loop {
            while let Some(frame) = take_frame(&mut self.buffer) {
                if let Some(data) = data(&frame) {
                    let event = serde_json::from_str(&data);
                    return event.map(Some).context("an event is not JSON");
                }
            }
            let piece = tokio::time::timeout(SILENCE, self.pieces.next()).await;
            match piece.context("the stream of events is silent")? {
                Some(piece) => self
                    .buffer
                    .extend_from_slice(&piece.context("the stream of events ended early")?),
                None => return Ok(None),
            }
        }
    }
}

/// Takes a frame, up to its empty line, out of the buffer.
fn take_frame(buffer: &mut Vec<u8>) -> Option<String> {
    let end = buffer.windows(2).position(|pair| pair == b"\n\n")?;
    let frame: Vec<u8> = buffer.drain(..end + 2).collect();
    Some(String::from_utf8_lossy(&frame).into_owned())
}

/// The data of a frame; a comment has none.
fn data(frame: &str) -> Option<String> {
    let lines: Vec<&str> = frame
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(|data| data.strip_prefix(' ').unwrap_or(data))
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_once_they_are_complete() {
        let mut buffer =
            b": heartbeat\n\nid: 1\ndata: {\"a\":\ndata: 1}\n\nid: 2\ndata: 2\n".to_vec();
        assert_eq!(data(&take_frame(&mut buffer).unwrap()), None);
        let frame = take_frame(&mut buffer).unwrap();
        assert_eq!(data(&frame).as_deref(), Some("{\"a\":\n1}"));
        assert_eq!(take_frame(&mut buffer), None);
        buffer.push(b'\n');
        let frame = take_frame(&mut buffer).unwrap();
        assert_eq!(data(&frame).as_deref(), Some("2"));
        assert!(buffer.is_empty());
    }
}
