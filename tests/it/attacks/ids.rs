//! Ids of every route that are paths, long, or nothing: A17 of docs/security.md.

use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::assert_nothing_escaped;
use crate::support::{openapi::CONTRACT, service::Service};

/// Ids as they stand in a path, percent-encoded where a client would not send them otherwise.
fn hostile_ids() -> Vec<String> {
    let id = "00000000000000000000000000000000";
    let mut ids: Vec<String> = [
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2fetc%2fpasswd",
        "%252e%252e%252fetc",
        "..%5c..%5cwindows",
        "%2e%2e%2f",
        "%5c%5cserver%5cshare",
        "%00",
        "a%00b",
        "%ff%fe",
        "%c0%ae%c0%ae%2f",
        "%0d%0aset-cookie%3a%20a%3db",
        "%1b%5d0%3bpwned%07",
        "'%20or%20'1'='1",
        "%25",
        "_",
        "-1",
        "9223372036854775808",
        "null",
        "*",
        "%e2%80%ae",
    ]
    .map(str::to_owned)
    .into();
    for prefix in ["file-", "ftjob-", "ftckpt_", "ftckpt-"] {
        ids.push(format!("{prefix}{id}%00"));
        ids.push(format!("{prefix}{id}%2f..%2fcontent"));
        ids.push(format!("{prefix}{}", &id[1..]));
        ids.push(format!("{prefix}../{id}").replace('/', "%2f"));
        ids.push(format!("{prefix}{}", "g".repeat(32)));
    }
    ids.push("a".repeat(10_000));
    ids.push("%2e%2e%2f".repeat(2_000));
    ids
}

/// Routes of the contract with a parameter, and their methods.
fn routes() -> Vec<(Method, &'static str)> {
    let paths = CONTRACT["paths"].as_object().unwrap();
    let with_parameter = paths.iter().filter(|(path, _)| path.contains('{'));
    with_parameter
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.filter_map(move |name| {
                let method: Method = name.to_uppercase().parse().ok()?;
                let is_method = ["get", "post", "put", "patch", "delete"].contains(&name.as_str());
                is_method.then_some((method, path.as_str()))
            })
        })
        .collect()
}

/// The path with its last parameter replaced. Parameters before it are plausible: two long ones do
/// not fit into the head of a request.
fn filled(template: &str, id: &str) -> String {
    let (before, last) = template.rsplit_once('{').unwrap();
    let after = last.split_once('}').unwrap().1;
    let plausible = format!("wh_{}", "0".repeat(32));
    let parts = before.split('/').map(|part| match part.starts_with('{') {
        true => plausible.as_str(),
        false => part,
    });
    format!("{}{id}{after}", parts.collect::<Vec<_>>().join("/"))
}

/// No route finds, changes or fails at anything under an id that it did not give out.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_ids_on_every_route_find_nothing() {
    let service = Service::start().await;
    hostile_ids_on_every_route(&service).await;
    assert_nothing_escaped(&service);
}

pub(super) async fn hostile_ids_on_every_route(service: &Service) {
    let routes = routes();
    assert!(routes.len() > 20, "{routes:?}");
    for (method, template) in &routes {
        for id in hostile_ids() {
            let path = filled(template, &id);
            let answer = service.send(method.clone(), &path, |request| {
                match *method == Method::POST {
                    true => request.json(&json!({})),
                    false => request,
                }
            });
            let answer = answer.await;
            let status = answer.status.as_u16();
            assert!(
                [400, 404, 414, 415, 422].contains(&status),
                "{method} {path:.200}: {status} {}",
                answer.text()
            );
            assert!(answer.body.len() < 8 << 10, "{method} {path:.200}");
            assert!(!answer.headers.contains_key("set-cookie"));
        }
    }
}

/// Paths that clients normalize before they send them, sent as they are.
#[tokio::test]
async fn paths_with_dots_on_the_wire_find_nothing() {
    paths_with_dots_on_the_wire(&Service::start().await).await;
}

pub(super) async fn paths_with_dots_on_the_wire(service: &Service) {
    let address = service.url.trim_start_matches("http://").to_owned();
    for path in [
        "/v1/files/../../../../etc/passwd",
        "/v1/files/./content",
        "/../etc/passwd",
        "/docs/../../../etc/passwd",
        "/docs/..%2f..%2f..%2fetc%2fpasswd",
        "/docs//etc/passwd",
        "//etc/passwd",
        "/v1/files//content",
        "/v1/models/..",
        "/v1/models/.",
        r"/v1/files/..\..\etc\passwd",
        "http://evil.example/v1/files/../../etc/passwd",
    ] {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.get(9..12).unwrap_or_default().to_owned();
        assert!(
            ["400", "403", "404", "422"].contains(&status.as_str()),
            "{path}: {answer:.300}"
        );
        assert!(!answer.contains("root:"), "{path}");
    }
}
