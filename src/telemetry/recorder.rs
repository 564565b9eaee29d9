//! The recorder: one per process, read as Prometheus' text.

use std::sync::OnceLock;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::metrics::{self, Kind};

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Media type of `render`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Installs the recorder, once per process.
///
/// # Errors
/// The declarations are wrong: this is a bug.
pub fn install() -> anyhow::Result<()> {
    if RECORDER.get().is_some() {
        return Ok(());
    }
    let mut builder = PrometheusBuilder::new();
    let histograms = metrics::ALL
        .iter()
        .filter(|one| one.kind == Kind::Histogram);
    for metric in histograms {
        builder = builder
            .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), metric.buckets)
            .context("a histogram without buckets: this is a bug")?;
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    // Of two concurrent callers one fails here: its recorder is dropped, with its handle.
    if ::metrics::set_global_recorder(recorder).is_ok() {
        let _ = RECORDER.set(handle);
        metrics::describe();
        let version = env!("CARGO_PKG_VERSION").into();
        metrics::BUILD_INFO.set([version], 1.0);
    }
    Ok(())
}

/// All metrics as text; empty before `install`.
pub fn render() -> String {
    RECORDER
        .get()
        .map_or_else(String::new, PrometheusHandle::render)
}

/// Compacts histograms, which grow without bound when nothing scrapes them.
pub(super) fn compact() {
    if let Some(handle) = RECORDER.get() {
        handle.run_upkeep();
    }
}
