//! Sessions of browsers: a key is sent once, a cookie stands for it from then on, and is worth
//! nothing to pages of other sites.

use rehead::domain::role::Role;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    events::queued_job,
    support::service::{Answer, Service},
};

const PATH: &str = "/v1/session";

/// The request with the headers that a page of the service sends.
fn of_page(service: &Service, request: RequestBuilder) -> RequestBuilder {
    let origin = &service.url;
    request.header("origin", origin).header("x-rehead-ui", "1")
}

async fn sign_in(service: &Service, body: &Value) -> Answer {
    let build = |request| of_page(service, request).json(body);
    service.send(Method::POST, PATH, build).await
}

/// Signs in with a key; gives the cookie that the browser then holds.
async fn cookie_of(service: &Service, key: &str) -> String {
    let answer = sign_in(service, &json!({"key": key})).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap().to_owned();
    assert_eq!(answer.ok()["status"], "signed_in");
    cookie.split(';').next().unwrap().to_owned()
}

async fn get(service: &Service, cookie: &str, path: &str) -> Answer {
    let build = |request: RequestBuilder| request.header("cookie", cookie);
    service.send(Method::GET, path, build).await
}

/// D11: the whole life of a session, and keys that are wrong, revoked or expired.
#[tokio::test]
async fn session_lasts_until_it_or_its_key_ends() {
    let mut service = Service::start_with(&["--failed-keys-per-minute", "1000"]).await;
    let open = service.get(PATH).await.ok();
    assert_eq!(
        (&open["status"], &open["tenant"]),
        (&json!("open"), &json!("default"))
    );
    let key = service.new_key("one", Role::User).await;
    let stranger = service.new_key("two", Role::User).await;
    assert_eq!(service.get(PATH).await.ok()["status"], "signed_out");
    for wrong in ["", "rh_", &key[..key.len() - 1], &key.to_uppercase()] {
        let answer = sign_in(&service, &json!({"key": wrong})).await;
        answer.error(401, "invalid_api_key");
    }
    let unknown = sign_in(&service, &json!({"key": key, "name": "me"})).await;
    unknown.error(422, "unknown_field");

    let answer = sign_in(&service, &json!({"key": format!(" {key}\n"), "keep": true})).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap().to_owned();
    let begun = answer.ok();
    assert_eq!(
        (&begun["tenant"], &begun["role"], &begun["key"]),
        (&json!("one"), &json!("user"), &json!(key[..15]))
    );
    for part in [
        "; HttpOnly",
        "; SameSite=Strict",
        "; Path=/",
        "; Max-Age=2592000",
    ] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let found = get(&service, cookie, PATH).await.ok();
    assert_eq!(found["expires_at"], begun["expires_at"]);
    let lasts = found["expires_at"].as_i64().unwrap() - found["created_at"].as_i64().unwrap();
    assert_eq!(lasts, 12 * 3_600);
    get(&service, cookie, "/v1/files").await.ok();

    // Another tenant's job does not exist.
    service.key = Some(stranger.clone());
    let job = queued_job(&service).await;
    service.key = None;
    let path = service.path(&job);
    get(&service, cookie, &path).await.error(404, "not_found");
    // A key that is sent as well has precedence, for better or worse.
    let both = |key: &str| {
        let key = key.to_owned();
        move |request: RequestBuilder| request.header("cookie", cookie).bearer_auth(key)
    };
    let path = path.as_str();
    service.send(Method::GET, path, both(&stranger)).await.ok();
    let wrong = service.send(Method::GET, path, both("rh_wrong")).await;
    wrong.error(401, "invalid_api_key");
    let wrong = service.send(Method::GET, PATH, both("rh_wrong")).await;
    wrong.error(401, "invalid_api_key");

    // Signing out ends this session only.
    let other = cookie_of(&service, &key).await;
    let build = |request| of_page(&service, request).header("cookie", cookie);
    let out = service.send(Method::DELETE, PATH, build).await;
    let gone = out.headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(
        gone.starts_with("rehead_session=;") && gone.contains("Max-Age=0"),
        "{gone}"
    );
    assert_eq!(out.ok()["status"], "signed_out");
    let ended = get(&service, cookie, "/v1/files").await;
    ended.error(401, "session_ended");
    assert_eq!(
        get(&service, cookie, PATH).await.ok()["status"],
        "signed_out"
    );
    get(&service, &other, "/v1/files").await.ok();

    // A revoked key ends its sessions.
    let path = format!("/v1/keys/{}", &key[..15]);
    service.key = Some(service.new_key("one", Role::Admin).await);
    service.delete(&path).await.ok();
    service.key = None;
    let ended = get(&service, &other, "/v1/files").await;
    ended.error(401, "session_ended");
    let count = "select count(*) from sessions";
    let pool = service.pool().await;
    let left: i64 = sqlx::query_scalar(count).fetch_one(&pool).await.unwrap();
    assert_eq!(left, 0);
    // Neither a token nor a key is in the log.
    let log = service.server.log();
    for secret in [&cookie[15..], &key[16..]] {
        assert!(!log.contains(secret), "the log has a secret");
    }
}

/// A session ends when it is idle, after its longest time, with its key, and when its key has too
/// many others; garbage collection deletes it.
#[tokio::test]
async fn sessions_expire_and_are_limited() {
    let arguments = [
        "--session-idle-seconds",
        "600",
        "--session-seconds",
        "900",
        "--max-sessions-per-key",
        "2",
    ];
    let service = Service::start_with(&arguments).await;
    let key = service.new_key("one", Role::User).await;
    let pool = service.pool().await;
    let run = async |statement: &'static str| {
        sqlx::query(statement).execute(&pool).await.unwrap();
        // A server asks about a session once a second.
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    };
    let first = cookie_of(&service, &key).await;
    let second = cookie_of(&service, &key).await;
    let third = cookie_of(&service, &key).await;
    run("select").await;
    let ended = get(&service, &first, "/v1/files").await;
    ended.error(401, "session_ended");
    get(&service, &second, "/v1/files").await.ok();

    // A use lets it last, but not beyond its longest time. It is recorded beside the request.
    run("update sessions set created_at = now() - interval '700 s', expires_at = now() + interval '5 s'").await;
    let lasts = async || {
        let found = get(&service, &third, PATH).await.ok();
        let of = |name: &str| found[name].as_i64().unwrap();
        of("expires_at") - of("created_at")
    };
    for _ in 0..100 {
        if lasts().await > 800 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!((899..=901).contains(&lasts().await));
    run("update sessions set expires_at = now()").await;
    for cookie in [&second, &third] {
        let ended = get(&service, cookie, "/v1/files").await;
        ended.error(401, "session_ended");
    }
    let fourth = cookie_of(&service, &key).await;
    run("update api_keys set expires_at = now()").await;
    let ended = get(&service, &fourth, "/v1/files").await;
    ended.error(401, "session_ended");
    assert!(rehead::db::sessions::delete_expired(&pool).await.unwrap() >= 1);
    let count = "select count(*) from sessions";
    let left: i64 = sqlx::query_scalar(count).fetch_one(&pool).await.unwrap();
    assert_eq!(left, 0);
}

/// D12: a page of another origin can do nothing with the cookie, even on the same host, where the
/// browser sends it.
#[tokio::test]
async fn a35_cookie_is_worth_nothing_to_other_pages() {
    let service = Service::start().await;
    let key = service.new_key("one", Role::User).await;
    let cookie = cookie_of(&service, &key).await;
    let elsewhere = "http://127.0.0.1:9".to_owned();
    let send = async |method: Method, headers: &[(&str, String)]| {
        let build = |mut request: RequestBuilder| {
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            let form = reqwest::multipart::Form::new().text("purpose", "weights");
            let part = reqwest::multipart::Part::bytes(vec![1]).file_name("a.pth");
            request = request.header("cookie", &cookie);
            match method {
                Method::POST => request.multipart(form.part("file", part)),
                _ => request,
            }
        };
        service.send(method.clone(), "/v1/files", build).await
    };
    let text = |text: &str| text.to_owned();
    let refused: Vec<(Method, Vec<(&str, String)>)> = vec![
        // A form, with and without the headers of a browser that is not new.
        (Method::POST, vec![("origin", elsewhere.clone())]),
        (Method::POST, vec![("origin", text("null"))]),
        (Method::POST, vec![]),
        (
            Method::POST,
            vec![
                ("origin", elsewhere.clone()),
                ("sec-fetch-site", text("same-site")),
            ],
        ),
        // A fetch with the header, which a browser would have asked about first.
        (
            Method::POST,
            vec![
                ("origin", elsewhere.clone()),
                ("sec-fetch-site", text("same-site")),
                ("x-rehead-ui", text("1")),
            ],
        ),
        // An own page that forgot the header.
        (Method::POST, vec![("origin", service.url.clone())]),
        (Method::POST, vec![("sec-fetch-site", text("same-origin"))]),
        // An image, a fetch, a link.
        (Method::GET, vec![("sec-fetch-site", text("same-site"))]),
        (Method::GET, vec![("sec-fetch-site", text("cross-site"))]),
        (Method::GET, vec![("origin", elsewhere.clone())]),
        // An upgrade, as web sockets ask for it.
        (
            Method::GET,
            vec![
                ("origin", elsewhere.clone()),
                ("connection", text("upgrade")),
                ("upgrade", text("websocket")),
            ],
        ),
    ];
    for (method, headers) in &refused {
        let message = send(method.clone(), headers).await.error(403, "other_site");
        assert!(message.contains("session"), "{message}");
    }
    let files = send(Method::GET, &[]).await.ok();
    assert_eq!(files["data"], json!([]));
    let ours = [("origin", service.url.clone()), ("x-rehead-ui", text("1"))];
    send(Method::POST, &ours).await.ok();
    let ours = [
        ("sec-fetch-site", text("same-origin")),
        ("x-rehead-ui", text("1")),
    ];
    send(Method::POST, &ours).await.ok();

    // Neither can it sign a user in, nor out.
    for method in [Method::POST, Method::DELETE] {
        let build = |request: RequestBuilder| {
            let request = request.header("cookie", &cookie).json(&json!({"key": key}));
            request
                .header("origin", &elsewhere)
                .header("x-rehead-ui", "1")
        };
        let answer = service.send(method, PATH, build).await;
        answer.error(403, "other_site");
    }
    let found = get(&service, &cookie, PATH).await.ok();
    assert_eq!(found["status"], "signed_in");
}

/// Behind a proxy the cookie is for https only where the browser uses https, and pages are those of
/// the proxy's host.
#[tokio::test]
async fn session_behind_a_proxy_is_secure_by_https() {
    let service = Service::start_with(&["--trusted-proxies", "127.0.0.1"]).await;
    let key = service.new_key("one", Role::User).await;
    let headers: [&[(&str, &str)]; 2] = [
        &[
            ("origin", "https://rehead.example"),
            ("x-forwarded-host", "rehead.example"),
        ],
        &[
            ("sec-fetch-site", "same-origin"),
            ("x-forwarded-proto", "https"),
        ],
    ];
    for pairs in headers {
        let build = |mut request: RequestBuilder| {
            for (name, value) in pairs {
                request = request.header(*name, *value);
            }
            request
                .header("x-rehead-ui", "1")
                .json(&json!({"key": key}))
        };
        let answer = service.send(Method::POST, PATH, build).await;
        let cookie = answer.headers["set-cookie"].to_str().unwrap();
        assert!(cookie.contains("; Path=/; Secure"), "{cookie}");
    }
}

/// Requests with a session are counted as its key's.
#[tokio::test]
async fn sessions_share_the_limit_of_their_key() {
    let service = Service::start().await;
    let admin = service.new_key("one", Role::Admin).await;
    let build = |request: RequestBuilder| {
        let body = json!({"tenant": "one", "requests_per_minute": 3});
        request.bearer_auth(&admin).json(&body)
    };
    let created = service.send(Method::POST, "/v1/keys", build).await.ok();
    let key = created["value"].as_str().unwrap();
    let cookie = cookie_of(&service, key).await;
    for _ in 0..3 {
        get(&service, &cookie, "/v1/files").await.ok();
    }
    let limited = get(&service, &cookie, "/v1/files").await;
    limited.error(429, "rate_limit_exceeded");
    let limited = get(&service, &cookie, PATH).await;
    limited.error(429, "rate_limit_exceeded");
    let build = |request: RequestBuilder| request.bearer_auth(key);
    let limited = service.send(Method::GET, "/v1/files", build).await;
    limited.error(429, "rate_limit_exceeded");
}
