//! Base models by a hub's names: a local hub with the routes of Hugging Face's, from which a worker
//! downloads real weights; and repositories that give no model.

use std::{collections::BTreeMap, fs, time::Duration};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use rehead_test_support::weights;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{
    data::{files_below, lite0_weights},
    process::Process,
    receiver::{Received, Receiver, Sending, file, hub_refusal, redirect, status},
    service::Service,
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_of_the_operator";

/// A repository: its files, and the hub's word on them.
#[derive(Clone, Default)]
struct Repository {
    files: BTreeMap<String, Bytes>,
    /// Hashes that the hub tells of large files, where they are not those of the content.
    wrong: BTreeMap<String, String>,
    /// Connections that break off within each large file.
    cuts: usize,
}

impl Repository {
    fn with(mut self, name: &str, content: impl Into<Bytes>) -> Self {
        self.files.insert(name.to_owned(), content.into());
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.files.remove(name);
        self
    }

    fn sibling(&self, name: &str, content: &Bytes) -> Value {
        let mut sibling = json!({"rfilename": name, "size": content.len()});
        if [".bin", ".safetensors"]
            .iter()
            .any(|end| name.ends_with(end))
        {
            let sha256 = self.wrong.get(name).cloned();
            let sha256 = sha256.unwrap_or_else(|| hex::encode(Sha256::digest(content)));
            sibling["lfs"] = json!({"sha256": sha256, "size": content.len(), "pointerSize": 130});
        }
        sibling
    }
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
    Repository::default()
        .with("README.md", "# lite0")
        .with("config.json", config.to_string())
        .with("pytorch_model.bin", lite0_weights())
}

/// A Vision Transformer whose weights are in three files, and the whole of them.
fn in_shards() -> (Repository, Vec<u8>) {
    let shapes = weights::vit_tiny(224);
    let config = json!({"architecture": "vit_tiny_patch16_224", "num_classes": 0});
    let mut repository = Repository::default().with("config.json", config.to_string());
    let mut map = serde_json::Map::new();
    let size = shapes.len().div_ceil(3);
    for (index, shard) in shapes.chunks(size).enumerate() {
        let name = format!("model-{:05}-of-00003.safetensors", index + 1);
        let bytes = weights::safetensors(&shard.to_vec(), weights::by_rules);
        map.extend(
            shard
                .iter()
                .map(|(tensor, _)| (tensor.clone(), json!(name))),
        );
        repository = repository.with(&name, bytes);
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    let repository = repository.with(INDEX, index.to_string());
    (repository, weights::safetensors(&shapes, weights::by_rules))
}

const INDEX: &str = "model.safetensors.index.json";

fn of_json(value: &Value) -> Option<Response> {
    Some(Response::new(Body::from(value.to_string())))
}

/// Answers for one repository, `timm/lite0`, whose files another server has.
fn answer(repository: &Repository, store: u16, request: &Received) -> Option<Response> {
    let files = repository.files.iter();
    let siblings: Vec<Value> = files
        .map(|(name, content)| repository.sibling(name, content))
        .collect();
    let resolve = format!("/timm/lite0/resolve/{COMMIT}/");
    let path = request.path.as_str();
    match path {
        "/api/models/timm/lite0/revision/main?blobs=true"
        | "/api/models/timm/lite0/revision/v1%2E0?blobs=true" => of_json(&json!({
            "id": "timm/lite0", "sha": COMMIT, "siblings": siblings, "gated": false,
            "cardData": {"license": "apache-2.0"}
        })),
        _ if path.starts_with("/api/") => hub_refusal(404, "RevisionNotFound"),
        _ if path.starts_with(&resolve) => {
            let file = &path[resolve.len()..];
            redirect(302, &format!("http://127.0.0.1:{store}/{file}"))
        }
        _ => hub_refusal(404, "EntryNotFound"),
    }
}

/// A hub, and the server that has its files.
async fn hub(repository: Repository) -> (Receiver, Receiver) {
    let kept = repository.clone();
    let store = Receiver::start(move |request, before| {
        let Some(content) = kept.files.get(&request.path[1..]) else {
            return hub_refusal(404, "EntryNotFound");
        };
        let is_large = content.len() > 100_000;
        let cut = (is_large && before % (kept.cuts + 1) < kept.cuts).then_some(1_000_000);
        let how = Sending {
            cut,
            ..Sending::default()
        };
        let tag = format!("\"{}\"", content.len());
        Some(file(request, content, &tag, how))
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

/// Weights in several files become one tar, over cut connections; the model is the same as of one
/// file.
#[tokio::test(flavor = "multi_thread")]
async fn weights_in_several_files_are_one_model() {
    let (mut repository, whole) = in_shards();
    repository.cuts = 1;
    let (hub, store) = hub(repository).await;
    let service = service(&hub, &[]).await;
    let worker = service.worker("a", &arguments(&endpoint(&hub)));
    let model = service
        .post("/v1/base_models", &json!({"hub": "timm/lite0"}))
        .await
        .ok();
    assert_eq!(model["status"], "ready", "{model} {}", worker.log());
    assert_eq!(model["architecture"], "vit_tiny_patch16_224");
    let files = service.get("/v1/files").await.ok();
    assert_eq!(files["data"][0]["filename"], "lite0.tar", "{files}");
    let resumed = store.received().into_iter();
    let resumed = resumed.filter(|one| one.headers.contains_key("range"));
    assert!(resumed.count() >= 3);

    // The tar itself, and one of another program, are weights that can be uploaded.
    let path = format!(
        "/v1/files/{}/content",
        files["data"][0]["id"].as_str().unwrap()
    );
    let tar = service.get(&path).await.body;
    let same = service.base_model("vit_tiny_patch16_224", tar).await;
    let body = json!({"id": "whole", "architecture": "vit_tiny_patch16_224"});
    let file = service.upload("weights", "weights", whole).await.ok();
    let mut body = body;
    body["weights"] = json!({"file": file["id"]});
    let whole = service.post("/v1/base_models", &body).await.ok();
    let converted = files_below(&service.objects());
    let converted = converted
        .iter()
        .filter(|name| name.ends_with("/model.safetensors"));
    // Converted weights lie under their hash.
    assert_eq!(converted.count(), 1, "{same} {whole}");
}

/// Shards as far as they can be had: the limit, a wrong hash, another architecture's config.
#[tokio::test(flavor = "multi_thread")]
async fn bad_shards_are_refused_in_one_sentence() {
    let (whole, _) = in_shards();
    let second = "model-00002-of-00003.safetensors";
    let mut altered = whole.clone();
    altered.wrong.insert(second.to_owned(), "0".repeat(64));
    let other = json!({"architecture": "resnet18"}).to_string();
    let index = |name: &str| json!({"weight_map": {"a": name}}).to_string();
    let many = (0..200).map(|number| (number.to_string(), json!(format!("{number}.safetensors"))));
    let many = json!({"weight_map": many.collect::<serde_json::Map<_, _>>()}).to_string();
    let cases = [
        (
            whole.clone().without(second),
            "unfit_repository",
            "lacks `model-00002-of-00003",
        ),
        (
            whole.clone().with(INDEX, many),
            "unfit_repository",
            "200 files, of which at most 100",
        ),
        (
            whole.clone().with(INDEX, index("../x")),
            "unfit_repository",
            "which is no file beside it",
        ),
        (
            whole.clone().with(INDEX, index("/etc/x")),
            "unfit_repository",
            "which is no file beside it",
        ),
        (
            altered,
            "wrong_sha256",
            "`model-00002-of-00003.safetensors` has the SHA-256",
        ),
        (
            whole.clone().with("config.json", other),
            "missing_tensor",
            "`resnet18` has `conv1.weight`",
        ),
        (
            whole.with(second, "no weights"),
            "unsupported_format",
            "`model-00002-of-00003.safetensors`: ",
        ),
    ];
    for (repository, code, words) in cases {
        let (hub, _store) = hub(repository).await;
        let service = service(&hub, &[]).await;
        let _worker = service.worker("a", &arguments(&endpoint(&hub)));
        let response = service
            .post("/v1/base_models", &json!({"hub": "timm/lite0"}))
            .await;
        let message = response.error(422, code);
        assert!(message.contains(words), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_shards_are_joined_as_the_operator_allows() {
    let (repository, _) = in_shards();
    let (hub, _store) = hub(repository).await;
    let body = json!({"hub": "timm/lite0"});
    let few = service(&hub, &["--hub-max-files", "2"]).await;
    let message = few.post("/v1/base_models", &body).await;
    let message = message.error(422, "unfit_repository");
    assert!(message.contains("3 files, of which at most 2"), "{message}");
    let enough = service(&hub, &["--hub-max-files", "3"]).await;
    let _worker = enough.worker("a", &arguments(&endpoint(&hub)));
    assert_eq!(
        enough.post("/v1/base_models", &body).await.ok()["status"],
        "ready"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_that_give_no_model_say_why() {
    let whole = lite0();
    let with = |config: &Value| whole.clone().with("config.json", config.to_string());
    let cases = [
        (
            whole.clone().without("pytorch_model.bin"),
            "neither `model.safetensors`",
        ),
        (
            with(&json!({"model_type": "bert"})),
            "is a `bert` of transformers",
        ),
        (
            with(&json!({"model_type": "vit", "hidden_size": 4})),
            "`hidden_size` 4",
        ),
        (
            with(&json!({"model_type": "vit", "auto_map": {"AutoModel": "m.M"}})),
            "never run",
        ),
        (with(&json!({"num_classes": 3})), "without `architecture`"),
        (with(&json!([1])), "not an object"),
        (whole.clone().with("config.json", "{"), "cannot be read"),
        (whole.clone().without("config.json"), "has no `config.json`"),
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
        path if path.contains("/gated") => hub_refusal(403, "GatedRepo"),
        path if path.contains("/private") => status(401),
        path if path.contains("/busy") => {
            let response = Response::builder().status(429).header("retry-after", "17");
            Some(response.body(Body::empty()).unwrap())
        }
        path if path.contains("/broken") => status(500),
        path if path.contains("/loop") => redirect(302, path),
        _ => hub_refusal(404, "RepoNotFound"),
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

/// A cache is filled by what comes of the hub, and is enough when the hub is gone, also for weights
/// in several files and where downloads are off.
#[tokio::test(flavor = "multi_thread")]
async fn the_cache_is_written_and_read_without_the_hub() {
    for repository in [
        lite0().with("README.md", "---\nlicense: mit\n---\n"),
        in_shards().0,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().to_str().unwrap();
        let (hub, store) = hub(repository.clone()).await;
        let endpoint = endpoint(&hub);
        let online = [&arguments(&endpoint)[..], &["--hub-cache", cache]].concat();
        let body = json!({"hub": "timm/lite0"});
        {
            let service = Service::start_with(&online).await;
            let _worker = service.worker("a", &online);
            let model = service.post("/v1/base_models", &body).await.ok();
            assert_eq!(model["status"], "ready", "{model}");
        }
        let of = folder.path().join("models--timm--lite0");
        assert_eq!(fs::read_to_string(of.join("refs/main")).unwrap(), COMMIT);
        let snapshot = of.join("snapshots").join(COMMIT);
        for (name, content) in &repository.files {
            let link = fs::read_link(snapshot.join(name)).unwrap();
            assert!(link.starts_with("../../blobs"), "{link:?}");
            assert_eq!(fs::read(snapshot.join(name)).unwrap(), content.to_vec());
        }
        let asked = hub.received().len() + store.received().len();
        let offline = [
            "--hub-cache",
            cache,
            "--hub-endpoint",
            &endpoint,
            "--hub-offline",
        ];
        let service = Service::start_with(&offline).await;
        let _worker = service.worker("b", &offline);
        let model = service.post("/v1/base_models", &body).await.ok();
        assert_eq!(model["status"], "ready", "{model}");
        let license = repository.files.contains_key("README.md").then_some("mit");
        assert_eq!(model["license"].as_str(), license);
        let other = service
            .post("/v1/base_models", &json!({"hub": "timm/other"}))
            .await;
        let message = other.error(422, "hub_not_allowed");
        assert!(message.contains("its cache"), "{message}");
        assert_eq!(hub.received().len() + store.received().len(), asked);

        // What the cache lacks is named, and its owner must be allowed.
        fs::remove_file(snapshot.join("config.json")).unwrap();
        let lacks = service.post("/v1/base_models", &body).await;
        let message = lacks.error(422, "unfit_repository");
        assert!(
            message.contains("no `config.json` in the hub's cache"),
            "{message}"
        );
        let owners = [&offline[..], &["--hub-owners", "google"]].concat();
        let service = Service::start_with(&owners).await;
        service
            .post("/v1/base_models", &body)
            .await
            .error(422, "hub_not_allowed");
    }
}

/// A file of the cache that is not what its name says comes of the hub again, and takes its place;
/// without the hub it is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_of_the_cache_is_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().to_str().unwrap();
    let (hub, _store) = hub(lite0()).await;
    let endpoint = endpoint(&hub);
    let online = [&arguments(&endpoint)[..], &["--hub-cache", cache]].concat();
    let offline = [&online[..], &["--hub-offline"]].concat();
    let body = json!({"hub": "timm/lite0"});
    let add = async |arguments: &[&str]| {
        let service = Service::start_with(arguments).await;
        let _worker = service.worker("a", arguments);
        service.post("/v1/base_models", &body).await
    };
    assert_eq!(add(&online).await.ok()["status"], "ready");
    let snapshot = folder
        .path()
        .join("models--timm--lite0/snapshots")
        .join(COMMIT);
    let blob = fs::canonicalize(snapshot.join("pytorch_model.bin")).unwrap();
    let whole = fs::read(&blob).unwrap();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    let shorter = whole[..whole.len() / 2].to_vec();
    for damaged in [changed, shorter] {
        fs::write(&blob, damaged).unwrap();
        add(&offline).await.error(422, "wrong_sha256");
        let model = add(&online).await.ok();
        assert_eq!(model["status"], "ready", "{model}");
        assert_eq!(fs::read(&blob).unwrap(), whole);
    }
}

/// `rehead models add FOLDER` uploads what timm or transformers saved, in one file or several.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_added_as_a_repository_is() {
    let service = Service::start().await;
    let _worker = service.worker("a", &[]);
    let folder = tempfile::tempdir().unwrap();
    let add = |name: &str| {
        let path = folder.path().join(name);
        let arguments = [
            "models",
            "add",
            path.to_str().unwrap(),
            "--json",
            "--url",
            &service.url,
        ];
        Process::rehead(name, folder.path(), &arguments)
    };
    let card = "---\nlicense: mit\n---\n";
    for (name, repository) in [("single", lite0()), ("several", in_shards().0)] {
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        for (file, content) in repository.with("README.md", card).files {
            fs::write(path.join(file), content).unwrap();
        }
        let mut process = add(name);
        assert!(
            process.wait(Duration::from_secs(60)).success(),
            "{}",
            process.log()
        );
        let model = service.get(&format!("/v1/models/{name}")).await.ok();
        assert_eq!(
            (&model["status"], &model["license"]),
            (&json!("ready"), &json!("mit"))
        );
    }
    fs::create_dir(folder.path().join("empty")).unwrap();
    let mut process = add("empty");
    assert!(!process.wait(Duration::from_secs(60)).success());
    assert!(
        process.log().contains("has no `config.json`"),
        "{}",
        process.log()
    );
}
