//! Bodies, headers and queries that are hostile: A10, A18 to A20, A23, A24 of docs/security.md.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::Footprint;
use crate::{
    events::queued_job,
    support::{
        process::peak_memory_kib,
        service::{Answer, Service},
    },
};

const JOBS: &str = "/v1/fine_tuning/jobs";
const PLAN: &str = "/v1/fine_tuning/jobs/plan";
const BASE_MODELS: &str = "/v1/base_models";
/// Bytes of a JSON body that the service takes.
const BODY_BYTES: usize = 1 << 20;
/// Bytes of an answer to whatever is wrong with a request.
const ANSWER_BYTES: usize = 64 << 10;

async fn send(service: &Service, path: &str, body: String) -> Answer {
    let build = |request: reqwest::RequestBuilder| {
        request
            .header("content-type", "application/json")
            .body(body)
    };
    service.send(Method::POST, path, build).await
}

/// A body in which `value` stands at each place that a request may have.
fn planted(value: &str) -> Vec<(&'static str, String)> {
    let job = r#""model":"m","training_file":"file-00000000000000000000000000000000""#;
    let transfer = |inside: String| {
        format!(r#"{{{job},"method":{{"type":"transfer","transfer":{{{inside}}}}}}}"#)
    };
    vec![
        (JOBS, value.to_owned()),
        (JOBS, format!(r#"{{"model":{value}}}"#)),
        (JOBS, format!(r#"{{{job},"suffix":{value}}}"#)),
        (JOBS, format!(r#"{{{job},"seed":{value}}}"#)),
        (JOBS, format!(r#"{{{job},"metadata":{value}}}"#)),
        (JOBS, format!(r#"{{{job},"metadata":{{"k":{value}}}}}"#)),
        (JOBS, format!(r#"{{{job},"method":{value}}}"#)),
        (JOBS, format!(r#"{{{job},"method":{{"type":{value}}}}}"#)),
        (JOBS, transfer(format!(r#""freeze":{value}"#))),
        (JOBS, transfer(format!(r#""freeze":{{"regex":{value}}}"#))),
        (
            JOBS,
            transfer(format!(r#""freeze":{{"blocks":[{value}]}}"#)),
        ),
        (JOBS, transfer(format!(r#""head":{{"layers":[{value}]}}"#))),
        (
            JOBS,
            transfer(format!(r#""adapter":{{"targets":{value}}}"#)),
        ),
        (
            JOBS,
            transfer(format!(r#""early_stopping":{{"metric":{value}}}"#)),
        ),
        (
            JOBS,
            transfer(format!(r#""hyperparameters":{{"schedule":{value}}}"#)),
        ),
        (
            JOBS,
            transfer(format!(r#""hyperparameters":{{"class_weights":{value}}}"#)),
        ),
        (PLAN, format!(r#"{{{job},"suffix":{value}}}"#)),
        (BASE_MODELS, value.to_owned()),
        (BASE_MODELS, format!(r#"{{"id":{value}}}"#)),
        (
            BASE_MODELS,
            format!(r#"{{"id":"m","architecture":"a","weights":{value}}}"#),
        ),
        (
            BASE_MODELS,
            format!(r#"{{"id":"m","architecture":"a","weights":{{"file":{value}}}}}"#),
        ),
        (
            BASE_MODELS,
            format!(r#"{{"id":"m","architecture":"a","weights":{{}},"preprocessing":{value}}}"#),
        ),
    ]
}

/// Values that are hostile at any place: long, deep, wide, or with characters that a store, a log
/// or a page may trip over.
fn hostile_values() -> Vec<String> {
    let room = BODY_BYTES - 400;
    let wide = |item: &str| {
        let count = room / (item.len() + 1);
        vec![item; count].join(",")
    };
    let named = |value: &str| {
        let keys = (0..room / (value.len() + 10)).map(|i| format!(r#""{i:06}":{value}"#));
        keys.collect::<Vec<_>>().join(",")
    };
    let long = "x".repeat(room - 200);
    let mut values = vec![
        format!(r#""{long}""#),
        format!(r#"{{"{long}":1}}"#),
        format!(
            r#"{{"{}":[{}]}}"#,
            "x".repeat(room / 2),
            vec![r#""\u0000""#; 1_000].join(",")
        ),
        format!("[{}]", wide("1")),
        format!("[{}]", wide("{}")),
        format!("[{}]", wide(r#""\u0000""#)),
        format!("{{{}}}", named("1")),
        format!("{{{}}}", named(r#""\u0000""#)),
        "[".repeat(100_000),
        format!("{}1{}", "[".repeat(127), "]".repeat(127)),
        format!("{}1{}", r#"{"a":"#.repeat(120), "}".repeat(120)),
        r#"{"model":"a","model":"b","model":"c"}"#.to_owned(),
    ];
    let texts = [
        r"\ud800",
        r"\udc00\ud800",
        r"\u0000",
        r"\u001b]0;pwned\u0007",
        "\\r\\n{\\\"level\\\":\\\"ERROR\\\"}",
        "'; drop table jobs; --",
        r"$$;select pg_sleep(5);$$",
        "%_%",
        "<script>alert(1)</script>",
        "=HYPERLINK(0)",
        "\u{202e}gnp.exe",
        "\u{1f980}",
        "__proto__",
        "../../etc/passwd",
        r"..\\..",
    ];
    values.extend(texts.map(|text| format!(r#""{text}""#)));
    values.extend(texts.map(|text| format!(r#"{{"{text}":"{text}"}}"#)));
    let numbers = [
        "1e100000",
        "1e400",
        "-1e400",
        "-0",
        "-0.0",
        "NaN",
        "Infinity",
        "1e-320",
        "0x10",
        "01",
        "9223372036854775808",
        "18446744073709551616",
        "-1",
        "0.1e",
        "null",
        "true",
    ];
    values.extend(numbers.map(str::to_owned));
    values
}

/// A18, A19, A23: whatever stands at whatever place is refused by a 4xx that is short, and costs
/// the server nothing.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_values_at_every_place_are_refused() {
    let service = Service::start().await;
    hostile_values_at_every_place(&service).await;
    assert_eq!(service.get(JOBS).await.ok()["data"], json!([]));
    assert_eq!(service.get("/v1/models").await.ok()["data"], json!([]));
}

pub(super) async fn hostile_values_at_every_place(service: &Service) {
    for value in hostile_values() {
        for (path, body) in planted(&value) {
            let place = format!("{path} {body:.200}");
            let length = body.len();
            let answer = send(service, path, body).await;
            let status = answer.status.as_u16();
            assert!(
                [400, 413, 422].contains(&status),
                "{status} to {length} bytes of {place}: {}",
                answer.text()
            );
            assert!(
                answer.body.len() <= ANSWER_BYTES,
                "{} bytes answer {length} of {place}",
                answer.body.len()
            );
        }
    }
}

/// Sends bytes, and gives the first bytes of the answer.
async fn raw(service: &Service, bytes: &[u8]) -> String {
    let address = service.url.trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).await.unwrap();
    // The server may have answered and closed before all of it is sent.
    let _ = socket.write_all(bytes).await;
    let mut answer = vec![0; 64 << 10];
    let read = timeout(Duration::from_secs(20), socket.read(&mut answer)).await;
    let read = read.expect("an answer").unwrap_or(0);
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

/// A10, A18: the length of a body is limited before it is read, however it is announced; nothing is
/// decompressed.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_beyond_the_limit_are_not_read() {
    bodies_beyond_the_limit(&Service::start().await).await;
}

pub(super) async fn bodies_beyond_the_limit(service: &Service) {
    let host = service.url.trim_start_matches("http://").to_owned();
    let head = |fields: &str| {
        format!(
            "POST {JOBS} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{fields}\r\n"
        )
    };
    let announced = head("content-length: 104857600\r\n");
    // Chunks of 64 KiB, twice as many as the limit allows.
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(1 << 16));
    let chunked = head("transfer-encoding: chunked\r\n") + &chunk.repeat(32);
    let gzip = head("content-encoding: gzip\r\ncontent-length: 20\r\n") + &"\u{1f}".repeat(20);
    let both = head("transfer-encoding: chunked\r\ncontent-length: 5\r\n") + "0\r\n\r\n";
    let rows = [
        (announced, 413, "too_large"),
        (chunked, 413, "too_large"),
        (gzip, 415, "unsupported_encoding"),
        (head("content-length: -1\r\n"), 400, ""),
        (head("content-length: 99999999999999999999\r\n"), 400, ""),
        (head("content-length: 1\r\ncontent-length: 2\r\n"), 400, ""),
        (
            head(&format!("x-long: {}\r\n", "x".repeat(1 << 20))),
            431,
            "",
        ),
        (head("x-ansi: \u{1b}]0;pwned\u{7}\r\n"), 400, ""),
        (head(&"x: y\r\n".repeat(10_000)), 431, ""),
    ];
    for (request, status, code) in &rows {
        let answer = raw(service, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(code),
            "{request:.200}: {answer}"
        );
    }
    // The length that counts is the chunks' (RFC 9112, section 6.3), so that no second request can
    // hide in the body; refusing the request is right too.
    let answer = raw(service, both.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

/// Headers of a part, and bytes before the first, are read into memory as they are: a form that has
/// nothing else is refused after a megabyte.
#[tokio::test(flavor = "multi_thread")]
async fn forms_without_a_part_are_not_held_in_memory() {
    forms_without_a_part(&Service::start().await).await;
}

pub(super) async fn forms_without_a_part(service: &Service) {
    let host = service.url.trim_start_matches("http://").to_owned();
    let post = async |start: &str, filler: &[u8]| {
        let mut socket = TcpStream::connect(&host).await.unwrap();
        let head = format!(
            "POST /v1/files HTTP/1.1\r\nhost: {host}\r\ncontent-type: multipart/form-data; boundary=XX\r\n\
             content-length: 10000000000\r\n\r\n{start}"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        // Ten times as much as the tolerance, unless the server closes first.
        for _ in 0..(10 * super::MEMORY_TOLERANCE) / filler.len() as u64 {
            if socket.write_all(filler).await.is_err() {
                break;
            }
        }
        let mut answer = vec![0; 4_096];
        let read = timeout(Duration::from_secs(20), socket.read(&mut answer)).await;
        let read = read.expect("an answer").unwrap_or(0);
        String::from_utf8_lossy(&answer[..read]).into_owned()
    };
    let filler = vec![b'x'; 1 << 16];
    let headers = b"x-header: y\r\n".repeat(5_000);
    let in_a_name = "--XX\r\ncontent-disposition: form-data; name=\"";
    post("", &filler).await;
    let peak = peak_memory_kib(service.server.pid());
    for (start, filler) in [
        ("", &filler),
        ("--XX\r\n", &headers),
        ("--XX\r\nx-header: ", &filler),
        (in_a_name, &filler),
        ("--XX", &filler),
    ] {
        let answer = post(start, filler).await;
        // The answer may be lost where the server closes while the client still sends.
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{start}: {answer}"
        );
    }
    let grown = peak_memory_kib(service.server.pid()) - peak;
    assert!(
        grown << 10 < super::MEMORY_TOLERANCE,
        "{grown} KiB at the most"
    );
}

/// A19: numbers beyond what a field takes, each refused with its path.
#[tokio::test]
async fn numbers_beyond_their_field_are_named() {
    numbers_beyond_their_field(&Service::start().await).await;
}

pub(super) async fn numbers_beyond_their_field(service: &Service) {
    let huge = "9".repeat(400);
    for (field, value, code) in [
        ("learning_rate", "1e100", "out_of_range"),
        ("learning_rate", "1e-320", "out_of_range"),
        ("learning_rate", "-0", "out_of_range"),
        ("learning_rate", "\"0.1\"", "wrong_type"),
        ("learning_rate", "[0.1]", "wrong_type"),
        ("n_epochs", "9223372036854775808", "out_of_range"),
        ("n_epochs", "18446744073709551616", "out_of_range"),
        ("n_epochs", "1e30", "out_of_range"),
        ("n_epochs", "1.5", "out_of_range"),
        ("n_epochs", "-1", "out_of_range"),
        ("batch_size", "0", "out_of_range"),
        ("batch_size", "-1", "out_of_range"),
        ("weight_decay", "true", "wrong_type"),
    ] {
        let body = format!(
            r#"{{"model":"m","training_file":"file-00000000000000000000000000000000","method":{{"type":"transfer",
               "transfer":{{"hyperparameters":{{"{field}":{value}}}}}}}}}"#
        );
        let answer = send(service, JOBS, body).await;
        assert_eq!(answer.status, 422, "{field} {value}: {}", answer.text());
        let answer = answer.json();
        let path = format!("method.transfer.hyperparameters.{field}");
        let details = answer["error"]["details"].as_array().unwrap();
        let found = details.iter().find(|one| one["path"] == path.as_str());
        let found = found.unwrap_or_else(|| panic!("{field} {value}: {answer}"));
        assert_eq!(found["code"], code, "{field} {value}: {answer}");
    }
    // JSON has no such numbers, or none that a double can hold.
    for value in [
        "1e100000",
        "1e400",
        "NaN",
        "-Infinity",
        "+1",
        ".5",
        "1.",
        huge.as_str(),
    ] {
        let body = format!(r#"{{"model":"m","seed":{value}}}"#);
        let status = send(service, JOBS, body).await.status.as_u16();
        assert!([400, 422].contains(&status), "{value}: {status}");
    }
}

/// A20: networks that no machine can hold are refused before they are queued.
#[tokio::test]
async fn heads_that_do_not_fit_a_machine_are_refused() {
    let service = Service::start().await;
    let job = queued_job(&service).await;
    heads_that_do_not_fit_a_machine(&service, &job).await;
    let jobs = service.get(JOBS).await.ok();
    assert_eq!(jobs["data"].as_array().unwrap().len(), 1);
}

pub(super) async fn heads_that_do_not_fit_a_machine(service: &Service, job: &Value) {
    let layers = |count: usize, width: u64| {
        let body = json!({
            "model": "net", "training_file": job["training_file"],
            "method": {"type": "transfer", "transfer": {"head": {"layers": vec![json!({"linear": width}); count]}}},
        });
        send(service, JOBS, body.to_string())
    };
    layers(1, 1_000_000_000).await.error(422, "out_of_range");
    layers(1, u64::MAX).await.error(422, "out_of_range");
    layers(10_000, 1).await.error(422, "out_of_range");
    let message = layers(16, 16_384).await.error(422, "too_large");
    assert!(message.contains("head"), "{message}");
}

/// Texts with a meaning for SQL.
const SQL: [&str; 9] = [
    "'",
    "' or '1'='1",
    "'; drop table jobs; --",
    "%",
    "_",
    "m%",
    r"\",
    "$1",
    "net' union select null--",
];

/// A23: each filter takes a text literally, and each text that is stored comes back as it was.
#[tokio::test]
async fn sql_in_texts_is_text() {
    let service = Service::start().await;
    let job = queued_job(&service).await;
    let count = async |query: &str| {
        let answer = service.get(&format!("{JOBS}{query}")).await.ok();
        answer["data"].as_array().unwrap().len()
    };
    let mut before = None;
    for pass in 0..2 {
        for text in SQL {
            let encoded =
                percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
            // The one job has the model `net` and `team: blue`.
            assert_eq!(count(&format!("?model={encoded}")).await, 0, "{text}");
            assert_eq!(
                count(&format!("?metadata[team]={encoded}")).await,
                0,
                "{text}"
            );
            assert_eq!(
                count(&format!("?metadata[{encoded}]=blue")).await,
                0,
                "{text}"
            );
            for filter in ["status", "after", "limit", "order", "created_after"] {
                let answer = service.get(&format!("{JOBS}?{filter}={encoded}")).await;
                assert_eq!(answer.status, 422, "{filter}={text}: {}", answer.text());
            }
            let answer = service.get(&format!("/v1/models/{encoded}")).await;
            answer.error(404, "not_found");
            let body = json!({
                "model": "net", "training_file": job["training_file"], "metadata": {text: text},
            });
            let key = format!("{pass}-{text}");
            let sent = service.send(Method::POST, JOBS, |request| {
                request.header("idempotency-key", key).json(&body)
            });
            let posted = sent.await.ok();
            assert_eq!(posted["metadata"], json!({text: text}));
            assert_eq!(
                count(&format!("?metadata[{encoded}]={encoded}")).await,
                pass + 1
            );
            // Clients and servers do not agree on backslashes in a form's file names.
            let name = format!("{}.zip", text.replace('\\', "/"));
            let file = service.upload(&name, "fine-tune", vec![1]).await.ok();
            assert_eq!(file["filename"], name);
        }
        before = before.or_else(|| Some(Footprint::of(&service)));
    }
    before.unwrap().assert_kept();
    assert_eq!(count("?model=net&metadata[team]=blue").await, 1);
}

/// A24: a request is one record of the log, whatever its texts hold.
#[tokio::test]
async fn texts_of_users_forge_no_line_of_the_log() {
    let service = Service::start().await;
    let job = queued_job(&service).await;
    texts_that_forge_the_log(&service, &job).await;
}

pub(super) async fn texts_that_forge_the_log(service: &Service, job: &Value) {
    let forged = "\n{\"level\":\"ERROR\",\"message\":\"forged\"}\r\n\u{1b}]0;forged\u{7}\u{1b}[31m";
    let body = json!({
        "model": "net", "training_file": job["training_file"], "metadata": {"note": forged},
    });
    service.post(JOBS, &body).await.error(422, "invalid_value");
    for model in [forged, "\u{9b}31m", "\u{2028}forged"] {
        let body = json!({"model": model, "training_file": job["training_file"]});
        assert_eq!(service.post(JOBS, &body).await.status, 422);
        let encoded =
            percent_encoding::utf8_percent_encode(model, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("/v1/models/{encoded}");
        service.get(&path).await.error(404, "not_found");
        service
            .get(&format!("/{encoded}"))
            .await
            .error(404, "unknown_route");
    }
    let name = "a\nforged.zip";
    let form = "--x\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n--x\r\n\
        content-disposition: form-data; name=\"file\"; filename*=UTF-8''a%0Aforged.zip\r\n\r\nx\r\n--x--\r\n";
    let answer = service.send(Method::POST, "/v1/files", |request| {
        request
            .header("content-type", "multipart/form-data; boundary=x")
            .body(form)
    });
    let message = answer.await.error(422, "invalid_filename");
    assert!(!message.contains(name), "{message}");
    let agent = b"Mozilla/5.0 forged\xff\xfe".as_slice();
    let answer = service.send(Method::GET, JOBS, |request| {
        request.header("user-agent", agent)
    });
    answer.await.ok();

    let log = service.server.log();
    assert!(!log.contains('\u{7}') && !log.contains("\u{1b}]"), "{log}");
    let is_forged =
        |line: &&str| line.starts_with("{\"level\":\"ERROR\"") || line.starts_with("forged");
    assert_eq!(log.lines().find(is_forged), None, "{log}");
}

/// A30: fifty requests with one key at once make one job.
#[tokio::test(flavor = "multi_thread")]
async fn one_key_in_fifty_requests_makes_one_job() {
    let service = Service::start().await;
    let job = queued_job(&service).await;
    let body = json!({"model": "net", "training_file": job["training_file"]});
    let post = |key: String, body: Value| {
        let service = &service;
        async move {
            let sent = service.send(Method::POST, JOBS, |request| {
                request.header("idempotency-key", key).json(&body)
            });
            sent.await
        }
    };
    let posts = (0..50).map(|_| post("k".to_owned(), body.clone()));
    let answers = futures_util::future::join_all(posts).await;
    let ids: std::collections::BTreeSet<String> = answers
        .into_iter()
        .map(|answer| answer.ok()["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let mut other = body.clone();
    other["metadata"] = json!({"a": "b"});
    post("k".to_owned(), other)
        .await
        .error(409, "idempotency_key_reused");
    for wrong in ["", &"k".repeat(256), "ключ"] {
        let answer = post(wrong.to_owned(), body.clone()).await;
        answer.error(422, "invalid_value");
    }
    let jobs = service.get(JOBS).await.ok();
    assert_eq!(jobs["data"].as_array().unwrap().len(), 2);
}
