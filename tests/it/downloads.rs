//! Files and weights by URL: downloaded by a worker from real servers, within limits, from allowed
//! hosts only.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use futures_util::StreamExt as _;
use nix::sys::signal::Signal;
use rehead::domain::file::Purpose;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    data::{clipart_subset, files_below, lite0_weights},
    process::Process,
    receiver::{Receiver, Silent, redirect, status},
    service::{Service, job_body},
};

const ALLOWED: [&str; 4] = ["--download-hosts", "*:*", "--private-hosts", "127.0.0.1:*"];

/// A service that downloads from this machine.
async fn service() -> Service {
    Service::start_with(&ALLOWED).await
}

fn worker(service: &Service, name: &str, arguments: &[&str]) -> Process {
    let mut all = ALLOWED.to_vec();
    all.extend(arguments);
    service.worker(name, &all)
}

async fn download(service: &Service, url: &str, purpose: Purpose) -> Value {
    let body = json!({"url": url, "purpose": purpose});
    service.post("/v1/files", &body).await.ok()
}

/// The file once its download, and the validation after it, have ended.
pub(crate) async fn ended(service: &Service, file: &Value) -> Value {
    let path = format!(
        "/v1/files/{}?wait=60&until=processed",
        file["id"].as_str().unwrap()
    );
    service.get(&path).await.ok()
}

fn bytes(bytes: impl Into<Bytes>) -> Option<Response> {
    Some(Response::new(Body::from(bytes.into())))
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A server that answers each connection with these bytes, and leaves it open or closes it.
async fn raw_server(answer: Vec<u8>, close: bool) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/file", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let _ = socket.read(&mut [0; 4_096]).await;
                let _ = socket.write_all(&answer).await;
                if !close {
                    let () = std::future::pending().await;
                }
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_set_by_url_is_validated_and_trained_on() {
    let data = clipart_subset(&["animals", "food"], 12);
    let served = data.clone();
    let server = Receiver::start(move |_, before| match before {
        0 => redirect(302, "/moved/here/pets%20here.zip?token=secret"),
        _ => bytes(served.clone()),
    })
    .await;
    let service = service().await;
    let url = format!("http://127.0.0.1:{}/pets.zip", server.port);
    let body = json!({"url": url, "purpose": "fine-tune", "sha256": sha256(&data).to_uppercase()});
    let file = service.post("/v1/files", &body).await.ok();
    assert_eq!(file["status"], "downloading");
    assert_eq!(file["filename"], "pets.zip");
    assert_eq!((&file["bytes"], &file["sha256"]), (&json!(0), &Value::Null));
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    service
        .get(&format!("{path}/content"))
        .await
        .error(409, "not_ready");
    service
        .get(&format!("{path}/report"))
        .await
        .error(409, "not_ready");

    let worker = worker(&service, "worker", &[]);
    service.lite0().await;
    // A job may be created at once, and waits.
    let job = job_body("efficientnet_lite0", &file, &json!({}));
    let job = service.post("/v1/fine_tuning/jobs", &job).await.ok();
    let file = ended(&service, &file).await;
    assert_eq!(file["status"], "processed", "{file} {}", worker.log());
    assert_eq!(file["sha256"], sha256(&data));
    assert_eq!(file["bytes"], data.len());
    assert_eq!(service.get(&format!("{path}/content")).await.body, data);
    let waits = |job: &Value| job["status"] == "validating_files";
    let job = service
        .until(&service.path(&job), "recipe", |job| !waits(job))
        .await;
    assert_ne!(job["status"], "failed", "{job}");
    service.ask(&job, "cancel").await.ok();
    service.ended(&job).await;
    let requests = server.received();
    assert_eq!(requests.len(), 2);
    assert!(
        requests
            .iter()
            .all(|one| one.header("accept-encoding") == "identity")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_by_url_become_a_base_model() {
    let weights = lite0_weights();
    let served = weights.clone();
    let server = Receiver::start(move |one, _| match one.path.as_str() {
        "/lite0.pth" => bytes(served.clone()),
        _ => status(404),
    })
    .await;
    let service = service().await;
    let _worker = worker(&service, "worker", &[]);
    let url = format!("http://127.0.0.1:{}/lite0.pth", server.port);
    let body = |id: &str, weights: Value| json!({"id": id, "architecture": "tf_efficientnet_lite0", "weights": weights});
    let good = body("good", json!({"url": url, "sha256": sha256(&weights)}));
    let model = service.post("/v1/base_models", &good).await.ok();
    assert_eq!(model["status"], "ready");
    let taken = service.post("/v1/base_models", &good).await;
    taken.error(409, "model_exists");

    for (weights, code, path) in [
        (
            json!({"url": format!("{url}x")}),
            "download_failed",
            "weights.url",
        ),
        (
            json!({"url": url, "sha256": "0".repeat(64)}),
            "wrong_sha256",
            "weights.sha256",
        ),
        (
            json!({"url": url, "sha256": "0"}),
            "invalid_value",
            "weights.sha256",
        ),
        (
            json!({"url": "file:///etc/passwd"}),
            "url_not_allowed",
            "weights.url",
        ),
        (json!({}), "missing_field", "weights.file"),
        (
            json!({"url": url, "file": format!("file-{}", "0".repeat(32))}),
            "contradiction",
            "weights.file",
        ),
        (
            json!({"sha256": "0", "file": format!("file-{}", "0".repeat(32))}),
            "contradiction",
            "weights.file",
        ),
    ] {
        let answer = service.post("/v1/base_models", &body("bad", weights)).await;
        let error = answer.error(422, code);
        assert!(error.contains(&format!("\"{path}\"")), "{error}");
    }
    let models = service.get("/v1/models").await.ok();
    assert_eq!(models["data"].as_array().unwrap().len(), 1);
}

/// Each row ends as `error` with its code, and leaves no bytes.
#[tokio::test(flavor = "multi_thread")]
async fn downloads_end_by_their_limits_and_leave_nothing() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: ";
    let answer = |text: String| text.into_bytes();
    let endless = Receiver::start(|_, _| {
        let zeros = futures_util::stream::repeat(Bytes::from_static(&[0; 4_096]));
        let zeros = zeros.map(Ok::<_, std::io::Error>);
        Some(Response::new(Body::from_stream(zeros)))
    })
    .await;
    let encoded = Receiver::start(|_, _| {
        let response = Response::builder().header("content-encoding", "gzip");
        Some(response.body(Body::from("x")).unwrap())
    })
    .await;
    let empty = Receiver::start(|_, _| status(200)).await;
    let missing = Receiver::start(|_, _| status(404)).await;
    let broken = Receiver::start(|_, _| status(500)).await;
    let silent = Receiver::start(|_, _| None).await;
    let looping = Receiver::start(|_, _| redirect(301, "/again")).await;
    let closed = Silent::bind("127.0.0.1").unwrap();
    let closed_url = format!("http://127.0.0.1:{}/", closed.port());
    drop(closed);
    let rows = [
        (endless.url(), "download_too_large"),
        (
            raw_server(answer(format!("{HEAD}100001\r\n\r\n")), false).await,
            "download_too_large",
        ),
        (
            raw_server(answer(format!("{HEAD}18446744073709551613\r\n\r\n")), false).await,
            "download_too_large",
        ),
        // Says more than it sends, and then closes, or stays silent.
        (
            raw_server(answer(format!("{HEAD}100000\r\n\r\nabc")), true).await,
            "download_failed",
        ),
        (
            raw_server(answer(format!("{HEAD}100000\r\n\r\nabc")), false).await,
            "download_timeout",
        ),
        (
            raw_server(answer("no http at all\r\n\r\n".to_owned()), true).await,
            "download_failed",
        ),
        (silent.url(), "download_timeout"),
        (encoded.url(), "download_failed"),
        (empty.url(), "empty_file"),
        (missing.url(), "download_failed"),
        (broken.url(), "download_failed"),
        (looping.url(), "download_refused"),
        (closed_url, "download_failed"),
    ];
    let service = service().await;
    let limits = [
        "--max-download-bytes",
        "100000",
        "--download-idle-ms",
        "1000",
        "--downloads",
        "8",
    ];
    let worker = worker(&service, "worker", &limits);
    let mut files = Vec::new();
    for (url, code) in &rows {
        files.push((download(&service, url, Purpose::FineTune).await, url, code));
    }
    for (file, url, code) in files {
        let file = ended(&service, &file).await;
        assert_eq!(file["status"], "error", "{url}: {file}");
        let report = format!("/v1/files/{}/report", file["id"].as_str().unwrap());
        let report = service.get(&report).await.ok();
        assert_eq!(
            report["errors"][0]["code"],
            **code,
            "{url}: {report} {}",
            worker.log()
        );
        assert!(file["sha256"].is_null());
    }
    // A server that fails is asked three times, one that refuses once.
    assert_eq!(broken.received().len(), 3);
    assert_eq!(missing.received().len(), 1);
    assert_eq!(looping.received().len(), 4);
    assert_eq!(files_below(&service.objects()), Vec::<String>::new());
}

/// At the limit of bytes, in the header and as they come, a file is taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_of_exactly_the_limit_is_taken() {
    let told = Receiver::start(|_, _| bytes(vec![7; 100_000])).await;
    let chunked = Receiver::start(|_, _| {
        let parts = futures_util::stream::repeat(Bytes::from_static(&[7; 1_000])).take(100);
        Some(Response::new(Body::from_stream(
            parts.map(Ok::<_, std::io::Error>),
        )))
    })
    .await;
    let service = service().await;
    let _worker = worker(&service, "worker", &["--max-download-bytes", "100000"]);
    for server in [&told, &chunked] {
        let file = download(&service, &server.url(), Purpose::Weights).await;
        let file = ended(&service, &file).await;
        assert_eq!(
            (&file["status"], &file["bytes"]),
            (&json!("processed"), &json!(100_000))
        );
    }
}

/// A host that is allowed redirects to ones that are not; a listener there hears nothing.
#[tokio::test(flavor = "multi_thread")]
async fn redirects_to_private_hosts_are_not_followed() {
    let silent = Silent::bind("127.0.0.2").unwrap();
    let port = silent.port();
    let locations = [
        format!("http://127.0.0.2:{port}/"),
        format!("//127.0.0.2:{port}/"),
        format!("http://0x7f000002:{port}/"),
        format!("http://[::ffff:127.0.0.2]:{port}/"),
        format!("http://user@127.0.0.2:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.2/".to_owned(),
        "http://".to_owned(),
    ];
    let service = service().await;
    let _worker = worker(&service, "worker", &["--downloads", "4"]);
    for (index, location) in locations.iter().enumerate() {
        let to = location.clone();
        // The last of three hops leads astray, as the first one may.
        let server = Receiver::start(move |_, before| match before {
            hop if hop < index % 3 => redirect(307, "/next"),
            _ => redirect(302, &to),
        })
        .await;
        let file = download(&service, &server.url(), Purpose::FineTune).await;
        let file = ended(&service, &file).await;
        assert_eq!(file["status"], "error", "{location}");
        let report = format!("/v1/files/{}/report", file["id"].as_str().unwrap());
        let report = service.get(&report).await.ok();
        assert_eq!(
            report["errors"][0]["code"], "download_refused",
            "{location}: {report}"
        );
        assert!(!silent.was_contacted(), "{location}");
    }
}

#[tokio::test]
async fn downloads_can_be_off_and_are_limited_per_tenant() {
    let off = Service::start_with(&["--download-hosts", "none"]).await;
    let body = json!({"url": "https://example.org/pets.zip", "purpose": "fine-tune"});
    let error = off
        .post("/v1/files", &body)
        .await
        .error(422, "downloads_off");
    assert!(error.contains("--download-hosts"), "{error}");
    drop(off);

    let arguments = [
        "--download-hosts",
        "127.0.0.1:*",
        "--private-hosts",
        "127.0.0.1:*",
        "--max-downloads",
        "2",
    ];
    let service = Service::start_with(&arguments).await;
    for (change, code) in [
        (json!({"url": "https://example.org/"}), "url_not_allowed"),
        (json!({"purpose": "dancing"}), "invalid_value"),
        (json!({"sha256": "x".repeat(64)}), "invalid_value"),
        (json!({"filename": "a".repeat(256)}), "invalid_filename"),
        (json!({"uri": "x"}), "unknown_field"),
    ] {
        let mut body = json!({"url": "http://127.0.0.1:9/", "purpose": "fine-tune"});
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        service.post("/v1/files", &body).await.error(422, code);
    }
    let first = download(&service, "http://127.0.0.1:9/", Purpose::FineTune).await;
    assert_eq!(first["filename"], "download");
    download(&service, "http://127.0.0.1:9/a", Purpose::Weights).await;
    let body = json!({"url": "http://127.0.0.1:9/b", "purpose": "weights"});
    let full = service.post("/v1/files", &body).await;
    full.error(429, "too_many_downloads");
    // A file that is deleted makes room, and its work goes with it.
    service
        .delete(&format!("/v1/files/{}", first["id"].as_str().unwrap()))
        .await
        .ok();
    service.post("/v1/files", &body).await.ok();
}

/// A worker is killed in the middle; another one downloads the file anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_whose_worker_is_killed_is_done_by_another() {
    let server = Receiver::start(|_, before| match before {
        0 => {
            let drip =
                futures_util::stream::repeat(Bytes::from_static(&[1; 1_024])).then(async |bytes| {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    Ok::<_, std::io::Error>(bytes)
                });
            Some(Response::new(Body::from_stream(drip)))
        }
        _ => bytes(vec![2; 5_000]),
    })
    .await;
    let service = service().await;
    let timing = [
        "--lease-ms",
        "1500",
        "--reap-ms",
        "200",
        "--heartbeat-ms",
        "300",
    ];
    let mut first = worker(&service, "first", &timing);
    let file = download(&service, &server.url(), Purpose::Weights).await;
    server.wait_for(1).await;
    first.signal(Signal::SIGKILL);
    first.wait(Duration::from_secs(10));
    let _second = worker(&service, "second", &timing);
    let file = ended(&service, &file).await;
    assert_eq!(file["status"], "processed");
    assert_eq!(file["sha256"], sha256(&[2; 5_000]));
    assert_eq!(server.received().len(), 2);
}
