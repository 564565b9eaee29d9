//! A listener for Prometheus and probes, apart from the API: `--metrics-listen`. It asks for no
//! key, so its address must be one that only operators reach.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

use super::recorder;

/// The most open connections; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 16;
/// The longest life of a connection: nobody can hold one for ever.
const LIFE: Duration = Duration::from_secs(30);

/// Listens on `address`, and serves `/metrics` and `/healthz` there until the process ends.
///
/// # Errors
/// The address cannot be listened on.
pub async fn start(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    recorder::install()?;
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for metrics; choose another --metrics-listen")
    })?;
    let address = listener.local_addr()?;
    tracing::info!("serving metrics on http://{address}/metrics");
    tokio::spawn(accept(listener));
    Ok(address)
}

async fn accept(listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("cannot accept a connection for metrics: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(LIFE);
            let service = service_fn(async |request| Ok::<_, Infallible>(answer(&request)));
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(LIFE, connection).await;
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, recorder::render()),
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "ok\n".to_owned()),
        (_, "/metrics" | "/healthz") => (StatusCode::METHOD_NOT_ALLOWED, String::new()),
        _ => (StatusCode::NOT_FOUND, "see /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let text = HeaderValue::from_static(recorder::CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}
