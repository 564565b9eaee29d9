//! Traces: spans of requests and attempts, sent to an OpenTelemetry collector by OTLP over HTTP.
//! Only with the feature `otel`; without it no span has a context, and nothing is sent.
//!
//! A context is text in the form of W3C's `traceparent`.

use tracing::Span;

#[cfg(feature = "otel")]
pub(super) use enabled::layer;

/// Makes a span the child of a context that a client sent. Ignores what is no context.
pub fn continue_from(span: &Span, parent: &str) {
    #[cfg(feature = "otel")]
    enabled::continue_from(span, parent);
    #[cfg(not(feature = "otel"))]
    let _ = (span, parent);
}

/// Links a span to another context, of which it is not a part: an attempt may begin days after the
/// request that created its job.
pub fn link(span: &Span, other: &str) {
    #[cfg(feature = "otel")]
    enabled::link(span, other);
    #[cfg(not(feature = "otel"))]
    let _ = (span, other);
}

/// The context of the current span; `None` when it is not traced.
pub fn current() -> Option<String> {
    #[cfg(feature = "otel")]
    return enabled::current();
    #[cfg(not(feature = "otel"))]
    None
}

#[cfg(feature = "otel")]
mod enabled {
    use anyhow::Context as _;
    use opentelemetry::{
        Context, SpanId, TraceFlags, TraceId,
        trace::{SpanContext, TraceContextExt as _, TraceState, TracerProvider as _},
    };
    use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
    use opentelemetry_sdk::{
        Resource,
        trace::{SdkTracerProvider, Tracer},
    };
    use tracing::{Span, level_filters::LevelFilter};
    use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
    use tracing_subscriber::{Layer as _, filter::Filtered, registry::LookupSpan};

    pub(in crate::telemetry) type Layer<S> =
        Filtered<OpenTelemetryLayer<S, Tracer>, LevelFilter, S>;

    /// The layer that sends spans to the collector at `endpoint`, and what sends them: to be shut
    /// down at the end of the process.
    pub(in crate::telemetry) fn layer<S>(
        endpoint: &str,
    ) -> anyhow::Result<(Layer<S>, SdkTracerProvider)>
    where
        S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .build()
            .with_context(|| format!("cannot send traces to `{endpoint}`"))?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(Resource::builder().with_service_name("rehead").build())
            .build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("rehead"))
            .with_filter(LevelFilter::INFO);
        Ok((layer, provider))
    }

    pub(super) fn continue_from(span: &Span, parent: &str) {
        if let Some(parent) = parse(parent) {
            // Fails where the span is not traced.
            let _ = span.set_parent(Context::new().with_remote_span_context(parent));
        }
    }

    pub(super) fn link(span: &Span, other: &str) {
        if let Some(other) = parse(other) {
            span.add_link(other);
        }
    }

    pub(super) fn current() -> Option<String> {
        let context = Span::current().context();
        let span = context.span().span_context().clone();
        let (trace, id) = (span.trace_id(), span.span_id());
        let flags = span.trace_flags().to_u8();
        span.is_valid()
            .then(|| format!("00-{trace}-{id}-{flags:02x}"))
    }

    /// Reads `00-<trace>-<span>-<flags>`.
    fn parse(text: &str) -> Option<SpanContext> {
        let parts: Vec<&str> = text.split('-').collect();
        let [version, trace, span, flags, ..] = parts[..] else {
            return None;
        };
        let lengths = [version.len(), trace.len(), span.len(), flags.len()];
        if lengths != [2, 32, 16, 2] || version == "ff" {
            return None;
        }
        let context = SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
            true,
            TraceState::default(),
        );
        context.is_valid().then_some(context)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_context_is_read_in_its_only_form() {
            let trace = "0af7651916cd43dd8448eb211c80319c";
            let good = format!("00-{trace}-b7ad6b7169203331-01");
            assert_eq!(parse(&good).unwrap().trace_id().to_string(), trace);
            for wrong in [
                "",
                "00",
                &good[3..],
                &good.replace("00-", "ff-"),
                &good.replace('a', "g"),
                "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                "é-é-é-é",
            ] {
                assert!(parse(wrong).is_none(), "{wrong}");
            }
        }
    }
}
