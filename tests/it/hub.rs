//! Base models by a hub's names: a local hub with the routes of Hugging Face's, from which a worker
//! downloads real weights; and repositories that give no model.

use axum::{body::Body, response::Response};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{
    data::lite0_weights,
    receiver::{Received, Receiver, redirect, status},
    service::Service,
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_of_the_operator";

/// A repository as the hub describes it.
#[derive(Clone)]
struct Repository {
    config: Value,
    files: Vec<&'static str>,
    sha256: String,
}

fn lite0() -> Repository {
    let config = json!({
        "architecture": "tf_efficientnet_lite0",
        "num_classes": 1000,
        "num_features": 1280,
        "pretrained_cfg": {
            "tag": "in1k", "custom_load": false, "input_size": [3, 192, 192], "fixed_input_size": false,
            "interpolation": "bilinear", "crop_pct": 0.9, "crop_mode": "center", "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25], "num_classes": 1000, "pool_size": [7, 7], "first_conv": "conv_stem",
            "classifier": "classifier", "license": "mit"
        }
    });
    Repository {
        config,
        files: vec!["README.md", "config.json", "pytorch_model.bin"],
        sha256: hex::encode(Sha256::digest(lite0_weights())),
    }
}

fn of_json(value: &Value) -> Option<Response> {
    Some(Response::new(Body::from(value.to_string())))
}

fn refused(code: u16, error: &str) -> Option<Response> {
    let response = Response::builder()
        .status(code)
        .header("x-error-code", error);
    Some(response.body(Body::empty()).unwrap())
}

/// Answers for one repository, `timm/lite0`, whose files another server has.
fn answer(repository: &Repository, store: u16, request: &Received) -> Option<Response> {
    let siblings: Vec<Value> = repository
        .files
        .iter()
        .map(|name| match name.ends_with(".bin") {
            true => json!({"rfilename": name, "lfs": {"sha256": repository.sha256, "size": 1}}),
            false => json!({ "rfilename": name }),
        })
        .collect();
    let resolve = format!("/timm/lite0/resolve/{COMMIT}/");
    let path = request.path.as_str();
    match path {
        "/api/models/timm/lite0/revision/main?blobs=true"
        | "/api/models/timm/lite0/revision/v1%2E0?blobs=true" => of_json(&json!({
            "id": "timm/lite0", "sha": COMMIT, "siblings": siblings, "gated": false,
            "cardData": {"license": "apache-2.0"}
        })),
        _ if path.starts_with("/api/") => refused(404, "RevisionNotFound"),
        _ if path.starts_with(&resolve) => {
            let file = &path[resolve.len()..];
            redirect(302, &format!("http://127.0.0.1:{store}/{file}"))
        }
        _ => refused(404, "EntryNotFound"),
    }
}

/// A hub, and the server that has its files.
async fn hub(repository: Repository) -> (Receiver, Receiver) {
    let config = repository.config.clone();
    let store = Receiver::start(move |request, _| match request.path.as_str() {
        "/config.json" => of_json(&config),
        "/pytorch_model.bin" => Some(Response::new(Body::from(lite0_weights()))),
        _ => refused(404, "EntryNotFound"),
    });
    let store = store.await;
    let port = store.port;
    let hub = Receiver::start(move |request, _| answer(&repository, port, request)).await;
    (hub, store)
}

/// Arguments of a service, and of its workers, that use this hub.
fn arguments(endpoint: &str) -> [&str; 8] {
    [
        "--download-hosts",
        "*:*",
        "--private-hosts",
        "127.0.0.1:*",
        "--hub-endpoint",
        endpoint,
        "--hub-token",
        TOKEN,
    ]
}

fn endpoint(hub: &Receiver) -> String {
    format!("http://127.0.0.1:{}", hub.port)
}

async fn service(hub: &Receiver, further: &[&str]) -> Service {
    let endpoint = endpoint(hub);
    let all = [&arguments(&endpoint)[..], further].concat();
    Service::start_with(&all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_brings_weights_preprocessing_task_and_license() {
    let (hub, store) = hub(lite0()).await;
    let service = service(&hub, &[]).await;
    let _worker = service.worker("a", &arguments(&endpoint(&hub)));
    let body = json!({"hub": "timm/lite0"});
    let model = service.post("/v1/base_models", &body).await.ok();
    assert_eq!(
        (&model["id"], &model["status"]),
        (&json!("lite0"), &json!("ready")),
        "{model}"
    );
    assert_eq!(model["architecture"], "tf_efficientnet_lite0");
    assert_eq!(model["license"], "apache-2.0");
    let task = json!({"name": "image classification", "classes": 1000, "dataset": "ImageNet-1k"});
    assert_eq!(model["source_task"], task);
    let input = &model["input"];
    assert_eq!(input["input_size"], 192, "{model}");
    assert_eq!(input["interpolation"], "bilinear");
    assert_eq!(input["crop_fraction"], 0.9);
    assert_eq!(input["std"], json!([0.25, 0.25, 0.25]));

    // The request's own values come first, and another id makes another model.
    let body = json!({
        "hub": "timm/lite0", "revision": "v1.0", "id": "mine", "license": "MIT",
        "preprocessing": {"input_size": 96}, "source_task": {"name": "photographs"},
    });
    let mine = service.post("/v1/base_models", &body).await.ok();
    assert_eq!(mine["id"], "mine");
    assert_eq!(mine["license"], "MIT");
    assert_eq!(mine["input"]["input_size"], 96);
    assert_eq!(mine["input"]["crop_fraction"], 0.9);
    assert_eq!(mine["source_task"]["name"], "photographs");

    // The token goes to repositories, and not to where they redirect.
    let has_token = |one: &Received| one.headers.get("authorization").is_some();
    assert!(hub.received().iter().all(has_token));
    assert!(!store.received().iter().any(has_token));
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_that_give_no_model_say_why() {
    let whole = lite0();
    let of_transformers =
        json!({"model_type": "vit", "architectures": ["ViTForImageClassification"]});
    let cases = [
        (
            Repository {
                files: vec!["config.json", "model.safetensors.index.json"],
                ..whole.clone()
            },
            "several files",
        ),
        (
            Repository {
                files: vec!["config.json", "tf_model.h5"],
                ..whole.clone()
            },
            "neither `model.safetensors`",
        ),
        (
            Repository {
                config: of_transformers,
                ..whole.clone()
            },
            "transformers",
        ),
        (
            Repository {
                config: json!({"num_classes": 3}),
                ..whole.clone()
            },
            "without `architecture`",
        ),
        (
            Repository {
                config: json!([1]),
                ..whole
            },
            "cannot be read",
        ),
    ];
    for (repository, words) in cases {
        let (hub, _store) = hub(repository).await;
        let service = service(&hub, &[]).await;
        let body = json!({"hub": "timm/lite0"});
        let response = service.post("/v1/base_models", &body).await;
        let message = response.error(422, "unfit_repository");
        assert!(
            message.contains(words) && message.contains("timm/lite0"),
            "{message}"
        );
        let models = service.get("/v1/models").await.ok();
        assert_eq!(models["data"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_a_hub_are_told_apart() {
    let hub = Receiver::start(|request, _| match request.path.as_str() {
        path if path.contains("/gated") => refused(403, "GatedRepo"),
        path if path.contains("/private") => status(401),
        path if path.contains("/busy") => {
            let response = Response::builder().status(429).header("retry-after", "17");
            Some(response.body(Body::empty()).unwrap())
        }
        path if path.contains("/broken") => status(500),
        path if path.contains("/loop") => redirect(302, path),
        _ => refused(404, "RepoNotFound"),
    })
    .await;
    let service = service(&hub, &["--hub-owners", "timm,google"]).await;
    for (name, code, words) in [
        ("timm/gated", "unknown_repository", "gated"),
        ("timm/private", "unknown_repository", "private"),
        ("timm/none", "unknown_repository", "does not exist"),
        ("timm/busy", "hub_unreachable", "17 s"),
        ("google/broken", "hub_unreachable", "500"),
        ("timm/loop", "hub_unreachable", "redirects"),
        ("facebook/any", "hub_not_allowed", "--hub-owners"),
    ] {
        let response = service
            .post("/v1/base_models", &json!({ "hub": name }))
            .await;
        let message = response.error(422, code);
        assert!(message.contains(words), "{name}: {message}");
    }
    assert!(
        hub.received()
            .iter()
            .all(|one| !one.path.contains("facebook"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_is_asked_only_where_the_operator_allows() {
    let (hub, _store) = hub(lite0()).await;
    let endpoint = endpoint(&hub);
    let allowed = ["--download-hosts", "*:*", "--private-hosts", "127.0.0.1:*"];
    for (arguments, words) in [
        (vec!["--hub-endpoint", &endpoint], "--download-hosts"),
        (
            [
                &allowed[..],
                &["--hub-endpoint", &endpoint, "--hub-offline"],
            ]
            .concat(),
            "turned off",
        ),
        (
            vec!["--download-hosts", "*:*", "--hub-endpoint", &endpoint],
            "public address",
        ),
    ] {
        let service = Service::start_with(&arguments).await;
        let body = json!({"hub": "timm/lite0"});
        let message = service
            .post("/v1/base_models", &body)
            .await
            .error(422, "hub_not_allowed");
        assert!(message.contains(words), "{message}");
    }
    assert!(hub.received().is_empty());
}
