//! Prometheus metrics: one recorder for the process, rendered at `/metrics`. No label holds a user's words.

use std::{sync::OnceLock, time::Duration};

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// Seconds.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0,
];

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder, once a process.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    if let Some(handle) = RECORDER.get() {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
        .context("the buckets are in order: this is a bug")?
        .build_recorder();
    let handle = RECORDER.get_or_init(|| recorder.handle()).clone();
    // A second caller at the same moment loses the race and measures into nothing it can render; a process has one server.
    let _ = metrics::set_global_recorder(recorder);
    describe();
    Ok(handle)
}

fn describe() {
    metrics::describe_counter!("rehead_http_requests_total", "requests answered, by route");
    metrics::describe_histogram!(
        "rehead_http_request_seconds",
        metrics::Unit::Seconds,
        "from a request's head to its answer's"
    );
    metrics::describe_counter!(
        "rehead_uploaded_bytes_total",
        metrics::Unit::Bytes,
        "bytes of files received"
    );
    metrics::describe_gauge!("rehead_event_streams", "event streams open");
    metrics::describe_counter!("rehead_predictions_total", "images predicted, by outcome");
    metrics::describe_gauge!("rehead_jobs", "jobs, by status");
}

/// Histograms grow until they are rendered or kept up; nobody may be scraping.
pub(crate) async fn keep_up(handle: PrometheusHandle, shutdown: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            _ = tick.tick() => handle.run_upkeep(),
            () = shutdown.cancelled() => return,
        }
    }
}
