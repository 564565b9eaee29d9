//! A disk that alters, cuts off, swaps or loses objects: whoever needs one says which it is, and
//! nobody computes with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rehead::domain::export::NetworkFormat;
use reqwest::{Method, header::RANGE};
use serde_json::{Value, json};

use crate::support::{
    attempts::{QUICK, material, outcomes, uuid},
    data::{clipart_subset, lite0_weights, unzip},
    service::{Service, job_body},
};

/// How an object is damaged.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// One bit in the middle.
    Bit,
    CutOff,
    /// Another of the same size.
    Swapped,
    Lost,
}

const ALL: [Damage; 4] = [Damage::Bit, Damage::CutOff, Damage::Swapped, Damage::Lost];

fn damage(path: &Path, damage: Damage) {
    let mut bytes = fs::read(path).unwrap();
    match damage {
        Damage::Bit => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        Damage::CutOff => bytes.truncate(bytes.len() / 2),
        Damage::Swapped => bytes.reverse(),
        Damage::Lost => return fs::remove_file(path).unwrap(),
    }
    // In place, as a disk does it.
    fs::write(path, bytes).unwrap();
}

/// A damaged file, which is restored when this is dropped.
struct Damaged {
    path: PathBuf,
    whole: Vec<u8>,
}

impl Damaged {
    fn new(path: &Path, how: Damage) -> Self {
        let whole = fs::read(path).unwrap();
        damage(path, how);
        Self {
            path: path.to_owned(),
            whole,
        }
    }
}

impl Drop for Damaged {
    fn drop(&mut self) {
        fs::write(&self.path, &self.whole).unwrap();
    }
}

/// The only file below a folder of objects with this name.
fn object(folder: &Path, name: &str) -> PathBuf {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with(name) {
                found.push(path);
            }
        }
    }
    let [only] = &found[..] else {
        panic!("{name} in {}: {found:?}", folder.display());
    };
    only.clone()
}

/// The message of an answer that names the damaged object, and no path of the server.
#[track_caller]
fn names(service: &Service, answer: crate::support::service::Answer, object: [&str; 2]) {
    assert_eq!(answer.headers["x-should-retry"], "false");
    let error = answer.error(500, "object_damaged");
    assert!(object.iter().all(|part| error.contains(part)), "{error}");
    let store = service.objects();
    assert!(!error.contains(store.to_str().unwrap()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_results_are_named_and_never_served() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &QUICK);
    let file = material(&service).await;
    let transfer = json!({"head": {"init": "zero"}, "hyperparameters": {"n_epochs": 2}});
    let job = service.ended(&service.job(&file, &transfer).await).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    let model = job["fine_tuned_model"].as_str().unwrap();
    let image = unzip(&clipart_subset(&["animals"], 1));
    let image = image.into_values().next().unwrap();

    let bundle = service
        .objects()
        .join("bundles")
        .join(uuid(&job).replace('-', ""));
    let export = format!("/v1/models/{model}/export");
    let predict = format!("/v1/models/{model}/predict");
    for damage in ALL {
        for name in ["model.safetensors", "labels.json"] {
            let _damaged = Damaged::new(&object(&bundle, name), damage);
            names(&service, service.get(&export).await, [name, model]);
            for format in NetworkFormat::ALL {
                let file = service.get(&format!("{export}?format={format}")).await;
                names(&service, file, [name, model]);
            }
            let answer = service
                .send(Method::POST, &predict, |request| {
                    request.multipart(form(&image))
                })
                .await;
            names(&service, answer, [name, model]);
        }
    }
    // What is restored serves again; what was fetched does not change with the object.
    unzip(&service.get(&export).await.body);
    let label = service.predict(model, image.clone()).await;
    {
        let weights = object(&bundle, "model.safetensors");
        let mut negated = fs::read(&weights).unwrap();
        let end = negated.len();
        for byte in negated[end - 4096..].iter_mut().skip(3).step_by(4) {
            *byte ^= 0x80;
        }
        let _damaged = Damaged::new(&weights, Damage::Bit);
        fs::write(&weights, negated).unwrap();
        assert_eq!(service.predict(model, image.clone()).await, label);
    }

    // A file of another format is made again.
    for format in NetworkFormat::ALL {
        let path = format!("{export}?format={format}");
        let file = service.get(&path).await;
        assert_eq!(file.status, 200);
        let stored = object(&service.objects().join("scripts"), &format.file_name());
        for how in ALL {
            damage(&stored, how);
            let again = service.get(&path).await;
            assert_eq!(again.status, 200, "{}", again.text());
            assert_eq!(again.body.len(), file.body.len());
        }
    }

    let checkpoints = service.part(&job, "/checkpoints").await;
    let checkpoint = checkpoints["data"][0]["id"].as_str().unwrap();
    let step = checkpoints["data"][0]["step_number"].as_u64().unwrap();
    let folder = service.objects().join("checkpoints");
    let folder = folder
        .join(uuid(&job).replace('-', ""))
        .join(format!("{step}-1"));
    let content = format!("/v1/fine_tuning/checkpoints/{checkpoint}/content");
    for damage in ALL {
        for name in ["model.safetensors", "manifest.json"] {
            let _damaged = Damaged::new(&object(&folder, name), damage);
            names(&service, service.get(&content).await, [name, checkpoint]);
        }
    }
    assert_eq!(service.get(&content).await.status, 200);
}

fn form(image: &[u8]) -> reqwest::multipart::Form {
    let part = reqwest::multipart::Part::bytes(image.to_vec()).file_name("image.png");
    reqwest::multipart::Form::new().part("image", part)
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_uploads_are_named_and_never_read() {
    let service = Service::start().await;
    let zip = clipart_subset(&["animals", "food"], 4);
    let file = service
        .upload("data.zip", "fine-tune", zip.clone())
        .await
        .ok();
    let id = file["id"].as_str().unwrap();
    let folder = service.objects().join("files").join(hex(&file));
    let content = format!("/v1/files/{id}/content");
    assert_eq!(service.get(&content).await.body, zip);
    for damage in ALL {
        let _damaged = Damaged::new(&folder.join("content"), damage);
        names(&service, service.get(&content).await, ["content", id]);
        let part = service
            .send(Method::GET, &content, |request| {
                request.header(RANGE, "bytes=0-9")
            })
            .await;
        names(&service, part, ["content", id]);
    }
    assert_eq!(service.get(&content).await.body, zip);

    // Not one of three crashes, but the reason at once.
    let weights = service
        .upload("w.pth", "weights", lite0_weights())
        .await
        .ok();
    let weights_content = service
        .objects()
        .join("files")
        .join(hex(&weights))
        .join("content");
    let _weights = Damaged::new(&weights_content, Damage::Bit);
    let _data = Damaged::new(&folder.join("content"), Damage::CutOff);
    let _worker = service.worker("worker", &QUICK);
    let ended = service
        .get(&format!("/v1/files/{id}?wait=60&until=processed"))
        .await
        .ok();
    assert_eq!(ended["status"], "error", "{ended}");
    let report = service.get(&format!("/v1/files/{id}/report")).await.ok();
    assert_eq!(report["errors"][0]["code"], "object_damaged", "{report}");
    let body = json!({
        "id": "base", "architecture": "tf_efficientnet_lite0", "weights": {"file": weights["id"]},
    });
    let refused = service.post("/v1/base_models", &body).await;
    names(
        &service,
        refused,
        ["content", weights["id"].as_str().unwrap()],
    );
}

fn hex(file: &Value) -> String {
    let id = file["id"].as_str().unwrap().trim_start_matches("file-");
    id.replace('-', "")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_a_damaged_input_fails_at_once() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &QUICK);
    let file = material(&service).await;
    let transfer = json!({"head": {"init": "zero"}, "hyperparameters": {"n_epochs": 1}});
    let first = service.ended(&service.job(&file, &transfer).await).await;
    assert_eq!(first["status"], "succeeded", "{first}");
    let model = first["fine_tuned_model"].as_str().unwrap();
    let checkpoints = service.part(&first, "/checkpoints").await;
    let checkpoint = checkpoints["data"][0]["id"].as_str().unwrap();
    let step = checkpoints["data"][0]["step_number"].as_u64().unwrap();

    let cache = service.dir.path().join("worker/cache");
    let store = service.objects();
    let job = uuid(&first).replace('-', "");
    let saved = store
        .join("checkpoints")
        .join(&job)
        .join(format!("{step}-1"));
    let pack = store
        .join("files")
        .join(hex(&file))
        .join("pack.safetensors");
    let base = object(&store.join("models"), "model.safetensors");
    let bundle = object(&store.join("bundles").join(&job), "model.safetensors");
    for (path, damage, start, named) in [
        (
            pack,
            Damage::Bit,
            "efficientnet_lite0",
            file["id"].as_str().unwrap(),
        ),
        (
            base,
            Damage::Swapped,
            "efficientnet_lite0",
            "efficientnet_lite0",
        ),
        (bundle, Damage::CutOff, model, model),
        (
            object(&saved, "model.safetensors"),
            Damage::Bit,
            checkpoint,
            checkpoint,
        ),
        (
            object(&saved, "manifest.json"),
            Damage::Lost,
            checkpoint,
            checkpoint,
        ),
    ] {
        let damaged = Damaged::new(&path, damage);
        // What is cached is checked for itself, and needs no object.
        fs::remove_dir_all(&cache).unwrap();
        // What goes on from a model keeps its head.
        let mut transfer = transfer.clone();
        if start != "efficientnet_lite0" {
            transfer.as_object_mut().unwrap().remove("head");
        }
        let body = job_body(start, &file, &transfer);
        let job = service.post("/v1/fine_tuning/jobs", &body).await.ok();
        let job = service.ended(&job).await;
        assert_eq!(job["status"], "failed", "{}: {job}", path.display());
        assert_eq!(job["error"]["code"], "object_damaged", "{job}");
        assert_eq!(outcomes(&job), ["failed"], "it is not tried again: {job}");
        let message = job["error"]["message"].as_str().unwrap();
        assert!(message.contains(named), "{message}");
        assert!(!message.contains('/') || named.contains('/'), "{message}");
        drop(damaged);
    }
    let again = service.ended(&service.job(&file, &transfer).await).await;
    assert_eq!(again["status"], "succeeded", "{again}");
}
