//! The same request in the forms that clients send it.

use reqwest::Method;

use crate::support::service::Service;

const JOBS: &str = "/v1/fine_tuning/jobs";

/// Bodies as PowerShell, browsers, older clients and hostile ones send them.
#[tokio::test]
async fn requests_are_taken_as_clients_write_them() {
    let service = Service::start().await;
    let post = |path: &'static str, headers: &[(&'static str, &'static str)], body: Vec<u8>| {
        let headers = headers.to_vec();
        service.send(Method::POST, path, move |mut request| {
            for (name, value) in headers {
                request = request.header(name, value);
            }
            request.body(body)
        })
    };
    let json = ("content-type", "application/json");
    let marked = post(JOBS, &[json], "\u{feff}{}".into()).await;
    marked.error(422, "missing_field");
    let utf16: Vec<u8> = "\u{feff}{}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let message = post(JOBS, &[json], utf16).await.error(400, "invalid_json");
    assert!(message.contains("UTF-16"), "{message}");
    let gzip = ("content-encoding", "gzip");
    let message = post(JOBS, &[json, gzip], vec![0x1f, 0x8b, 8, 0]).await;
    let message = message.error(415, "unsupported_encoding");
    assert!(message.contains("gzip"), "{message}");

    let example = br#"{"model": "net", "training_file": "file-abc123"}"#;
    let message = post(JOBS, &[json], example.to_vec())
        .await
        .error(422, "invalid_value");
    assert!(message.contains("not an id of this service"), "{message}");

    let names = (0..20_000).map(|i| (format!("{i}{}", "x".repeat(30)), serde_json::json!(1)));
    let unknown = serde_json::Value::Object(names.collect()).to_string();
    let answer = post(JOBS, &[json], unknown.into()).await;
    assert!(answer.body.len() < 64 << 10, "{} bytes", answer.body.len());
    let message = answer.error(422, "unknown_field");
    assert!(
        message.contains("has 20000 unknown fields"),
        "{message:.200}"
    );

    let form = ("content-type", "multipart/form-data; boundary=XX");
    let body = "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n--XX\r\n\
        Content-Disposition: form-data; name=\"file\"; filename*=UTF-8''na%C3%AFve.zip\r\n\r\nPK\r\n--XX--\r\n";
    let file = post("/v1/files", &[form], body.into()).await.ok();
    assert_eq!(file["filename"], "naïve.zip");

    for (path, near) in [
        ("/files", "/v1/files"),
        ("/v1/files/", "/v1/files"),
        (
            "/fine_tuning/jobs/x/events",
            "/v1/fine_tuning/jobs/x/events",
        ),
    ] {
        let message = service.get(path).await.error(404, "unknown_route");
        assert!(message.contains(&format!("`{near}`")), "{message}");
    }
}
