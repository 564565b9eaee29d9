//! The accept loop. axum's own has no timeout for request headers and no limit on connections, so a
//! client that sends one byte a minute could hold a socket forever. HTTP/1.1 only; a proxy in front
//! may support more.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use self::{
    connections::{Connections, Place},
    pace::{Pace, PacedBody, PacedStream},
};
use crate::{
    config::HttpLimits,
    http::api::{
        error::{ApiError, ErrorBody},
        peer::Peer,
        response_end::at_end,
    },
    telemetry::metrics::HTTP_CONNECTIONS_REFUSED,
};

mod connections;

pub(crate) mod pace;

/// The most bytes of request headers.
const HEAD_BYTES: usize = 32 << 10;
/// Time for running requests to end at shutdown.
const DRAIN: Duration = Duration::from_secs(10);
/// File descriptors for everything but connections: the database, objects, child processes.
const OTHER_FILES: usize = 512;
/// The most open files that the process asks for.
const FILES: u64 = 65_536;

/// How connections are served.
pub(crate) struct Acceptor {
    pub router: Router,
    pub limits: HttpLimits,
    /// Proxies, which may open more connections than other addresses.
    pub trusted_proxies: Vec<IpAddr>,
    pub shutdown: CancellationToken,
}

impl Acceptor {
    /// Serves until the shutdown, then waits up to `DRAIN` for running requests.
    pub(crate) async fn run(self, listener: TcpListener) {
        let files = raise_file_limit().saturating_sub(OTHER_FILES);
        let limit = self.limits.max_connections.min(files);
        if limit < self.limits.max_connections {
            tracing::warn!(
                "only {limit} connections at once, because of the limit on open files; raise it (`ulimit -n`)"
            );
        }
        let of_address = self.limits.max_connections_per_address;
        let places = Connections::new(limit, of_address, self.trusted_proxies.clone());
        let places = Arc::new(places);
        let refusal = refusal();
        let tasks = TaskTracker::new();
        let next = || self.shutdown.run_until_cancelled(accept(&listener));
        while let Some((stream, address)) = next().await {
            match places.admit(address.ip()) {
                Some(place) => {
                    tasks.spawn(self.serve(stream, address, place));
                }
                None => {
                    HTTP_CONNECTIONS_REFUSED.add([], 1);
                    // As far as that is possible without waiting for the client.
                    let _ = stream.try_write(&refusal);
                }
            }
        }
        tasks.close();
        if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
            tracing::warn!(
                "closing {} connections that were still busy {} seconds after shutdown",
                tasks.len(),
                DRAIN.as_secs()
            );
        }
    }

    /// Serves the requests of one connection.
    fn serve(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        place: Place,
    ) -> impl Future<Output = ()> + use<> {
        let _ = stream.set_nodelay(true);
        let (router, limits) = (self.router.clone(), self.limits.clone());
        let shutdown = self.shutdown.clone();
        async move {
            let connection = &place.connection;
            let stream = PacedStream::new(stream, Pace::new(&limits), Arc::clone(connection));
            let service = service_fn(|request: Request<Incoming>| {
                connection.begins();
                let body = |body| PacedBody::new(body, Pace::new(&limits), Arc::clone(connection));
                let mut request = request.map(|incoming| Body::new(body(incoming)));
                request.extensions_mut().insert(Peer(address.ip()));
                let connection = Arc::clone(connection);
                let response = router.clone().oneshot(request);
                async move {
                    let response = response.await?;
                    Ok::<_, std::convert::Infallible>(at_end(response, move || connection.ends()))
                }
            });
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(limits.header_seconds))
                .max_header_size(HEAD_BYTES);
            let served = builder.serve_connection(TokioIo::new(stream), service);
            let mut served = std::pin::pin!(served);
            // Disconnected clients are normal, so this is logged at debug level only.
            let ended = tokio::select! {
                ended = served.as_mut() => ended,
                () = connection.closed.cancelled() => {
                    return tracing::debug!(%address, "closed for a new connection");
                }
                () = shutdown.cancelled() => {
                    served.as_mut().graceful_shutdown();
                    served.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%address, "connection closed early: {error}");
            }
        }
    }
}

/// The next connection; errors are waited out.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                // Usually out of file descriptors: another connection must close first.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The whole response to a client that finds no place.
fn refusal() -> Vec<u8> {
    let message = "too many connections are open; close some, or try again";
    let error = ApiError::unavailable("too_many_connections", message, 1);
    let body = serde_json::to_string(&ErrorBody { error: *error.body }).unwrap_or_default();
    let length = body.len();
    let head = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
        content-type: application/json";
    format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

/// Raises the limit on open files as far as the process may, and returns it: the default of many
/// systems is 1,024, for programs of another age.
#[expect(unsafe_code, reason = "system calls on a local struct")]
fn raise_file_limit() -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls get a pointer to a live `rlimit`.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return usize::MAX;
        }
        let raised = libc::rlimit {
            rlim_cur: limit.rlim_max.min(FILES).max(limit.rlim_cur),
            ..limit
        };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raised) == 0 {
            limit = raised;
        }
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}
