//! Downloads that break off, by the connection or with the worker: they go on where they were, and
//! only if the server still has the same file.

use std::time::Duration;

use axum::body::Bytes;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    downloads::{ended, sha256},
    support::{
        data::{files_below, lite0_weights},
        process::Process,
        receiver::{Received, Receiver, Sending, file},
        service::Service,
    },
};

const ALLOWED: [&str; 4] = ["--download-hosts", "*:*", "--private-hosts", "127.0.0.1:*"];

fn worker(service: &Service, name: &str) -> Process {
    let timing = [
        "--lease-ms",
        "1500",
        "--reap-ms",
        "200",
        "--heartbeat-ms",
        "300",
    ];
    service.worker(name, &[&ALLOWED[..], &timing].concat())
}

/// Bytes of which no range equals another.
fn content(bytes: usize) -> Bytes {
    let numbers = (0..bytes as u32 / 4).flat_map(u32::to_le_bytes);
    numbers.collect::<Vec<u8>>().into()
}

async fn download(service: &Service, server: &Receiver, sha256: Option<String>) -> Value {
    let body = json!({"url": server.url(), "purpose": "weights", "sha256": sha256});
    service.post("/v1/files", &body).await.ok()
}

/// The first byte that each request asked for.
fn starts(requests: &[Received]) -> Vec<usize> {
    let start = |one: &Received| {
        let range = one.headers.get("range")?.to_str().ok()?;
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    };
    requests.iter().map(|one| start(one).unwrap_or(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_goes_on_where_it_was() {
    let bytes = content(300_000);
    let served = bytes.clone();
    // More cuts than tries without progress.
    let server = Receiver::start(move |request, before| {
        let cut = (before < 4).then_some(64 << 10);
        let how = Sending {
            cut,
            ..Sending::default()
        };
        Some(file(request, &served, "\"v1\"", how))
    })
    .await;
    let service = Service::start_with(&ALLOWED).await;
    let worker = worker(&service, "worker");
    let file = download(&service, &server, None).await;
    let file = ended(&service, &file).await;
    assert_eq!(file["status"], "processed", "{file} {}", worker.log());
    assert_eq!(file["sha256"], sha256(&bytes));
    let requests = server.received();
    let starts = starts(&requests);
    assert_eq!(starts.len(), 5);
    assert!(starts.is_sorted_by(|a, b| a < b), "{starts:?}");
    assert!(
        requests[1..]
            .iter()
            .all(|one| one.header("if-range") == "\"v1\"")
    );
    let files = files_below(&service.objects());
    assert_eq!(files.len(), 1, "{files:?}");
}

/// Without a tag, a hash tells whether what follows is of the same file; without either, and where
/// the file changed, a download begins anew.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_same_file_goes_on() {
    let bytes = content(200_000);
    let other: Bytes = bytes
        .iter()
        .map(|byte| byte ^ 1)
        .collect::<Vec<u8>>()
        .into();
    for (tags, first, hash, asked) in [
        // The file changed, and its tag with it.
        (["\"v1\"", "\"v2\""], &other, None, vec![0, 131_072]),
        // Tags that do not tell bytes apart.
        (["W/\"v1\"", "W/\"v1\""], &bytes, None, vec![0, 0]),
        (
            ["W/\"v1\"", "W/\"v1\""],
            &bytes,
            Some(sha256(&bytes)),
            vec![0, 131_072],
        ),
        // It changed unseen: the hash finds out, and the third request gets it whole.
        (
            ["W/\"v1\"", "W/\"v1\""],
            &other,
            Some(sha256(&bytes)),
            vec![0, 131_072, 0],
        ),
    ] {
        let (served, first) = (bytes.clone(), first.clone());
        let server = Receiver::start(move |request, before| {
            let (content, tag, cut) = match before {
                0 => (&first, tags[0], Some(128 << 10)),
                _ => (&served, tags[1], None),
            };
            let how = Sending {
                cut,
                ..Sending::default()
            };
            Some(file(request, content, tag, how))
        })
        .await;
        let service = Service::start_with(&ALLOWED).await;
        let worker = worker(&service, "worker");
        let file = download(&service, &server, hash).await;
        let file = ended(&service, &file).await;
        assert_eq!(file["status"], "processed", "{file} {}", worker.log());
        assert_eq!(file["sha256"], sha256(&bytes));
        assert_eq!(starts(&server.received()), asked);
    }
}

/// A server that has had too many requests is asked again after the time that it says.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_server_is_asked_again_when_it_says() {
    let bytes = content(1_000);
    let served = bytes.clone();
    let server = Receiver::start(move |request, before| match before {
        0 => {
            let busy = axum::response::Response::builder().status(429);
            let busy = busy.header("retry-after", "3");
            Some(busy.body(axum::body::Body::empty()).unwrap())
        }
        _ => Some(file(request, &served, "\"v1\"", Sending::default())),
    })
    .await;
    let service = Service::start_with(&ALLOWED).await;
    let _worker = worker(&service, "worker");
    let begun = std::time::Instant::now();
    let file = download(&service, &server, None).await;
    assert_eq!(ended(&service, &file).await["status"], "processed");
    assert!(begun.elapsed() > Duration::from_secs(3));
}

/// Workers are killed during the download of a base model's weights, and then during its import:
/// the model is registered once, whole, and no byte was asked for twice that had been written.
#[tokio::test(flavor = "multi_thread")]
async fn killed_workers_leave_nothing_half_registered() {
    let weights: Bytes = lite0_weights().into();
    let served = weights.clone();
    let server = Receiver::start(move |request, _| {
        let pause = Duration::from_millis(4);
        let how = Sending { pause, cut: None };
        Some(file(request, &served, "\"v1\"", how))
    })
    .await;
    let arguments = [&ALLOWED[..], &["--max-wait-seconds", "1"]].concat();
    let service = Service::start_with(&arguments).await;
    let body = json!({
        "id": "mine", "architecture": "tf_efficientnet_lite0",
        "weights": {"url": server.url(), "sha256": sha256(&weights)},
    });
    service.post("/v1/base_models", &body).await.ok();
    let status = async || service.get("/v1/models/mine").await.ok()["status"].clone();
    let files = || files_below(&service.objects());
    let count = |end: &str| files().iter().filter(|name| name.ends_with(end)).count();
    let kill = |mut worker: Process| {
        worker.signal(Signal::SIGKILL);
        worker.wait(Duration::from_secs(10));
    };
    for requests in 1..=2 {
        let worker = worker(&service, "downloads");
        server.wait_for(requests).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        kill(worker);
        assert_eq!(status().await, "importing");
        assert_eq!(
            (count("/content"), count("/content.part")),
            (0, 1),
            "{:?}",
            files()
        );
    }
    for _ in 1..=2 {
        let worker = worker(&service, "imports");
        while count("/content") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The second import begins when the lease of the first has expired.
        server.wait_for(3).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        kill(worker);
        assert_eq!(status().await, "importing");
    }
    let worker = worker(&service, "last");
    while status().await == "importing" {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(status().await, "ready", "{}", worker.log());
    let starts = starts(&server.received());
    assert_eq!(starts.len(), 3, "{starts:?}");
    assert!(starts.is_sorted_by(|a, b| a < b), "{starts:?}");
    let counts = ["/content", "/model.safetensors", ".part", ".tag"].map(count);
    assert_eq!(counts, [1, 1, 0, 0], "{:?}", files());
}
