//! How much anybody may do: rows A25, A26, A27 and A31. Each limit is tried at its number and one
//! past it.

use std::{
    io,
    time::{Duration, Instant},
};

use futures_util::future::select;
use rehead::domain::role::Role;
use reqwest::{Method, RequestBuilder, multipart};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::Footprint;
use crate::{
    cli::said,
    events::{another_queued_job, queued_job},
    support::{
        attempts, data,
        process::{eventually, peak_memory_kib},
        service::{Answer, Service},
    },
};

/// Time within which a slow client must be disconnected; the limits of these tests are a second.
const PATIENCE: Duration = Duration::from_secs(30);

async fn connect(service: &Service) -> TcpStream {
    let address = service.url.trim_start_matches("http://");
    TcpStream::connect(address).await.unwrap()
}

/// All that arrives until the server closes the connection.
async fn read_to_end(socket: &mut TcpStream) -> Vec<u8> {
    let mut response = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let reading = async {
        // A reset is an end as well.
        while let Ok(1..) = socket
            .read(&mut buffer)
            .await
            .inspect(|&n| response.extend(&buffer[..n]))
        {}
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the server keeps the connection open");
    response
}

async fn get(service: &Service, key: &str, path: &str) -> Answer {
    let build = |request: RequestBuilder| request.bearer_auth(key);
    service.send(Method::GET, path, build).await
}

/// A25: what clients invent becomes no label of a metric.
#[tokio::test]
async fn a25_names_of_users_make_no_metrics() {
    let service = Service::start().await;
    let series = async || {
        let text = service.get("/metrics").await.text();
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    let ask = async |round: u32| {
        for path in [
            "/v1/models/name",
            "/v1/files/file-0",
            "/nowhere/name",
            "/v1/fine_tuning/jobs/name",
        ] {
            service.get(&format!("{path}{round}")).await;
        }
        let method = Method::from_bytes(format!("METHOD{round}").as_bytes()).unwrap();
        service.send(method, "/v1/files", |request| request).await;
    };
    ask(0).await;
    series().await;
    let before = series().await;
    for round in 1..100 {
        ask(round).await;
    }
    assert_eq!(series().await, before);
}

/// A26: five kinds of slow clients are disconnected, and what they left is removed.
#[tokio::test]
async fn a26_slow_clients_are_disconnected() {
    let service = Service::start_with(&[
        "--header-seconds",
        "1",
        "--body-seconds",
        "1",
        "--slow-client-seconds",
        "1",
        "--min-bytes-per-second",
        "10000",
    ])
    .await;
    let footprint = Footprint::of(&service);
    let host = service.url.trim_start_matches("http://").to_owned();
    let big = service
        .upload("big.pth", "weights", vec![7; 64 << 20])
        .await
        .ok();
    let id = big["id"].as_str().unwrap();

    // Nothing at all, and a part of the headers.
    for start in ["", "GET /v1/files HTTP/1.1\r\nhost: x\r\nx-a: "] {
        let mut socket = connect(&service).await;
        socket.write_all(start.as_bytes()).await.unwrap();
        read_to_end(&mut socket).await;
    }
    // An idle connection after a request.
    let mut socket = connect(&service).await;
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let response = read_to_end(&mut socket).await;
    assert!(response.starts_with(b"HTTP/1.1 200"));

    // Bodies that trickle: of an upload, of a prediction, of JSON.
    let form = "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.zip\"\r\n\r\n";
    for (path, content_type, start) in [
        ("/v1/files", "multipart/form-data; boundary=x", form),
        ("/v1/fine_tuning/jobs", "application/json", "{"),
    ] {
        let mut socket = connect(&service).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {content_type}\r\n\
             content-length: 100000\r\n\r\n{start}"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = socket.into_split();
        let trickle = tokio::spawn(async move {
            while writer.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let mut response = vec![0; 64];
        let read = tokio::time::timeout(PATIENCE, reader.read_exact(&mut response)).await;
        read.expect("the server waits on").unwrap();
        let response = String::from_utf8_lossy(&response).into_owned();
        assert!(response.starts_with("HTTP/1.1 408"), "{path}: {response}");
        trickle.abort();
    }
    // A client that asks for much and never reads.
    let mut socket = connect(&service).await;
    let request = format!("GET /v1/files/{id}/content HTTP/1.1\r\nhost: {host}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let log = || service.server.log();
    eventually(PATIENCE, "a cut-off download", || {
        log().contains("cut_off=true").then_some(())
    });
    assert!(read_to_end(&mut socket).await.len() < 64 << 20);

    // One that reads is served.
    let content = service.get(&format!("/v1/files/{id}/content")).await;
    assert_eq!(content.body.len(), 64 << 20);
    footprint.assert_kept();
}

/// Idle connections give way to new ones; busy ones do not.
#[tokio::test]
async fn a26_idle_connections_make_room() {
    let service = Service::start_with(&["--max-connections-per-address", "20"]).await;
    let mut idle = Vec::new();
    for _ in 0..60 {
        idle.push(connect(&service).await);
    }
    let client = reqwest::Client::new();
    for _ in 0..10 {
        let answer = client.get(format!("{}/healthz", service.url)).send().await;
        assert_eq!(answer.unwrap().status(), 200);
    }
    // The oldest were closed.
    let mut buffer = [0; 1];
    let closed = tokio::time::timeout(PATIENCE, idle[0].read(&mut buffer)).await;
    assert!(matches!(closed, Ok(Ok(0)) | Ok(Err(_))));
    let open = idle[59].try_read(&mut buffer).unwrap_err();
    assert_eq!(open.kind(), io::ErrorKind::WouldBlock);
    drop(idle);

    // Followers of a job are busy: one past the limit is refused, and all others go on.
    let job = queued_job(&service).await;
    let path = format!("{}/events", service.path(&job));
    let stream = || async {
        let mut socket = connect(&service).await;
        let host = service.url.trim_start_matches("http://");
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        let read = tokio::time::timeout(PATIENCE, socket.read_exact(&mut start)).await;
        (
            String::from_utf8_lossy(&start).into_owned(),
            read.is_ok(),
            socket,
        )
    };
    let mut streams = Vec::new();
    let mut refused = 0;
    for _ in 0..22 {
        let (start, _, socket) = stream().await;
        match start.as_str() {
            "HTTP/1.1 200" => streams.push(socket),
            _ => refused += 1,
        }
    }
    assert_eq!((streams.len(), refused), (20, 2));
}

/// A27: there is no HTTP/2 to attack.
#[tokio::test]
async fn a27_http2_is_not_spoken() {
    http2(&Service::start().await).await;
}

pub(super) async fn http2(service: &Service) {
    let mut socket = connect(service).await;
    socket
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let response = read_to_end(&mut socket).await;
    assert!(
        response.is_empty() || response.starts_with(b"HTTP/1.1 "),
        "{response:?}"
    );
    let mut socket = connect(service).await;
    let host = service.url.trim_start_matches("http://");
    let upgrade = format!(
        "GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade, http2-settings, close\r\nupgrade: h2c\r\n\
         http2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
    );
    socket.write_all(upgrade.as_bytes()).await.unwrap();
    let response = read_to_end(&mut socket).await;
    assert!(response.starts_with(b"HTTP/1.1 200"), "{response:?}");
}

/// A31: requests of a minute, by tenant and by key, with the headers that tell.
#[tokio::test]
async fn a31_requests_are_limited_by_tenant_and_key() {
    let service = Service::start_with(&["--requests-per-minute", "5"]).await;
    let footprint = Footprint::of(&service);
    let (one, two) = (
        service.new_key("one", Role::User).await,
        service.new_key("two", Role::User).await,
    );
    for left in (0..5).rev() {
        let answer = get(&service, &one, "/v1/files").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["x-ratelimit-limit-requests"], "5");
        assert_eq!(
            answer.headers["x-ratelimit-remaining-requests"],
            left.to_string().as_str()
        );
        assert!(answer.headers.contains_key("x-ratelimit-reset-requests"));
    }
    let answer = get(&service, &one, "/v1/files").await;
    assert_eq!(answer.headers["x-ratelimit-remaining-requests"], "0");
    let wait: u64 = answer.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=12).contains(&wait), "{wait}");
    answer.error(429, "rate_limit_exceeded");
    get(&service, &two, "/v1/files").await.ok();
    service.get("/healthz").await.ok();

    // A limit of its own, and back.
    let set = |limit: &str| {
        let url = service.database_url.clone();
        let arguments = [
            "tenants",
            "set",
            "two",
            "--requests-per-minute",
            limit,
            "--database-url",
            &url,
        ];
        said(service.dir.path(), &arguments)
    };
    assert!(set("0").contains("requests_per_minute=0"));
    // The server is told, and asks by itself once a second.
    let changed = Instant::now();
    loop {
        let answer = get(&service, &two, "/v1/files").await;
        if answer.headers["x-ratelimit-limit-requests"] == "0" {
            answer.error(429, "rate_limit_exceeded");
            break;
        }
        assert!(changed.elapsed() < Duration::from_secs(2));
    }
    assert!(!set("default").contains("requests_per_minute"));

    let url = service.database_url.as_str();
    let create = [
        "keys",
        "create",
        "--tenant",
        "three",
        "--requests-per-minute",
        "2",
        "--database-url",
        url,
    ];
    let key = said(service.dir.path(), &create);
    for _ in 0..2 {
        let answer = get(&service, &key, "/v1/files").await;
        assert_eq!(answer.headers["x-ratelimit-limit-requests"], "2");
        answer.ok();
    }
    get(&service, &key, "/v1/files")
        .await
        .error(429, "rate_limit_exceeded");
    let other = service.new_key("three", Role::User).await;
    get(&service, &other, "/v1/files").await.ok();
    footprint.assert_kept();
}

/// A31: streams, waits and bytes of one tenant end at its limits, and others have room.
#[tokio::test]
async fn a31_tenants_cannot_lock_out_others() {
    let mut service = Service::start_with(&[
        "--max-streams-per-tenant",
        "2",
        "--max-streams",
        "3",
        "--max-waits-per-tenant",
        "1",
        "--max-stored-bytes",
        "100",
    ])
    .await;
    let footprint = Footprint::of(&service);
    let keys = [
        service.new_key("one", Role::User).await,
        service.new_key("two", Role::User).await,
    ];
    let mut jobs = Vec::new();
    for key in &keys {
        service.key = Some(key.clone());
        jobs.push(another_queued_job(&service).await);
    }
    service.key = None;
    let client = reqwest::Client::new();
    let follow = async |at: usize| {
        let url = format!("{}{}/events", service.url, service.path(&jobs[at]));
        let request = client.get(url).bearer_auth(&keys[at]);
        request
            .header("accept", "text/event-stream")
            .send()
            .await
            .unwrap()
    };
    let mut streams = Vec::new();
    for (tenant, status) in [(0, 200), (0, 200), (0, 429), (1, 200), (1, 503)] {
        let answer = follow(tenant).await;
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers().contains_key("retry-after"), status != 200);
        streams.push(answer);
    }
    drop(streams);

    let wait = |at: usize| {
        let path = format!("{}?wait=20", service.path(&jobs[at]));
        client
            .get(format!("{}{path}", service.url))
            .bearer_auth(&keys[at])
    };
    // Of two at once, one waits and the other is refused.
    let both = select(Box::pin(wait(0).send()), Box::pin(wait(0).send())).await;
    let (refused, held) = both.factor_first();
    assert_eq!(refused.unwrap().status(), 429);
    let other = tokio::time::timeout(Duration::from_millis(500), wait(1).send()).await;
    assert!(other.is_err(), "another tenant must wait as well");
    drop(held);

    // The data set and the weights of `queued_job` have 4 bytes.
    for (bytes, status) in [(97, 429), (96, 200), (1, 429)] {
        let part = multipart::Part::bytes(vec![1; bytes]).file_name("a.pth");
        let form = multipart::Form::new()
            .text("purpose", "weights")
            .part("file", part);
        let build = |request: RequestBuilder| request.bearer_auth(&keys[0]).multipart(form);
        let answer = service.send(Method::POST, "/v1/files", build).await;
        assert_eq!(answer.status, status, "{bytes}: {}", answer.text());
        if status == 429 {
            assert_eq!(answer.headers["x-should-retry"], "false");
            answer.error(429, "storage_quota_exceeded");
        }
    }
    footprint.assert_kept();
}

/// A31: contents that a tenant does not read fill its own places only.
#[tokio::test]
async fn a31_unread_contents_take_places_of_their_tenant() {
    let mut service = Service::start_with(&["--max-reads-per-tenant", "2"]).await;
    let footprint = Footprint::of(&service);
    let client = reqwest::Client::new();
    let mut tenants = Vec::new();
    for tenant in ["one", "two"] {
        let key = service.new_key(tenant, Role::User).await;
        service.key = Some(key.clone());
        // More than the buffers of a connection take.
        let file = service.upload("a.pth", "weights", vec![1; 32 << 20]).await;
        let id = file.ok()["id"].as_str().unwrap().to_owned();
        tenants.push((key, format!("{}/v1/files/{id}/content", service.url)));
    }
    let read = async |tenant: usize| {
        let (key, url) = &tenants[tenant];
        client.get(url).bearer_auth(key).send().await.unwrap()
    };
    let mut unread = Vec::new();
    for (tenant, status) in [(0, 200), (0, 200), (0, 429), (1, 200)] {
        let answer = read(tenant).await;
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers().contains_key("retry-after"), status == 429);
        unread.push(answer);
    }
    // One is given up, one is read to its end: both places are free.
    drop(unread.remove(0));
    let whole = unread.remove(0).bytes().await.unwrap();
    assert_eq!(whole.len(), 32 << 20);
    let mut tries = 200;
    while read(0).await.status() != 200 {
        tries -= 1;
        assert!(tries > 0, "the places are not free again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    footprint.assert_kept();
}

/// B2 and B5: slow forms hold no place, and a JSON body costs no more than its text.
#[tokio::test]
async fn a31_predictions_take_places_once_their_images_are_there() {
    let service = Service::start_with(&[
        "--max-predicts-per-tenant",
        "1",
        "--max-predict-waiting",
        "1",
        "--max-predict-bytes-per-tenant",
        "60000000",
    ])
    .await;
    let worker = service.worker("worker", &[]);
    let file = attempts::material(&service).await;
    let job = attempts::long_job(&service, &file, 1).await;
    let model = service.ended(&job).await["fine_tuned_model"].clone();
    let model = model.as_str().unwrap();
    drop(worker);
    let path = format!("/v1/models/{model}/predict");
    let host = service.url.trim_start_matches("http://").to_owned();
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut socket = connect(&service).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: multipart/form-data; boundary=x\r\n\
             content-length: 1000\r\n\r\n--x\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        slow.push(socket);
    }
    let images = data::unzip(&data::clipart_subset(&["animals"], 1));
    let image = images.into_values().next().unwrap();
    let prediction = service.predict(model, image).await;
    assert!(prediction["label"].is_string(), "{prediction}");

    let post = async |body: String| {
        let build = |request: RequestBuilder| {
            request
                .header("content-type", "application/json")
                .body(body)
        };
        service.send(Method::POST, &path, build).await
    };
    let before = peak_memory_kib(service.server.pid());
    let text = "QUJD".repeat(10 << 20);
    let large = post(json!({"images": [text]}).to_string()).await;
    large.error(422, "unreadable_image");
    let unknown = post(format!("{{\"imagse\": \"{}\"}}", "QUJD".repeat(10 << 20))).await;
    unknown.error(422, "unknown_field");
    let many: Value = vec!["QQ=="; 100_000].into();
    post(json!({"images": many}).to_string())
        .await
        .error(413, "too_large");
    let strange = post(format!("{{\"images\": \"{}\"}}", "QUJD".repeat(1 << 20))).await;
    assert!(strange.body.len() < 5_000, "the answer repeats the body");
    strange.error(422, "invalid_value");
    for (body, status, code) in [
        ("{\"images\": [\"QQ==\"", 400, "invalid_json"),
        ("{\"images\": [\"QQ==\"]} x", 400, "invalid_json"),
        ("{\"images\": [1]}", 422, "invalid_value"),
        ("{\"images\": []}", 422, "missing_field"),
        ("{}", 422, "missing_field"),
        ("[]", 422, "invalid_value"),
        ("{\"images\": [\"*\"]}", 422, "invalid_base64"),
    ] {
        post(body.to_owned()).await.error(status, code);
    }
    let grown = peak_memory_kib(service.server.pid()) - before;
    assert!(grown < 150 << 10, "{grown} KiB for 42 MB of JSON");
}
