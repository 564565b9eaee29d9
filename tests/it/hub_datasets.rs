//! Data sets by a hub's names: a local hub with the routes of Hugging Face's, from which a worker
//! downloads Parquet files, archives and images; and repositories that give no data set.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex},
};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use rehead_test_support::parquet::{self, class_label, labelled};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    cli::said,
    support::{
        data::{clipart_subset, unzip},
        process::Process,
        receiver::{Received, Receiver, Sending, file, hub_refusal},
        service::{Answer, Service},
    },
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const CLASSES: [&str; 2] = ["animals", "food"];
/// Images of each class.
const COUNT: usize = 6;

/// Files by path.
type Files = BTreeMap<String, Bytes>;

fn files<const N: usize>(files: [(&str, Vec<u8>); N]) -> Files {
    let files = files.into_iter();
    files
        .map(|(name, content)| (name.to_owned(), content.into()))
        .collect()
}

/// The demo's images of two classes, with the number of the class.
fn images() -> Vec<(Vec<u8>, i64)> {
    let images = unzip(&clipart_subset(&CLASSES, COUNT)).into_iter();
    let label = |path: &str| {
        CLASSES
            .iter()
            .position(|class| path.contains(class))
            .unwrap()
    };
    let images = images.filter(|(path, _)| !path.ends_with('/'));
    images
        .map(|(path, bytes)| (bytes, label(&path) as i64))
        .collect()
}

/// A Parquet file of those images whose number leaves one of `rests` when divided by 6.
fn shard(images: &[(Vec<u8>, i64)], rests: Range<usize>) -> Vec<u8> {
    let chosen = images.iter().enumerate();
    let chosen = chosen.filter(|(number, _)| rests.contains(&(number % 6)));
    let rows: Vec<(&[u8], i64)> = chosen
        .map(|(_, (bytes, label))| (&bytes[..], *label))
        .collect();
    let groups: Vec<parquet::Columns<'_>> = rows.chunks(2).map(labelled).collect();
    parquet::file(Some(class_label(&CLASSES)), &groups)
}

/// Two files for training, one for testing, and others beside them.
fn pets() -> Files {
    let images = images();
    files([
        ("README.md", b"---\nlicense: mit\n---\n# Pets\n".to_vec()),
        ("data/train-00000-of-00002.parquet", shard(&images, 0..2)),
        ("data/train-00001-of-00002.parquet", shard(&images, 2..4)),
        ("data/test-00000-of-00001.parquet", shard(&images, 4..6)),
        ("data/unlabelled.txt", b"nothing".to_vec()),
    ])
}

fn is_large(name: &str) -> bool {
    [".parquet", ".zip"].iter().any(|end| name.ends_with(end))
}

/// The hub's description of a repository.
fn description(files: &Files, card: &Value) -> Response {
    let siblings = files.iter().map(|(name, content)| {
        let mut sibling = json!({"rfilename": name, "size": content.len()});
        if is_large(name) {
            let sha256 = hex::encode(Sha256::digest(content));
            sibling["lfs"] = json!({"sha256": sha256, "size": content.len(), "pointerSize": 130});
        }
        sibling
    });
    let siblings = siblings.collect::<Vec<_>>();
    let body = json!({"id": "org/pets", "sha": COMMIT, "siblings": siblings, "cardData": card});
    Response::new(Body::from(body.to_string()))
}

/// A hub with the data set `org/pets` at a revision, and nothing at `main` otherwise; the first
/// answer for each large file breaks off in the middle.
async fn hub(revision: &'static str, files: Files, card: Value) -> Receiver {
    let cut: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let answer = move |request: &Received, _: usize| {
        let description_path = format!("/api/datasets/org/pets/revision/{revision}?blobs=true");
        let resolve = format!("/datasets/org/pets/resolve/{COMMIT}/");
        let path = request.path.as_str();
        if path == description_path {
            return Some(description(&files, &card));
        }
        if path == "/api/datasets/org/pets/revision/main?blobs=true" {
            return Some(description(&Files::new(), &card));
        }
        if path.contains("/gated/") {
            return hub_refusal(403, "GatedRepo");
        }
        let Some(name) = path.strip_prefix(&resolve) else {
            return hub_refusal(404, "RepoNotFound");
        };
        let Some(content) = files.get(&name.replace("%20", " ")) else {
            return hub_refusal(404, "EntryNotFound");
        };
        let is_first = is_large(name) && cut.lock().unwrap().insert(name.to_owned());
        let how = Sending {
            cut: is_first.then_some(content.len() / 2),
            ..Sending::default()
        };
        Some(file(
            request,
            content,
            &format!("\"{}\"", content.len()),
            how,
        ))
    };
    Receiver::start(answer).await
}

fn arguments(endpoint: &str) -> [&str; 6] {
    [
        "--download-hosts",
        "*:*",
        "--private-hosts",
        "127.0.0.1:*",
        "--hub-endpoint",
        endpoint,
    ]
}

/// A service and a worker that use the hub.
async fn service(hub: &Receiver, further: &[&str]) -> (Service, Process) {
    let endpoint = format!("http://127.0.0.1:{}", hub.port);
    let all = [&arguments(&endpoint)[..], further].concat();
    let service = Service::start_with(&all).await;
    let worker = service.worker("worker", &all);
    (service, worker)
}

/// The file of an answer once it is validated, with its report.
async fn processed(service: &Service, answer: Answer) -> (Value, Value) {
    let file = answer.ok();
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    let file = service
        .get(&format!("{path}?wait=60&until=processed"))
        .await
        .ok();
    assert_eq!(file["status"], "processed", "{file}");
    let report = service.get(&format!("{path}/report")).await.ok();
    (file, report)
}

/// Samples by split.
fn counts(report: &Value) -> BTreeMap<String, u64> {
    let splits = report["dataset"]["splits"].as_object().unwrap().iter();
    splits
        .map(|(name, samples)| (name.clone(), samples.as_u64().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_set_of_a_hub_is_validated_as_an_upload_is() {
    let hub = hub("main", pets(), json!({"license": "mit"})).await;
    let (service, worker) = service(&hub, &[]).await;
    let body = json!({"hub": "org/pets"});
    let answer = service.post("/v1/files", &body).await;
    let (file, report) = processed(&service, answer).await;
    assert_eq!(file["filename"], "pets.tar", "{}", worker.log());
    let classes = report["dataset"]["classes"].as_array().unwrap();
    let names: Vec<&Value> = classes.iter().map(|class| &class["name"]).collect();
    assert_eq!(names, CLASSES);
    let whole = counts(&report);
    assert_eq!(
        whole.values().sum::<u64>(),
        (CLASSES.len() * COUNT) as u64,
        "{report}"
    );
    assert_eq!(whole["test"], 4, "{report}");
    // Connections broke off in each of the three files.
    let received = hub.received().into_iter();
    let resumed = received.filter(|one| one.headers.contains_key("range"));
    assert!(resumed.count() >= 3);

    // One split, by the command line.
    let command = [
        "upload",
        "--url",
        &service.url,
        "hf://datasets/org/pets@main",
        "--split",
        "test",
        "--wait",
        "--json",
    ];
    let file: Value = serde_json::from_str(&said(service.dir.path(), &command)).unwrap();
    assert_eq!(file["status"], "processed");
    assert_eq!(file["filename"], "test-00000-of-00001.parquet");
    let path = format!("/v1/files/{}/report", file["id"].as_str().unwrap());
    let report = service.get(&path).await.ok();
    assert_eq!(counts(&report).values().sum::<u64>(), 4, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_images_and_converted_files_of_a_hub_are_data_sets() {
    let images = images();
    let folders = images.iter().enumerate().map(|(number, (bytes, label))| {
        let class = CLASSES[*label as usize];
        (
            format!("{class}/an image {number}.png"),
            Bytes::from(bytes.clone()),
        )
    });
    let archive = files([("x/pets.zip", clipart_subset(&CLASSES, COUNT))]);
    let convert = "refs%2Fconvert%2Fparquet";
    let converted = files([
        ("default/train/0000.parquet", shard(&images, 0..4)),
        ("default/test/0000.parquet", shard(&images, 4..6)),
    ]);
    for (revision, files, name) in [
        ("main", archive, "pets.zip"),
        ("main", folders.collect(), "pets.tar"),
        (convert, converted, "pets.tar"),
    ] {
        let hub = hub(revision, files, Value::Null).await;
        let (service, _worker) = service(&hub, &[]).await;
        let answer = service.post("/v1/files", &json!({"hub": "org/pets"})).await;
        let (file, report) = processed(&service, answer).await;
        assert_eq!(file["filename"], name);
        assert_eq!(
            counts(&report).values().sum::<u64>(),
            (CLASSES.len() * COUNT) as u64
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_that_give_no_data_set_say_why() {
    let hub = hub("main", pets(), Value::Null).await;
    let (service, _worker) = service(&hub, &["--hub-owners", "org", "--hub-max-files", "2"]).await;
    for (body, code, words) in [
        (
            json!({"hub": "org/pets"}),
            "unfit_repository",
            "3 files in these splits, of which at most 2",
        ),
        (
            json!({"hub": "org/pets", "split": "extra"}),
            "unfit_repository",
            "has no split `extra`",
        ),
        (
            json!({"hub": "org/pets", "config": "x"}),
            "unfit_repository",
            "has no configuration `x`",
        ),
        (
            json!({"hub": "org/none"}),
            "unknown_repository",
            "does not exist",
        ),
        (json!({"hub": "org/gated"}), "unknown_repository", "gated"),
        (
            json!({"hub": "else/pets"}),
            "hub_not_allowed",
            "--hub-owners",
        ),
        (
            json!({"hub": "pets"}),
            "invalid_value",
            "an owner and a name",
        ),
        (
            json!({"hub": "org/pets", "purpose": "weights"}),
            "invalid_value",
            "fine-tune",
        ),
        (
            json!({"hub": "org/pets", "url": "https://a.example"}),
            "unknown_field",
            "",
        ),
    ] {
        let message = service.post("/v1/files", &body).await.error(422, code);
        assert!(message.contains(words), "{body}: {message}");
    }
    let files = service.get("/v1/files").await.ok();
    assert_eq!(files["data"], json!([]));
    let body = json!({"hub": "org/pets", "split": "train"});
    let two = service.post("/v1/files", &body).await;
    let (_, report) = processed(&service, two).await;
    assert_eq!(counts(&report).values().sum::<u64>(), 8);
}

/// A data set in the cache needs no hub.
#[tokio::test(flavor = "multi_thread")]
async fn a_cached_data_set_is_taken_without_the_hub() {
    let hub = hub("main", pets(), Value::Null).await;
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().to_str().unwrap();
    let (online, _worker) = service(&hub, &["--hub-cache", folder]).await;
    let body = json!({"hub": "org/pets"});
    let (first, _) = processed(&online, online.post("/v1/files", &body).await).await;
    let asked = hub.received().len();
    let snapshot = cache
        .path()
        .join("datasets--org--pets/snapshots")
        .join(COMMIT);
    assert!(snapshot.join("data/train-00001-of-00002.parquet").is_file());
    let (offline, _worker) = service(&hub, &["--hub-cache", folder, "--hub-offline"]).await;
    let (second, _) = processed(&offline, offline.post("/v1/files", &body).await).await;
    assert_eq!(first["sha256"], second["sha256"]);
    assert_eq!(hub.received().len(), asked);
    let other = offline.post("/v1/files", &json!({"hub": "org/none"})).await;
    other.error(422, "hub_not_allowed");
}
