//! One shape for every error, whoever makes it; nothing a client sends gets a 500.

use std::{collections::BTreeSet, path::Path, time::Duration};

use regex::Regex;
use rehead::{domain::role::Role, keys::NewKey};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::service::Service;

const JOBS: &str = "/v1/fine_tuning/jobs";

/// Files of enums whose variants each have a code.
const ENUMS: [&str; 4] = [
    "http/api/error.rs",
    "outgoing/download.rs",
    "process/error.rs",
    "worker/fault.rs",
];

/// Codes in the source: constants, fields named `code`, the second argument of what makes a
/// problem, and those of enums.
fn codes_in_source() -> BTreeSet<String> {
    let patterns = [
        r#"Code = "([a-z_]+)""#,
        r#"\bcode: "([a-z_]+)""#,
        r#"(?:Problem::new|ApiError::invalid)\((?:[^",]|"[^"]*")+,\s*"([a-z_]+)""#,
        r#"(?:ApiError|Self)::(?:new|unreadable|conflict|unavailable)\(\s*(?:[A-Za-z:_]+,\s*)?"([a-z_]+)""#,
        r#"\bwrong\("([a-z_]+)","#,
    ];
    let in_error_enums =
        Regex::new(r#"=>\s*(?:[{(]\s*){0,2}"([a-z_]+)"(?:\.to_owned\(\))?\s*[,}]"#).unwrap();
    let mut codes = BTreeSet::new();
    let sources = sources();
    for file in ENUMS {
        let exists = sources.iter().any(|(path, _)| path.ends_with(file));
        assert!(exists, "there is no {file}");
    }
    for (path, text) in sources {
        let of_error_enum = ENUMS.iter().any(|file| path.ends_with(file));
        for pattern in &patterns {
            codes.extend(
                Regex::new(pattern)
                    .unwrap()
                    .captures_iter(&text)
                    .map(|found| found[1].to_owned()),
            );
        }
        if of_error_enum {
            codes.extend(
                in_error_enums
                    .captures_iter(&text)
                    .map(|found| found[1].to_owned()),
            );
        }
    }
    codes
}

/// Every source file without its unit tests.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("tests") {
                continue;
            }
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                let text = text
                    .split("#[cfg(test)]")
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                found.push((path.to_string_lossy().into_owned(), text));
            }
        }
    }
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "crates/domain/src", "crates/trainer/src"] {
        walk(&root.join(folder), &mut found);
    }
    found
}

#[test]
fn the_list_of_codes_is_the_source_s() {
    let page = include_str!("../../docs/errors.md");
    let row = Regex::new(r"(?m)^\| `([a-z_]+)` \|").unwrap();
    let listed: BTreeSet<String> = row
        .captures_iter(page)
        .map(|found| found[1].to_owned())
        .collect();
    let used = codes_in_source();
    let missing: Vec<&String> = used.difference(&listed).collect();
    assert!(missing.is_empty(), "docs/errors.md lacks {missing:?}");
    let whole: String = sources().into_iter().map(|(_, text)| text).collect();
    let quoted = |code: &&String| {
        whole.contains(&format!("\"{code}\"")) || whole.contains(&format!("'{code}'"))
    };
    let stale: Vec<&String> = listed.iter().filter(|code| !quoted(code)).collect();
    assert!(
        stale.is_empty(),
        "docs/errors.md lists {stale:?}, which the source does not have"
    );
}

#[tokio::test]
async fn every_kind_of_error_has_the_envelope() {
    let service = Service::start_with(&["--max-json-bytes", "2000"]).await;
    let body = |content_type: &'static str, text: &str| {
        let text = text.to_owned();
        move |request: reqwest::RequestBuilder| {
            request.header("content-type", content_type).body(text)
        }
    };
    let json = "application/json";
    for (method, path, content_type, text, status, code) in [
        (Method::GET, "/nowhere", json, "", 404, "unknown_route"),
        (
            Method::GET,
            "/v1/files/../../etc/passwd",
            json,
            "",
            404,
            "unknown_route",
        ),
        (Method::PUT, JOBS, json, "", 405, "method_not_allowed"),
        (Method::POST, JOBS, json, "{", 400, "invalid_json"),
        (Method::POST, JOBS, json, "", 400, "invalid_json"),
        (Method::POST, JOBS, json, "\u{feff}{", 400, "invalid_json"),
        (
            Method::POST,
            JOBS,
            json,
            &"[".repeat(1_500),
            400,
            "invalid_json",
        ),
        (
            Method::POST,
            JOBS,
            "text/plain",
            "{}",
            415,
            "unsupported_media_type",
        ),
        (Method::POST, "/v1/files", json, "{}", 422, "missing_field"),
        (
            Method::POST,
            "/v1/files",
            "text/plain",
            "{}",
            415,
            "unsupported_media_type",
        ),
        (
            Method::POST,
            "/v1/files",
            "multipart/form-data",
            "x",
            400,
            "broken_multipart",
        ),
        (
            Method::POST,
            "/v1/files",
            "multipart/form-data; boundary=x",
            "no part",
            400,
            "broken_multipart",
        ),
        (
            Method::POST,
            JOBS,
            json,
            &format!("\"{}\"", "x".repeat(3_000)),
            413,
            "too_large",
        ),
        (Method::POST, JOBS, json, "[]", 422, "wrong_type"),
        (
            Method::POST,
            JOBS,
            json,
            r#"{"model": "a\u0000b", "training_file": "x"}"#,
            422,
            "nul_character",
        ),
        (
            Method::POST,
            JOBS,
            json,
            r#"{"model": "m", "modle": "m"}"#,
            422,
            "unknown_field",
        ),
        (Method::POST, JOBS, json, "{}", 422, "missing_field"),
        (
            Method::POST,
            "/v1/base_models",
            json,
            r#"{"id": "x", "wieghts": {}}"#,
            422,
            "unknown_field",
        ),
        (
            Method::GET,
            "/v1/fine_tuning/jobs?limt=3",
            json,
            "",
            422,
            "unknown_field",
        ),
        (
            Method::GET,
            "/v1/fine_tuning/jobs?limit=0",
            json,
            "",
            422,
            "out_of_range",
        ),
        (
            Method::GET,
            "/v1/fine_tuning/jobs?limit=-1",
            json,
            "",
            422,
            "invalid_value",
        ),
        (
            Method::GET,
            "/v1/fine_tuning/jobs?after=ftjob-x",
            json,
            "",
            422,
            "invalid_value",
        ),
        (
            Method::GET,
            "/v1/fine_tuning/jobs?status=dancing",
            json,
            "",
            422,
            "invalid_value",
        ),
        (
            Method::GET,
            "/v1/fine_tuning/jobs?metadata[a]=%00",
            json,
            "",
            422,
            "nul_character",
        ),
        (
            Method::GET,
            "/v1/fine_tuning/jobs?metadatas[a]=b",
            json,
            "",
            422,
            "unknown_field",
        ),
        (
            Method::GET,
            "/v1/files?after=%00",
            json,
            "",
            422,
            "nul_character",
        ),
        (Method::GET, "/v1/models/a%00b", json, "", 404, "not_found"),
        (
            Method::GET,
            "/v1/models/..%2f..%2fetc",
            json,
            "",
            404,
            "not_found",
        ),
        (Method::GET, "/v1/files/file-0", json, "", 404, "not_found"),
        (
            Method::GET,
            "/v1/files/%252e%252e",
            json,
            "",
            404,
            "not_found",
        ),
        (
            Method::GET,
            "/v1/fine_tuning/jobs/ftjob-00000000000000000000000000000000",
            json,
            "",
            404,
            "not_found",
        ),
        (
            Method::GET,
            "/v1/fine_tuning/checkpoints/ftckpt_zz/content",
            json,
            "",
            404,
            "not_found",
        ),
        (
            Method::DELETE,
            "/v1/models/nothing",
            json,
            "",
            404,
            "not_found",
        ),
    ] {
        let answer = service
            .send(method.clone(), path, body(content_type, text))
            .await;
        let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        let place = format!("{method} {path} {text:.40}");
        assert_eq!(answer.status.as_u16(), status, "{place}: {}", answer.text());
        assert_eq!(answer.json()["error"]["request_id"], id.as_str(), "{place}");
        assert_eq!(
            answer.headers.contains_key("allow"),
            status == 405,
            "{place}"
        );
        answer.error(status, code);
    }
}

#[tokio::test]
async fn all_problems_of_a_request_come_at_once() {
    let service = Service::start().await;
    let body = json!({
        "model": "none", "training_file": "file-00000000000000000000000000000000", "seed": -1, "color": "red",
        "method": {"type": "transfer", "transfer": {"hyperparameters": {"n_epochs": 0, "learning_rate": "NaN"}}},
    });
    let answer = service.post(JOBS, &body).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let error = answer.json()["error"].clone();
    let paths: BTreeSet<&str> = error["details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["path"].as_str().unwrap())
        .collect();
    for path in [
        "seed",
        "color",
        "model",
        "training_file",
        "method.transfer.hyperparameters.n_epochs",
        "method.transfer.hyperparameters.learning_rate",
    ] {
        assert!(paths.contains(path), "{path} is not among {paths:?}");
    }

    let body = json!({"model": "none", "training_file": "file-00000000000000000000000000000000"});
    let answer = service.post(JOBS, &body).await;
    let details = answer.json()["error"]["details"].clone();
    let codes: Vec<&str> = details
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["unknown_model", "unknown_file"]);
}

#[tokio::test]
async fn uploads_are_limited_and_leave_nothing_behind() {
    let service = Service::start_with(&["--max-upload-bytes", "100000"]).await;
    let objects = || {
        let files = service.objects().join("files");
        if files.exists() {
            std::fs::read_dir(files).unwrap().count()
        } else {
            0
        }
    };
    service
        .upload("big.zip", "fine-tune", vec![0; 100_001])
        .await
        .error(413, "too_large");
    service
        .upload("empty.zip", "fine-tune", vec![])
        .await
        .error(422, "empty_file");
    service
        .upload("a.zip", "fun", vec![1])
        .await
        .error(422, "invalid_value");
    service
        .upload(&"n".repeat(300), "fine-tune", vec![1])
        .await
        .error(422, "invalid_filename");
    for _ in 0..100 {
        if objects() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(objects(), 0);
    assert_eq!(service.get("/v1/files").await.ok()["data"], json!([]));

    let file = service
        .upload("just.pth", "weights", vec![7; 100_000])
        .await
        .ok();
    assert_eq!(file["bytes"], 100_000);
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    let content = service.get(&format!("{path}/content")).await;
    assert_eq!(content.body, vec![7; 100_000]);
    let ranged = |range: &'static str| {
        let path = format!("{path}/content");
        let service = &service;
        async move {
            service
                .send(Method::GET, &path, |request| request.header("range", range))
                .await
        }
    };
    let part = ranged("bytes=10-19").await;
    assert_eq!(
        (part.status, part.body.len()),
        (StatusCode::PARTIAL_CONTENT, 10)
    );
    assert_eq!(part.headers["content-range"], "bytes 10-19/100000");
    ranged("bytes=100000-")
        .await
        .error(416, "range_not_satisfiable");
    assert_eq!(service.delete(&path).await.ok()["deleted"], true);
    service.get(&path).await.error(404, "not_found");
    assert_eq!(objects(), 0);
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let service = Service::start().await;
    let address = service.url.trim_start_matches("http://").to_owned();
    let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: {address}\r\ncontent-type: multipart/form-data; boundary=x\r\n\
         content-length: 1000000\r\n\r\n--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.zip\"\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&[1; 50_000]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(socket);
    let files = service.objects().join("files");
    for _ in 0..100 {
        let left = walk_count(&files);
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} files are left", walk_count(&files));
}

fn walk_count(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { walk_count(&path) } else { 1 }
        })
        .sum()
}

#[tokio::test]
async fn a_slow_body_is_given_up() {
    let service = Service::start_with(&["--body-seconds", "1"]).await;
    let address = service.url.trim_start_matches("http://").to_owned();
    let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST {JOBS} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(10), socket.read(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"),
        "{answer}"
    );
}

#[tokio::test]
async fn keys_close_the_service_and_tenants_are_apart() {
    let service = Service::start().await;
    assert!(service.get("/v1/files").await.status.is_success());
    let mut keys = Vec::new();
    for name in ["one", "two"] {
        keys.push(service.new_key(name, Role::User).await);
    }
    let wrong = NewKey::new().text;
    let forged = format!("{}{}", &keys[0][..16], "0".repeat(keys[0].len() - 16));
    for key in ["", "rh_", "x", &wrong, &forged, &"k".repeat(5_000)] {
        let answer = service
            .send(Method::GET, "/v1/files", |request| request.bearer_auth(key))
            .await;
        answer.error(401, "invalid_api_key");
    }
    service.get("/v1/files").await.error(401, "invalid_api_key");
    assert!(service.get("/healthz").await.status.is_success());

    let form = reqwest::multipart::Form::new()
        .text("purpose", "weights")
        .part(
            "file",
            reqwest::multipart::Part::bytes(vec![1, 2, 3]).file_name("a.pth"),
        );
    let file = service
        .send(Method::POST, "/v1/files", |request| {
            request.bearer_auth(&keys[0]).multipart(form)
        })
        .await
        .ok();
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    for (method, path) in [
        (Method::GET, path.clone()),
        (Method::GET, format!("{path}/content")),
        (Method::GET, format!("{path}/report")),
        (Method::DELETE, path.clone()),
    ] {
        let answer = service
            .send(method, &path, |request| request.bearer_auth(&keys[1]))
            .await;
        answer.error(404, "not_found");
    }
    assert!(
        service
            .send(Method::GET, &path, |request| request.bearer_auth(&keys[0]))
            .await
            .status
            .is_success()
    );
}

#[tokio::test]
async fn web_pages_of_other_sites_are_refused() {
    let service = Service::start().await;
    for (name, value) in [("sec-fetch-site", "cross-site"), ("host", "evil.example")] {
        let answer = service
            .send(Method::GET, "/v1/files", |request| {
                request.header(name, value)
            })
            .await;
        answer.error(403, "other_site");
    }
}

#[tokio::test]
async fn a_service_without_keys_refuses_network_addresses() {
    let service = Service::start().await;
    let objects = service.objects();
    let arguments = [
        "serve",
        "--listen",
        "0.0.0.0:0",
        "--database-url",
        &service.database_url,
        "--objects",
        objects.to_str().unwrap(),
    ];
    let mut open = crate::support::process::Process::rehead("open", service.dir.path(), &arguments);
    assert!(!open.wait(Duration::from_secs(20)).success());
    assert!(open.log().contains("rehead keys create"), "{}", open.log());
}

#[tokio::test]
async fn metrics_hold_no_words_of_users() {
    let service = Service::start().await;
    service
        .get("/v1/models/a-name-of-mine")
        .await
        .error(404, "not_found");
    service
        .get("/a-path-of-mine")
        .await
        .error(404, "unknown_route");
    let text = service.get("/metrics").await.text();
    assert!(text.contains(r#"route="/v1/models/{id}""#), "{text}");
    assert!(text.contains(r#"rehead_jobs{status="queued"} 0"#), "{text}");
    assert!(!text.contains("of-mine"), "{text}");
}

#[tokio::test]
async fn a_database_that_is_away_is_a_503() {
    let mut service = Service::start().await;
    assert!(service.get("/readyz").await.status.is_success());
    service.kill_postgres();
    let answer = service.get("/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers.contains_key("retry-after"));
    service.get("/healthz").await.ok();
    service.restart_postgres();
}
