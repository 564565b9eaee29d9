//! A real HTTP server for what the service sends to other hosts, and a listener that must hear
//! nothing.

use std::{
    io,
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, stream};
use tokio::task::JoinHandle;

/// A request that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// The body as text, and as it came.
    pub(crate) body: String,
    pub(crate) bytes: Bytes,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A server on a port of its own, until it is dropped.
pub(crate) struct Receiver {
    pub(crate) port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Answers each request by `answer`, which is given it and the number of those before it;
    /// `None` answers never.
    pub(crate) async fn start<F>(answer: F) -> Self
    where
        F: Fn(&Received, usize) -> Option<Response> + Clone + Send + Sync + 'static,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let all = Arc::clone(&received);
        let router = Router::new().fallback(async move |request: Request| {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
            let one = Received {
                method: parts.method,
                path: parts.uri.to_string(),
                headers: parts.headers,
                body: String::from_utf8_lossy(&body).into_owned(),
                bytes: body,
            };
            let before = {
                let mut all = all.lock().unwrap();
                all.push(one.clone());
                all.len() - 1
            };
            match answer(&one, before) {
                Some(response) => response,
                None => std::future::pending().await,
            }
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            port,
            received,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Waits until this many requests have arrived.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Received> {
        for _ in 0..1_200 {
            let received = self.received();
            if received.len() >= count {
                return received;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("not {count} requests: {:?}", self.received());
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn status(status: u16) -> Option<Response> {
    Some(StatusCode::from_u16(status).unwrap().into_response())
}

pub(crate) fn redirect(status: u16, location: &str) -> Option<Response> {
    let response = Response::builder()
        .status(status)
        .header("location", location);
    Some(response.body(Body::empty()).unwrap())
}

/// The refusal of a hub, which says why in a header.
pub(crate) fn hub_refusal(code: u16, error: &str) -> Option<Response> {
    let response = Response::builder()
        .status(code)
        .header("x-error-code", error);
    Some(response.body(Body::empty()).unwrap())
}

/// How a file is sent.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sending {
    /// The connection breaks off after so many bytes.
    pub(crate) cut: Option<usize>,
    /// Before each piece of 16 KiB.
    pub(crate) pause: Duration,
}

/// A file under a tag, or the range of it that is asked for, as RFC 9110 has it.
pub(crate) fn file(request: &Received, content: &Bytes, tag: &str, how: Sending) -> Response {
    let asked = |name: &str| {
        request
            .headers
            .get(name)
            .and_then(|text| text.to_str().ok())
    };
    let is_same = asked("if-range").is_none_or(|asked| asked == tag);
    let first = asked("range").filter(|_| is_same);
    let first = first.and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    });
    let (start, total): (usize, usize) = (first.unwrap_or(0), content.len());
    let response = Response::builder().header("etag", tag);
    if start >= total {
        let response = response.header("content-range", format!("bytes */{total}"));
        return response.status(416).body(Body::empty()).unwrap();
    }
    let response = match first {
        Some(_) => response.status(206).header(
            "content-range",
            format!("bytes {start}-{}/{total}", total - 1),
        ),
        None => response,
    };
    let rest = content.slice(start..);
    let length = rest.len();
    let sent = rest.slice(..how.cut.unwrap_or(length).min(length));
    let is_cut = sent.len() < length;
    let pieces: Vec<io::Result<Bytes>> = (0..sent.len())
        .step_by(16 << 10)
        .map(|at| Ok(sent.slice(at..(at + (16 << 10)).min(sent.len()))))
        .chain(is_cut.then(|| Err(io::Error::other("cut off"))))
        .collect();
    let pieces = stream::iter(pieces).then(move |piece| async move {
        tokio::time::sleep(how.pause).await;
        piece
    });
    let response = response.header("content-length", length);
    response.body(Body::from_stream(pieces)).unwrap()
}

/// A listener that counts as contacted by a mere connection.
pub(crate) struct Silent(TcpListener);

impl Silent {
    /// Listens on this address, with a port of its own.
    pub(crate) fn bind(address: &str) -> Option<Self> {
        let listener = TcpListener::bind((address, 0)).ok()?;
        listener.set_nonblocking(true).unwrap();
        Some(Self(listener))
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// True when somebody has connected.
    pub(crate) fn was_contacted(&self) -> bool {
        self.0.accept().is_ok()
    }
}
