//! Pushes of fine-tuned models to a hub: what is there afterwards, faults of the hub and of
//! workers, and what the operator allows.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use nix::sys::signal::Signal;
use rehead::{
    config::{OutgoingArgs, PushLimits, Secret},
    domain::checkpoint::ManifestEntry,
    objects::hash_file,
    outgoing::{Outgoing, PushError, PushedFile, ToHub},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    cli::{run, said},
    support::{
        attempts::{QUICK, material},
        data::unzip,
        process::Process,
        push_hub::{Fault, PushHub, TOKEN, refused},
        receiver::{Received, redirect, status},
        service::Service,
    },
};

fn arguments(endpoint: &str) -> [&str; 10] {
    [
        "--download-hosts",
        "*:*",
        "--private-hosts",
        "127.0.0.1:*",
        "--hub-endpoint",
        endpoint,
        "--hub-token",
        TOKEN,
        "--hub-push-owners",
        "org",
    ]
}

fn worker(service: &Service, name: &str, endpoint: &str) -> Process {
    let all = [&arguments(endpoint)[..], &QUICK].concat();
    service.worker(name, &all)
}

/// A model that a worker trains quickly.
async fn fine_tuned(service: &Service, file: &Value, transfer: Value) -> String {
    let job = service.ended(&service.job(file, &transfer).await).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    job["fine_tuned_model"].as_str().unwrap().to_owned()
}

async fn ended(service: &Service, push: &Value) -> Value {
    let id = push["id"].as_str().unwrap();
    let path = format!("/v1/model_pushes/{id}?wait=60");
    service.get(&path).await.ok()
}

fn is_upload(request: &Received) -> bool {
    request.method == "PUT"
}

/// The whole of it: a worker dies in the middle of an upload, another one is told to wait and goes
/// on, and what is there then is the model. It reads back as a base model, and pushing it again
/// changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_model_is_a_repository_of_the_hub() {
    let fault: Fault = Arc::new(|request, before| match before {
        0 if is_upload(request) => Some(None),
        1 if is_upload(request) => {
            let response = Response::builder().status(503).header("retry-after", "1");
            Some(Some(response.body(Body::empty()).unwrap()))
        }
        _ => None,
    });
    let hub = PushHub::with(None, fault).await;
    let endpoint = hub.endpoint();
    let service = Service::start_with(&arguments(&endpoint)).await;
    let first = worker(&service, "first", &endpoint);
    let transfer = json!({"head": {"init": "zero"}, "hyperparameters": {"n_epochs": 1}});
    let file = material(&service).await;
    let model = fine_tuned(&service, &file, transfer).await;

    let path = format!("/v1/models/{model}/push");
    let body = json!({"repository": "org/pets", "private": true});
    let push = service.post(&path, &body).await.ok();
    assert_eq!(push["object"], "model_push");
    assert_eq!(push["url"], format!("{endpoint}/org/pets"));
    hub.store.wait_for(1).await;
    let id = push["id"].as_str().unwrap();
    let running = service.get(&format!("/v1/model_pushes/{id}")).await.ok();
    assert_eq!(running["status"], "running");
    first.signal(Signal::SIGKILL);
    let second = worker(&service, "second", &endpoint);
    let push = ended(&service, &push).await;
    assert_eq!(push["status"], "succeeded", "{push} {}", second.log());
    assert!(hub.is_private("org/pets"));
    let (files, summary) = hub.branch("org/pets", "main");
    assert_eq!(summary, format!("Push {model}"));

    let bundle = service.get(&format!("/v1/models/{model}/export")).await;
    let bundle = unzip(&bundle.body);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    let expected = [
        "README.md",
        "config.json",
        "labels.json",
        "model.safetensors",
        "preprocess.json",
    ];
    assert_eq!(names, expected);
    for name in ["labels.json", "model.safetensors", "preprocess.json"] {
        assert_eq!(files[name], bundle[name], "{name}");
    }
    let config: Value = serde_json::from_slice(&files["config.json"]).unwrap();
    assert_eq!(config["architecture"], "tf_efficientnet_lite0");
    assert_eq!(config["label_names"], json!(["animals", "food"]));
    let card = String::from_utf8(files["README.md"].to_vec()).unwrap();
    for words in ["library_name: timm", "- type: accuracy", "hf-hub:org/pets"] {
        assert!(card.contains(words), "{words}: {card}");
    }
    for text in [&card, &config.to_string()] {
        assert!(
            !text.contains(TOKEN) && !text.contains("data.zip"),
            "{text}"
        );
    }

    // The same again, at the terminal.
    let uploads = hub.store.received().len();
    let command = ["push", "--url", &service.url, &model, "org/pets"];
    assert_eq!(
        said(service.dir.path(), &command),
        format!("{endpoint}/org/pets")
    );
    assert_eq!((hub.commits(), hub.store.received().len()), (1, uploads));
    // What the store has is not sent to another branch.
    let again = [
        &command[..],
        &["--branch", "v1.0", "--message", "Pets", "--json"],
    ]
    .concat();
    let again: Value = serde_json::from_str(&said(service.dir.path(), &again)).unwrap();
    assert_eq!(again["branch"], "v1.0");
    assert_eq!((hub.commits(), hub.store.received().len()), (2, uploads));
    assert_eq!(hub.branch("org/pets", "v1.0").1, "Pets");

    let body = json!({"hub": "org/pets", "revision": "v1.0"});
    let base = service.post("/v1/base_models", &body).await.ok();
    assert_eq!(
        (&base["id"], &base["status"]),
        (&json!("pets"), &json!("ready"))
    );
    assert_eq!(base["source_task"]["classes"], 2);
    let input = |model: &Value| model["input"].clone();
    let tuned = service.get(&format!("/v1/models/{model}")).await.ok();
    assert_eq!(input(&base), input(&tuned));

    refusals_of_the_service(&service, &file, &model).await;
    let list = service.get("/v1/model_pushes?order=asc&limit=1").await.ok();
    assert_eq!(
        (&list["data"][0]["id"], &list["has_more"]),
        (&json!(id), &json!(true))
    );
    let path = format!("/v1/model_pushes/{id}");
    assert_eq!(service.delete(&path).await.ok()["deleted"], true);
    service.get(&path).await.error(404, "not_found");
    service.delete(&path).await.error(404, "not_found");
}

/// Requests that are refused before a worker takes them.
async fn refusals_of_the_service(service: &Service, file: &Value, model: &str) {
    let cut = json!({"cut": "blocks.3", "hyperparameters": {"n_epochs": 1}});
    let cut = fine_tuned(service, file, cut).await;
    let body = |repository: &str| json!({ "repository": repository });
    for (of, body, code, words) in [
        (
            "efficientnet_lite0",
            body("org/a"),
            "not_fine_tuned",
            "has no head",
        ),
        (
            &cut,
            body("org/a"),
            "unfit_model",
            "cut after stage `blocks.3`",
        ),
        (
            model,
            body("google/a"),
            "hub_not_allowed",
            "--hub-push-owners",
        ),
        (model, body("pets"), "invalid_value", "an owner and a name"),
    ] {
        let refused = service.post(&format!("/v1/models/{of}/push"), &body).await;
        let message = refused.error(422, code);
        assert!(message.contains(words), "{message}");
    }
    let unknown = service
        .post("/v1/models/ft:none/push", &body("org/a"))
        .await;
    unknown.error(404, "not_found");
    let command = ["push", "--url", &service.url, model, "google/a"];
    let output = run(service.dir.path(), &command);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("hub_not_allowed"));
}

/// Pushes wait for a worker that may push, up to a limit; a model that is deleted meanwhile is not
/// pushed.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_waits_for_a_worker_that_may_push() {
    let hub = PushHub::start().await;
    let endpoint = hub.endpoint();
    let one = [&arguments(&endpoint)[..], &["--max-pushes", "1"]].concat();
    let service = Service::start_with(&one).await;
    let other = service.worker("other", &[]);
    let transfer = json!({"head": {"init": "zero"}, "hyperparameters": {"n_epochs": 1}});
    let file = material(&service).await;
    let model = fine_tuned(&service, &file, transfer).await;
    let path = format!("/v1/models/{model}/push");
    let body = json!({"repository": "org/pets"});
    let push = service.post(&path, &body).await.ok();
    assert_eq!(push["status"], "queued");
    let message = service.post(&path, &body).await.error(429, "queue_full");
    assert!(message.contains("1 pushes"), "{message}");
    service.delete(&format!("/v1/models/{model}")).await.ok();
    let id = push["id"].as_str().unwrap();
    let waiting = service
        .get(&format!("/v1/model_pushes/{id}?wait=1"))
        .await
        .ok();
    assert_eq!(waiting["status"], "queued", "{}", other.log());
    let _worker = worker(&service, "worker", &endpoint);
    let push = ended(&service, &push).await;
    assert_eq!(push["error"]["code"], "input_gone", "{push}");
    assert!(hub.hub.received().is_empty());
}

fn args(hub: &PushHub) -> OutgoingArgs {
    OutgoingArgs {
        download_hosts: "*:*".parse().unwrap(),
        private_hosts: "127.0.0.1:*".parse().unwrap(),
        hub_endpoint: hub.endpoint(),
        hub_token: Some(Secret::from(TOKEN)),
        hub_push_owners: vec!["org".to_owned()],
        ..OutgoingArgs::default()
    }
}

/// Files of a repository in a folder.
async fn files(folder: &std::path::Path) -> Vec<PushedFile> {
    let mut files = Vec::new();
    for (name, content) in [
        ("config.json", b"{}".to_vec()),
        (
            "model.safetensors",
            (0..10_000u32).flat_map(u32::to_le_bytes).collect(),
        ),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        let content = ManifestEntry::from(hash_file(&path).await.unwrap());
        files.push(PushedFile {
            name,
            path,
            content,
        });
    }
    files
}

/// Pushes two files to `org/a` by a client of these arguments.
async fn push(args: &OutgoingArgs, branch: &str) -> Result<String, PushError> {
    let folder = tempfile::tempdir().unwrap();
    let limits = PushLimits {
        push_time: Duration::from_secs(20),
        push_idle: Duration::from_millis(500),
    };
    let to_hub = ToHub {
        repository: "org/a",
        branch,
        private: false,
        message: "A",
        files: &files(folder.path()).await,
        limits: &limits,
        end: Instant::now() + limits.push_time,
    };
    Outgoing::new(args).push(&to_hub).await
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_go_in_parts_where_the_hub_asks_for_it() {
    let hub = PushHub::with(Some(16_000), Arc::new(|_, _| None)).await;
    let commit = push(&args(&hub), "main").await.unwrap();
    assert_eq!(hub.store.received().len(), 3);
    let (files, _) = hub.branch("org/a", "main");
    assert_eq!(files["model.safetensors"].len(), 40_000);
    assert!(!hub.is_private("org/a"));
    assert_eq!(push(&args(&hub), "main").await.unwrap(), commit);
    assert_eq!(hub.store.received().len(), 3);
}

/// Each fault is one error, with a code that says whose turn it is, and nothing is committed.
#[tokio::test(flavor = "multi_thread")]
async fn faults_of_a_hub_are_told_apart() {
    let silent = || Some(None);
    let at = |part: &'static str, answer: fn() -> Option<Option<Response>>| -> Fault {
        Arc::new(move |request, _| request.path.contains(part).then(answer).flatten())
    };
    let (batch, create) = ("objects/batch", "repos/create");
    let cases: Vec<(Fault, &str, bool, &str)> = vec![
        (
            at(create, || Some(status(401))),
            "push_denied",
            false,
            "(401)",
        ),
        (
            at("preupload", || Some(refused(403, "read only"))),
            "push_denied",
            false,
            "read only",
        ),
        (
            at(create, || Some(refused(404, "no org"))),
            "unknown_repository",
            false,
            "org/a",
        ),
        (
            at(create, || Some(refused(400, "bad name"))),
            "push_rejected",
            false,
            "400, bad name",
        ),
        (
            at("preupload", || Some(redirect(307, "/x"))),
            "push_rejected",
            false,
            "present name",
        ),
        (
            at("preupload", || Some(status(200))),
            "push_rejected",
            false,
            "--hub-endpoint",
        ),
        (
            at(create, || Some(status(429))),
            "hub_unreachable",
            true,
            "too many requests",
        ),
        (
            at("commit", || Some(status(502))),
            "hub_unreachable",
            true,
            "502",
        ),
        (
            at("commit", || Some(refused(412, "moved"))),
            "push_rejected",
            false,
            "412, moved",
        ),
        (
            at("/lfs/", || Some(status(403))),
            "push_denied",
            false,
            "(403)",
        ),
        (
            at("verify", || Some(status(422))),
            "push_rejected",
            false,
            "422",
        ),
        (
            at("preupload", silent),
            "hub_unreachable",
            true,
            "no answer in time",
        ),
        (
            Arc::new(|request, _| is_upload(request).then_some(None)),
            "hub_unreachable",
            true,
            "in time",
        ),
        (
            at(batch, || Some(refused(413, &format!("not for {TOKEN}")))),
            "push_rejected",
            false,
            "not for …",
        ),
    ];
    for (fault, code, is_temporary, words) in cases {
        let hub = PushHub::with(None, fault).await;
        let error = push(&args(&hub), "main").await.unwrap_err();
        let message = error.to_string();
        assert_eq!(
            (error.code(), error.is_temporary()),
            (code, is_temporary),
            "{message}"
        );
        assert!(
            message.contains(words) && !message.contains(TOKEN),
            "{words}: {message}"
        );
        assert_eq!(hub.commits(), 0);
    }
    // A repository that may not be created, but is there, gets its commit; a pause is heard.
    let pause: Fault = Arc::new(|request, _| {
        let response = Response::builder().status(429).header("retry-after", "7");
        let response = response.body(Body::empty()).unwrap();
        request.path.contains("preupload").then_some(Some(response))
    });
    let hub = PushHub::with(None, pause).await;
    let error = push(&args(&hub), "main").await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    let hub = PushHub::start().await;
    push(&args(&hub), "main").await.unwrap();
    push(&args(&hub), "v1.0").await.unwrap();
    assert_eq!(hub.commits(), 1, "a new branch has the files of `main`");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_pushed_only_where_the_operator_allows() {
    let hub = PushHub::start().await;
    let change = |change: fn(&mut OutgoingArgs)| {
        let mut args = args(&hub);
        change(&mut args);
        args
    };
    for (args, words) in [
        (
            change(|args| args.hub_push_owners.clear()),
            "--hub-push-owners",
        ),
        (
            change(|args| args.hub_push_owners = vec!["me".to_owned()]),
            "`org`",
        ),
        (change(|args| args.hub_offline = true), "--hub-offline"),
        (change(|args| args.hub_token = None), "--hub-token"),
        (
            change(|args| args.download_hosts = "none".parse().unwrap()),
            "--download-hosts",
        ),
        (
            change(|args| args.private_hosts = "none".parse().unwrap()),
            "public address",
        ),
    ] {
        let error = push(&args, "main").await.unwrap_err();
        assert_eq!(error.code(), "hub_not_allowed");
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    assert!(hub.hub.received().is_empty());
    // The store must be allowed, too, and never gets the token.
    let only_hub = OutgoingArgs {
        download_hosts: format!("127.0.0.1:{}", hub.hub.port).parse().unwrap(),
        ..args(&hub)
    };
    let error = push(&only_hub, "main").await.unwrap_err();
    assert!(error.to_string().contains("--download-hosts"), "{error}");
    assert!(hub.store.received().is_empty());
    let every = change(|args| args.hub_push_owners = vec!["*".to_owned()]);
    push(&every, "main").await.unwrap();
    let mut stored = hub.store.received().into_iter();
    assert!(stored.all(|one| !one.headers.contains_key("authorization")));
}
