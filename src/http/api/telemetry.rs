//! Prometheus metrics: one recorder per process, rendered at `/metrics`. No label contains text
//! from a user.

use std::{sync::OnceLock, time::Duration};

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// Upper bounds of histogram buckets, in seconds.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0,
];

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder, once per process.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    if let Some(handle) = RECORDER.get() {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
        .context("histogram buckets are not sorted: this is a bug")?
        .build_recorder();
    let handle = RECORDER.get_or_init(|| recorder.handle()).clone();
    // Of two concurrent callers one fails here, which is harmless: a process has one server.
    let _ = metrics::set_global_recorder(recorder);
    describe();
    Ok(handle)
}

fn describe() {
    metrics::describe_counter!(
        "rehead_http_requests_total",
        "requests, by method, route and status"
    );
    metrics::describe_histogram!(
        "rehead_http_request_seconds",
        metrics::Unit::Seconds,
        "time from request headers to response headers"
    );
    metrics::describe_counter!(
        "rehead_uploaded_bytes_total",
        metrics::Unit::Bytes,
        "bytes of uploaded files"
    );
    metrics::describe_gauge!("rehead_event_streams", "open event streams");
    metrics::describe_counter!("rehead_predictions_total", "predicted images, by outcome");
    metrics::describe_gauge!("rehead_jobs", "jobs, by status");
}

/// Compacts histograms, which grow without bound when nothing scrapes them.
pub(crate) async fn keep_up(handle: PrometheusHandle, shutdown: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            _ = tick.tick() => handle.run_upkeep(),
            () = shutdown.cancelled() => return,
        }
    }
}
