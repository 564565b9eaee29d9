//! Who may do what: rows A28, A29 and A35, roles, and what an open service refuses.

use std::{
    collections::BTreeSet,
    fs,
    process::Output,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rehead::{
    db::{
        keys::{self, KeyId},
        pushes::{self, NewPush},
        queue::{self, Trace},
        tenants,
    },
    domain::{
        id::{PushId, WorkerId},
        job::{Failure, Outcome},
        role::Role,
    },
    keys::NewKey,
};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Footprint;
use crate::{
    cli::run,
    events::queued_job,
    support::{
        openapi::CONTRACT,
        process::{Process, eventually},
        queue::{HOUR, checkpoint, claim, new_model},
        service::{Answer, Service},
    },
};

const JOBS: &str = "/v1/fine_tuning/jobs";

/// The service, asked with this key.
async fn ask(service: &Service, key: &str, method: Method, path: &str) -> Answer {
    let build = |request: RequestBuilder| request.bearer_auth(key);
    service.send(method, path, build).await
}

async fn get(service: &Service, key: &str, path: &str) -> Answer {
    ask(service, key, Method::GET, path).await
}

/// A raw request's response, as far as it arrives before the connection is closed.
async fn raw(service: &Service, request: &str) -> String {
    let address = service.url.trim_start_matches("http://");
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    let reading = socket.read_to_end(&mut response);
    let _ = tokio::time::timeout(Duration::from_secs(20), reading).await;
    String::from_utf8_lossy(&response).into_owned()
}

/// A28: every wrong key gets the same answer.
#[tokio::test]
async fn a28_wrong_keys_get_the_same_answer() {
    let service = Service::start_with(&["--failed-keys-per-minute", "1000"]).await;
    let footprint = Footprint::of(&service);
    let key = service.new_key("one", Role::User).await;
    let [expired, revoked] = [
        service.new_key("one", Role::User).await,
        service.new_key("one", Role::Admin).await,
    ];
    let id = |key: &str| -> KeyId { key[..15].parse().unwrap() };
    let pool = service.pool().await;
    sqlx::query("update api_keys set expires_at = now() where prefix = $1")
        .bind(id(&expired).prefix())
        .execute(&pool)
        .await
        .unwrap();
    assert!(keys::revoke(&pool, &id(&revoked)).await.unwrap().is_some());
    get(&service, &key, "/v1/files").await.ok();

    let forged = format!("{}{}", &key[..16], "0".repeat(key.len() - 16));
    let bearer = |key: &str| vec![format!("Bearer {key}").into_bytes()];
    let wrong: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("none", vec![]),
        ("empty", bearer("")),
        ("no scheme", vec![key.clone().into_bytes()]),
        ("another scheme", vec![format!("Basic {key}").into_bytes()]),
        ("the mark alone", bearer("rh_")),
        ("unknown prefix", bearer(&NewKey::new().text)),
        ("right prefix, wrong secret", bearer(&forged)),
        ("cut off", bearer(&key[..key.len() - 1])),
        ("too long", bearer(&format!("{key}0"))),
        ("upper case", bearer(&key.to_uppercase())),
        ("10 kB", bearer(&"k".repeat(10_000))),
        ("not ASCII", vec![b"Bearer rh_\xc3\xa9".to_vec()]),
        ("not UTF-8", vec![b"Bearer rh_\xff".to_vec()]),
        ("two headers", vec![format!("Bearer {key}").into_bytes(); 2]),
        ("expired", bearer(&expired)),
        ("revoked", bearer(&revoked)),
        ("SQL", bearer("rh_' or '1'='1_0")),
    ];
    let mut bodies = BTreeSet::new();
    for (what, headers) in wrong {
        let answer = service
            .send(Method::GET, "/v1/files", |mut request| {
                for header in headers {
                    request = request.header("authorization", header);
                }
                request
            })
            .await;
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        assert_eq!(answer.headers["www-authenticate"], "Bearer", "{what}");
        let mut body = answer.json();
        body["error"]["request_id"] = Value::Null;
        bodies.insert(body.to_string());
    }
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    get(&service, &key, "/v1/files").await.ok();
    // The log has the public part of a key at most.
    let log = service.server.log();
    for secret in [&forged, &expired, &revoked, &key] {
        assert!(!log.contains(&secret[16..]), "the log has a key");
    }
    assert!(log.contains(&forged[..15]), "{log}");
    footprint.assert_kept();
}

/// Wrong keys of one address are limited; a key that was right before still works there.
#[tokio::test]
async fn wrong_keys_are_limited_by_address() {
    let service = Service::start_with(&["--failed-keys-per-minute", "3"]).await;
    let footprint = Footprint::of(&service);
    let key = service.new_key("one", Role::User).await;
    let later = service.new_key("one", Role::User).await;
    get(&service, &key, "/v1/files").await.ok();
    for _ in 0..3 {
        let answer = get(&service, &NewKey::new().text, "/v1/files").await;
        answer.error(401, "invalid_api_key");
    }
    let answer = get(&service, &NewKey::new().text, "/v1/files").await;
    answer.error(429, "rate_limit_exceeded");
    get(&service, &later, "/v1/files")
        .await
        .error(429, "rate_limit_exceeded");
    get(&service, &key, "/v1/files").await.ok();
    service.get("/healthz").await.ok();
    footprint.assert_kept();
}

/// Objects of one tenant, as a job that has succeeded leaves them, by the start of their routes.
struct Objects {
    ids: Vec<(&'static str, String)>,
    job: Value,
}

impl Objects {
    async fn create(service: &Service) -> Self {
        let job = queued_job(service).await;
        let pool = service.pool().await;
        let claimed = claim(&pool, WorkerId::new(), HOUR).await.unwrap();
        let (id, token) = (claimed.job, claimed.token);
        let (saved, model) = (checkpoint(&claimed, 3, true), new_model(&claimed));
        for (folder, name) in [
            (&saved.objects, "manifest.json"),
            (&model.objects, "model.safetensors"),
        ] {
            let folder = service.objects().join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), "{}").unwrap();
        }
        let saved = queue::commit_checkpoint(&pool, id, token, &saved).await;
        let saved = saved.unwrap().unwrap();
        let trace = Trace {
            log_tail: Some("a line of the trainer at /home/operator/x".to_owned()),
            ..Trace::default()
        };
        queue::finish(&pool, id, token, &Outcome::Succeeded, Some(&model), &trace)
            .await
            .unwrap();
        let announced = json!({"filename": "a", "purpose": "weights", "bytes": 1});
        let upload = service.post("/v1/uploads", &announced).await.ok();
        let path = format!("{JOBS}/{id}");
        let done = service.get(&path).await.ok();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let hook = json!({"url": "http://127.0.0.1:9"});
        let hook = service.post("/v1/webhooks", &hook).await.ok();
        let ranking = json!({"training_file": done["training_file"]});
        let ranking = service.post("/v1/model_rankings", &ranking).await.ok();
        let push = NewPush {
            id: PushId::new(),
            tenant: tenants::find_or_create(&pool, "owner").await.unwrap(),
            model: text(&done["fine_tuned_model"]),
            repository: "org/pets".to_owned(),
            branch: "main".to_owned(),
            private: false,
            message: "Pets".to_owned(),
        };
        assert!(pushes::create(&pool, &push, 1).await.unwrap());
        let ids = vec![
            ("/v1/files/", text(&done["training_file"])),
            ("/v1/models/", text(&done["fine_tuned_model"])),
            ("/v1/fine_tuning/jobs/", id.to_string()),
            ("/v1/fine_tuning/checkpoints/", saved.to_string()),
            ("/v1/webhooks/", text(&hook["id"])),
            ("/v1/uploads/", text(&upload["id"])),
            ("/v1/model_rankings/", text(&ranking["id"])),
            ("/v1/model_pushes/", push.id.to_string()),
        ];
        Self { ids, job }
    }

    /// The path of a route for these objects. `None`: the route is another's object.
    fn path(&self, template: &str) -> Option<String> {
        let (start, rest) = template.split_once("{id}")?;
        let (_, id) = self.ids.iter().find(|(of, _)| *of == start)?;
        let delivery = format!("whd_{}", "0".repeat(32));
        let rest = rest.replace("{delivery}", &delivery).replace("{n}", "0");
        Some(format!("{start}{id}{rest}"))
    }

    /// All that their owner sees of them.
    async fn state(&self, service: &Service) -> Vec<Value> {
        let mut state = service.history(&self.job).await;
        for (start, id) in &self.ids[..2] {
            state.push(service.get(&format!("{start}{id}")).await.ok());
        }
        state
    }
}

/// A29: on every route of the contract, another tenant's id is answered like one that does not
/// exist, and changes nothing.
#[tokio::test]
async fn a29_objects_of_other_tenants_do_not_exist() {
    let mut service = Service::start_with(&["--private-hosts", "127.0.0.1:9"]).await;
    let footprint = Footprint::of(&service);
    let owner = service.new_key("owner", Role::Admin).await;
    let (user, admin) = (
        service.new_key("stranger", Role::User).await,
        service.new_key("stranger", Role::Admin).await,
    );
    service.key = Some(owner);
    let objects = Objects::create(&service).await;
    let before = objects.state(&service).await;
    service.key = None;
    let parts = json!({"part_ids": [format!("part_{}", "0".repeat(32))]});
    let mut tried = 0;
    for (template, item) in CONTRACT["paths"].as_object().unwrap() {
        if !template.contains('{') || template.starts_with("/v1/keys/") {
            continue;
        }
        let path = objects
            .path(template)
            .unwrap_or_else(|| panic!("{template} needs an object of another tenant here"));
        for method in item.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            for key in [&user, &admin] {
                let build = |request: RequestBuilder| {
                    let request = request.bearer_auth(key);
                    match template.as_str() {
                        "/v1/uploads/{id}/complete" => request.json(&parts),
                        "/v1/webhooks/{id}" => request.json(&json!({})),
                        "/v1/models/{id}/push" => request.json(&json!({"repository": "org/a"})),
                        "/v1/files/{id}/corrections" => request.json(&json!({"exclude": [0]})),
                        _ => request,
                    }
                };
                let answer = service.send(method.clone(), &path, build).await;
                let place = format!("{method} {template}");
                assert_eq!(answer.status, 404, "{place}: {}", answer.text());
                answer.error(404, "not_found");
                tried += 1;
            }
        }
    }
    assert!(tried >= 40, "only {tried} requests");
    let id = |at: usize| objects.ids[at].1.clone();
    // Bodies, cursors and filters that name them.
    let post = async |path: &str, body: Value| {
        let build = |request: RequestBuilder| request.bearer_auth(&user).json(&body);
        service.send(Method::POST, path, build).await
    };
    let job = json!({"model": id(1), "training_file": id(0)});
    post(JOBS, job.clone()).await.error(422, "unknown_file");
    post(&format!("{JOBS}/plan"), job)
        .await
        .error(422, "unknown_model");
    let from_checkpoint = json!({"model": id(3), "training_file": id(0)});
    post(JOBS, from_checkpoint)
        .await
        .error(422, "unknown_model");
    let ranking = json!({"training_file": id(0)});
    post("/v1/model_rankings", ranking)
        .await
        .error(422, "unknown_file");
    let weights = json!({"id": "mine", "architecture": "resnet18", "weights": {"file": id(0)}});
    post("/v1/base_models", weights)
        .await
        .error(422, "unknown_file");
    post(&format!("/v1/models/{}/predict", id(3)), json!({}))
        .await
        .error(404, "not_found");
    for (list, at) in [
        ("/v1/files", 0),
        ("/v1/models", 1),
        (JOBS, 2),
        ("/v1/model_rankings", 6),
        ("/v1/model_pushes", 7),
    ] {
        for query in [
            "".to_owned(),
            format!("?after={}", id(at)),
            format!("?after={}&order=asc", id(at)),
        ] {
            let page = get(&service, &user, &format!("{list}{query}")).await.ok();
            assert_eq!(page["data"], json!([]), "{list}{query}");
        }
    }
    service.key = Some(service.new_key("owner", Role::Admin).await);
    assert_eq!(objects.state(&service).await, before);
    let cancel = format!("/v1/uploads/{}/cancel", id(5));
    service.post(&cancel, &json!({})).await.ok();
    footprint.assert_kept();
}

/// Hosts, logs and folders of the operator are not a tenant's to see; routes for operators are
/// closed.
#[tokio::test]
async fn users_see_nothing_of_the_machines() {
    let mut service = Service::start_with(&["--metrics-listen", "127.0.0.1:0"]).await;
    let admin = service.new_key("one", Role::Admin).await;
    let user = service.new_key("one", Role::User).await;
    service.key = Some(admin.clone());
    let job = queued_job(&service).await;
    service.key = None;
    let pool = service.pool().await;
    let worker = WorkerId::new();
    sqlx::query("insert into workers (id, host, pid, version, device) values ($1, 'secret-host', 7, '0', 'cpu')")
        .bind(worker.0)
        .execute(&pool)
        .await
        .unwrap();
    let claimed = claim(&pool, worker, HOUR).await.unwrap();
    let failure = Failure::permanent(
        "io_error",
        "cannot read `/home/operator/work/plan.json`: no such file",
    );
    let trace = Trace {
        log_tail: Some("a line of the trainer".to_owned()),
        ..Trace::default()
    };
    let outcome = Outcome::Failed(failure).without_paths();
    let (id, token) = (claimed.job, claimed.token);
    queue::finish(&pool, id, token, &outcome, None, &trace)
        .await
        .unwrap();
    let path = service.path(&job);
    for path in [path.as_str(), JOBS, &format!("{path}/events")] {
        let text = get(&service, &user, path).await.text();
        for secret in ["secret-host", "a line of the trainer", "/home/operator"] {
            assert!(!text.contains(secret), "{path} shows {secret}: {text}");
        }
    }
    let seen = get(&service, &admin, &path).await.ok();
    assert_eq!(seen["attempts"][0]["host"], "secret-host");
    assert_eq!(seen["attempts"][0]["log"], json!(["a line of the trainer"]));
    assert_eq!(
        seen["error"]["message"],
        "cannot read `…/plan.json`: no such file"
    );

    for path in ["/v1/workers", "/metrics", "/v1/keys"] {
        get(&service, &user, path).await.error(403, "admin_only");
        assert!(get(&service, &admin, path).await.status.is_success());
        service.get(path).await.error(401, "invalid_api_key");
    }
    let log = service.server.log();
    let (_, rest) = log.split_once("metrics on http://").unwrap();
    let metrics = format!("http://{}", rest.lines().next().unwrap());
    let text = reqwest::get(&metrics).await.unwrap().text().await.unwrap();
    assert!(text.contains("rehead_jobs"), "{text}");
    let other = metrics.replace("/metrics", "/v1/files");
    assert_eq!(reqwest::get(other).await.unwrap().status(), 404);

    service.kill_postgres();
    let answer = get(&service, &user, "/readyz").await;
    let message = answer.error(503, "not_ready");
    assert!(!message.contains("database"), "{message}");
    service.restart_postgres();
}

/// B4: pages of other sites and proxies cannot use an open service.
#[tokio::test]
async fn a35_open_services_answer_their_own_machine_only() {
    let service = Service::start().await;
    let footprint = Footprint::of(&service);
    let host = service.url.trim_start_matches("http://").to_owned();
    let port = host.rsplit(':').next().unwrap().to_owned();
    let origin = service.url.clone();
    let local: Vec<Vec<(&str, String)>> = vec![
        vec![],
        vec![("host", format!("localhost:{port}"))],
        vec![("origin", origin.clone())],
        vec![("sec-fetch-site", "same-origin".to_owned())],
    ];
    let foreign: Vec<Vec<(&str, String)>> = vec![
        vec![("host", "evil.example".to_owned())],
        vec![("host", format!("0.0.0.0:{port}"))],
        vec![("host", format!("192.168.1.1:{port}"))],
        vec![("origin", "null".to_owned())],
        vec![("origin", "https://evil.example".to_owned())],
        vec![("origin", format!("http://127.0.0.1:{}1", port))],
        vec![("origin", origin.replace("http", "https"))],
        vec![("sec-fetch-site", "cross-site".to_owned())],
        vec![("sec-fetch-site", "same-site".to_owned())],
        vec![("forwarded", "for=1.2.3.4".to_owned())],
        vec![("x-forwarded-for", "127.0.0.1".to_owned())],
        vec![("x-forwarded-host", host.clone())],
        vec![("x-real-ip", "127.0.0.1".to_owned())],
        vec![("via", "1.1 proxy".to_owned())],
    ];
    let send = async |headers: &[(&str, String)]| {
        let form = reqwest::multipart::Form::new()
            .text("purpose", "weights")
            .part(
                "file",
                reqwest::multipart::Part::bytes(vec![1]).file_name("a.pth"),
            );
        let build = |mut request: RequestBuilder| {
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            request.multipart(form)
        };
        service.send(Method::POST, "/v1/files", build).await
    };
    for headers in &local {
        send(headers).await.ok();
    }
    for headers in &foreign {
        let message = send(headers).await.error(403, "other_site");
        assert!(message.contains("rehead keys create"), "{message}");
    }
    let files = service.get("/v1/files").await.ok();
    assert_eq!(files["data"].as_array().unwrap().len(), local.len());
    // No host at all, and a host in the request line.
    for request in [
        "GET /v1/files HTTP/1.0\r\n\r\n".to_owned(),
        format!(
            "GET http://evil.example/v1/files HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        ),
    ] {
        let response = raw(&service, &request).await;
        assert!(response.contains("other_site"), "{request}: {response}");
    }
    footprint.assert_kept();
}

/// A service with keys needs none of that: cookies are for sessions only, and no page of another
/// site can read its answers.
#[tokio::test]
async fn a35_services_with_keys_send_no_cors_headers() {
    let service = Service::start().await;
    let footprint = Footprint::of(&service);
    let key = service.new_key("one", Role::User).await;
    let origin = "https://evil.example";
    for method in [Method::GET, Method::OPTIONS] {
        let answer = service
            .send(method, "/v1/files", |request| {
                request
                    .bearer_auth(&key)
                    .header("origin", origin)
                    .header("x-forwarded-for", "1.2.3.4")
                    .header("access-control-request-method", "POST")
            })
            .await;
        for (name, _) in &answer.headers {
            let name = name.as_str();
            assert!(
                !name.starts_with("access-control") && name != "set-cookie",
                "{name}"
            );
        }
    }
    footprint.assert_kept();
}

/// `--require-keys`: without a key nobody is served, not even this machine.
#[tokio::test]
async fn required_keys_close_loopback() {
    let service = Service::start_with(&["--require-keys"]).await;
    assert!(service.server.log().contains("rehead keys create"));
    service.get("/v1/files").await.error(401, "invalid_api_key");
    service.get("/healthz").await.ok();
    service.get("/readyz").await.ok();
    let key = service.new_key("one", Role::User).await;
    get(&service, &key, "/v1/files").await.ok();
}

/// Admins manage keys over HTTP.
#[tokio::test]
async fn admins_create_list_and_revoke_keys() {
    let service = Service::start().await;
    let admin = service.new_key("one", Role::Admin).await;
    let post = async |body: Value| {
        let build = |request: RequestBuilder| request.bearer_auth(&admin).json(&body);
        service.send(Method::POST, "/v1/keys", build).await
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let created = post(json!({"tenant": "two", "name": "CI", "expires_at": now + 3_600}))
        .await
        .ok();
    let key = created["value"].as_str().unwrap();
    assert_eq!(
        (&created["role"], &created["tenant"]),
        (&json!("user"), &json!("two"))
    );
    get(&service, key, "/v1/files").await.ok();
    let build = |request: RequestBuilder| request.bearer_auth(key).json(&json!({"tenant": "two"}));
    let answer = service.send(Method::POST, "/v1/keys", build).await;
    answer.error(403, "admin_only");

    let listed = get(&service, &admin, "/v1/keys?limit=1&order=desc")
        .await
        .ok();
    assert_eq!(listed["data"][0]["id"], created["id"]);
    assert_eq!(listed["has_more"], true);
    assert!(listed["data"][0]["value"].is_null());
    let next = format!(
        "/v1/keys?order=desc&after={}",
        listed["last_id"].as_str().unwrap()
    );
    let rest = get(&service, &admin, &next).await.ok();
    assert_eq!(rest["data"].as_array().unwrap().len(), 1);

    let path = format!("/v1/keys/{}", created["id"].as_str().unwrap());
    for _ in 0..2 {
        let revoked = ask(&service, &admin, Method::DELETE, &path).await.ok();
        assert_eq!(revoked["deleted"], true);
    }
    get(&service, key, "/v1/files")
        .await
        .error(401, "invalid_api_key");
    for (body, code) in [
        (json!({}), "missing_field"),
        (json!({"tenant": ""}), "invalid_value"),
        (json!({"tenant": "a\nb"}), "invalid_value"),
        (json!({"tenant": "n".repeat(65)}), "invalid_value"),
        (json!({"tenant": "a", "role": "root"}), "invalid_value"),
        (json!({"tenant": "a", "expires_at": now}), "out_of_range"),
        (json!({"tenant": "a", "secret": "x"}), "unknown_field"),
    ] {
        post(body).await.error(422, code);
    }
    let missing = ask(&service, &admin, Method::DELETE, "/v1/keys/rh_000000000000").await;
    missing.error(404, "not_found");
}

#[track_caller]
fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    let both = [out.as_slice(), err.as_slice()].concat();
    let text = String::from_utf8(both).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

/// The commands that `rehead up` prints, on its private Postgres, while it runs and while it does
/// not; and a restart that does not open the service again.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_private_postgres_are_managed_at_the_terminal() {
    let dir = tempfile::Builder::new()
        .prefix("rehead-it-")
        .tempdir()
        .unwrap();
    let dir = dir.path();
    let up = |name: &str| {
        let arguments = [
            "up",
            "--data-dir",
            "my data",
            "--listen",
            "127.0.0.1:0",
            "--threads",
            "1",
        ];
        let mut up = Process::rehead(name, dir, &arguments);
        let url = format!("http://{}", up.wait_for("is up, listening on http://"));
        (up, url)
    };
    let (mut first, url) = up("up");
    let said = first.wait_for("until there is an API key; `");
    let command = said
        .split('`')
        .next()
        .unwrap()
        .replace("rehead ", "")
        .replace("'my data'", "my_data");
    let words: Vec<&str> = command
        .split(' ')
        .map(|word| if word == "my_data" { "my data" } else { word })
        .collect();
    let admin = text(&run(dir, &words)).trim().to_owned();
    assert!(admin.starts_with("rh_"), "{admin}");

    let http = reqwest::Client::new();
    let status = async |url: &str, key: &str| {
        let request = http.get(format!("{url}/v1/files")).bearer_auth(key);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(
        (status(&url, "").await, status(&url, &admin).await),
        (401, 200)
    );
    let create = [
        "keys",
        "create",
        "--data-dir",
        "my data",
        "--tenant",
        "two",
        "--expires",
        "90d",
        "--json",
    ];
    let created: Value = serde_json::from_str(&text(&run(dir, &create))).unwrap();
    let (id, key) = (
        created["id"].as_str().unwrap(),
        created["value"].as_str().unwrap(),
    );
    assert_eq!(status(&url, key).await, 200);
    first.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(first.wait(Duration::from_secs(60)).success());

    let revoked = text(&run(dir, &["keys", "revoke", "--data-dir", "my data", id]));
    assert!(revoked.contains("is revoked"), "{revoked}");
    let (_second, url) = up("again");
    assert_eq!(
        (status(&url, "").await, status(&url, key).await),
        (401, 401)
    );
    assert_eq!(status(&url, &admin).await, 200);
    let list = text(&run(dir, &["keys", "list", "--data-dir", "my data"]));
    let row = list.lines().find(|line| line.contains(id)).unwrap();
    assert!(row.ends_with("revoked"), "{list}");
    assert!(!list.contains(key), "{list}");

    for (arguments, expected) in [
        (&["keys", "list"][..], "--data-dir"),
        (&["keys", "list", "--data-dir", "elsewhere"], "`rehead up`"),
        (
            &["keys", "revoke", "--data-dir", "my data", "rh_000000000000"],
            "there is no key",
        ),
        (
            &["keys", "create", "--data-dir", "my data", "--tenant", ""],
            "--tenant must be",
        ),
        (
            &[
                "keys",
                "list",
                "--database-url",
                "postgres://nobody@127.0.0.1:1/x",
            ],
            "cannot reach",
        ),
    ] {
        let output = run(dir, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(expected),
            "{arguments:?}: {said}"
        );
        assert!(!said.to_lowercase().contains("select"), "{said}");
    }
}

/// One line for each request, with what it was and who sent it, and nothing that a client wrote.
#[tokio::test]
async fn every_request_has_one_line_in_the_access_log() {
    let service = Service::start().await;
    let key = service.new_key("one", Role::User).await;
    let mut expected = Vec::new();
    for (path, key, status) in [
        ("/v1/files?purpose=weights", key.as_str(), 200),
        ("/v1/files?after=s3cret%0aINFO%20forged", &key, 422),
        ("/v1/models/s3cret", &key, 404),
        ("/s3cret", "s3cret", 404),
        ("/v1/files", "s3cret", 401),
    ] {
        let answer = get(&service, key, path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        expected.push((id, status, answer.body.len()));
    }
    for (id, status, bytes) in expected {
        let line = eventually(Duration::from_secs(10), "a line", || {
            let log = service.server.log();
            let lines: Vec<&str> = log
                .lines()
                .filter(|line| line.contains(&id) && line.contains("status="))
                .collect();
            assert!(lines.len() <= 1, "{lines:?}");
            lines.first().map(|line| (*line).to_owned())
        });
        let plain = line.replace('"', "");
        for part in [
            format!("status={status}"),
            format!("bytes={bytes}"),
            "method=GET".to_owned(),
        ] {
            assert!(plain.contains(&part), "no {part} in {plain}");
        }
        if [200, 422].contains(&status) {
            assert!(
                plain.contains("tenant=one") && plain.contains(&key[..15]),
                "{plain}"
            );
        }
    }
    let log = service.server.log();
    assert!(
        !log.contains("s3cret") && !log.contains(&key[16..]),
        "{log}"
    );
}
