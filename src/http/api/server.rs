//! The accept loop. axum's own has no timeout for request headers and no limit on connections, so a
//! client that sends one byte a minute could hold a socket forever. HTTP/1.1 only; a proxy in front
//! may support more.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Time limit for request headers to arrive, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The most open connections; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 4_096;
/// The most bytes of request headers.
const HEAD_BYTES: usize = 32 << 10;
/// Time for running requests to end at shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves until `shutdown`, then waits up to `DRAIN` for running requests.
pub(crate) async fn accept(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit.context("the semaphore was closed: this is a bug")?,
            () = shutdown.cancelled() => break,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Usually out of file descriptors: another connection must close first.
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = shutdown.cancelled() => break,
        };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let shutdown = shutdown.clone();
        connections.spawn(async move {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_header_size(HEAD_BYTES);
            let mut connection =
                std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
            // Disconnected clients are normal, so this is logged at debug level only.
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!("connection closed early: {error}");
            }
            drop(permit);
        });
    }
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            "closing {} connections that were still busy {} seconds after shutdown",
            connections.len(),
            DRAIN.as_secs()
        );
    }
    Ok(())
}
