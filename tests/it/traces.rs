//! Traces, as an OpenTelemetry collector receives them.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, routing::post};
use serde_json::json;

use crate::support::{data::clipart_subset, service::Service};

/// A collector in this process. It keeps the spans that it receives.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[derive(Debug, Clone, Default)]
struct Span {
    name: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    /// Trace and span of each link.
    links: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Collector {
    /// Starts it, and answers its URL.
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::clone(&self.0);
        let receive = async move |body: Bytes| spans.lock().unwrap().extend(spans_of(&body));
        let router = Router::new().route("/v1/traces", post(receive));
        tokio::spawn(async { axum::serve(listener, router).await });
        url
    }

    /// Waits for a span of this name.
    async fn span(&self, name: &str) -> Span {
        for _ in 0..300 {
            let spans = self.0.lock().unwrap().clone();
            if let Some(span) = spans.into_iter().find(|span| span.name == name) {
                return span;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("no span `{name}` in {:?}", self.0.lock().unwrap());
    }
}

/// The fields of a protobuf message that have a length: number and bytes.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let length = match tag & 7 {
            0 => {
                varint(&mut message);
                continue;
            }
            1 => 8,
            5 => 4,
            2 => varint(&mut message) as usize,
            other => panic!("wire type {other}"),
        };
        let (bytes, rest) = message.split_at(length);
        message = rest;
        if tag & 7 == 2 {
            found.push((tag >> 3, bytes));
        }
    }
    found
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = message[0];
        *message = &message[1..];
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            break;
        }
    }
    value
}

/// The messages in the field `number`.
fn inside(message: &[u8], number: u64) -> Vec<&[u8]> {
    let fields = fields(message).into_iter();
    fields
        .filter(|(of, _)| *of == number)
        .map(|(_, bytes)| bytes)
        .collect()
}

/// Spans of an `ExportTraceServiceRequest`.
fn spans_of(request: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource in inside(request, 1) {
        for scope in inside(resource, 2) {
            for message in inside(scope, 2) {
                let one = |number| {
                    inside(message, number)
                        .first()
                        .map_or(vec![], |b| b.to_vec())
                };
                let links = inside(message, 13).into_iter().map(|link| {
                    let part = |number| inside(link, number)[0].to_vec();
                    (part(1), part(2))
                });
                spans.push(Span {
                    name: String::from_utf8(one(5)).unwrap(),
                    trace: one(1),
                    id: one(2),
                    parent: one(4),
                    links: links.collect(),
                });
            }
        }
    }
    spans
}

/// A request continues its client's trace, and an attempt is linked to the request that created its
/// job.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_linked_to_the_request_of_its_job() {
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let service = Service::start_with(&["--otlp-endpoint", &endpoint]).await;
    let _worker = service.worker("worker", &["--otlp-endpoint", &endpoint]);
    let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let parent = format!("00-{trace}-{span}-01");
    service
        .send(reqwest::Method::GET, "/v1/models", |request| {
            request.header("traceparent", &parent)
        })
        .await
        .ok();
    let listed = collector.span("GET /v1/models").await;
    assert_eq!(hex::encode(&listed.trace), trace);
    assert_eq!(hex::encode(&listed.parent), span);

    let data = clipart_subset(&["animals", "food"], 8);
    let file = service.dataset(data).await;
    service.lite0().await;
    service
        .get("/v1/models/efficientnet_lite0?wait=60&until=imported")
        .await
        .ok();
    let transfer = json!({"freeze": "all", "hyperparameters": {"n_epochs": 1}});
    let job = service.job(&file, &transfer).await;
    assert_eq!(service.ended(&job).await["status"], "succeeded");
    let created = collector.span("POST /v1/fine_tuning/jobs").await;
    let attempt = collector.span("attempt").await;
    assert_eq!(attempt.links, [(created.trace, created.id)]);
    assert!(attempt.parent.is_empty());
}
