//! Whatever a user gets wrong is answered with a status, a code and a sentence, and leaves nothing
//! behind.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    data::{clipart_subset, files_below, files_of_work, lite0_weights, zip},
    process::eventually,
    service::Service,
};

/// Uploads a data set that must be refused; gives the file's `status_details`.
async fn refused(service: &Service, bytes: Vec<u8>, code: &str) -> String {
    let file = service.dataset(bytes).await;
    assert_eq!(file["status"], "error", "{file}");
    let report = service
        .get(&format!(
            "/v1/files/{}/report",
            file["id"].as_str().unwrap()
        ))
        .await
        .ok();
    let codes: Vec<&str> = report["errors"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["code"].as_str())
        .collect();
    assert!(codes.contains(&code), "not `{code}`: {report}");
    let details = file["status_details"].as_str().unwrap().to_owned();
    assert!(details.len() > 10, "{file}");
    let deleted = service
        .delete(&format!("/v1/files/{}", file["id"].as_str().unwrap()))
        .await
        .ok();
    assert_eq!(deleted["deleted"], true);
    details
}

/// A real image.
fn image() -> Vec<u8> {
    let mut archive =
        zip::ZipArchive::new(std::io::Cursor::new(clipart_subset(&["food"], 1))).unwrap();
    let mut bytes = Vec::new();
    std::io::copy(&mut archive.by_index(0).unwrap(), &mut bytes).unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_archives_are_refused_with_a_reason() {
    let service = Service::start().await;
    let _worker = service.worker(
        "worker",
        &["--max-entries", "200", "--max-unpacked-bytes", "50000000"],
    );
    let image = image();
    let good = |name: &str| (name.to_owned(), image.clone());

    refused(&service, b"this is no archive".to_vec(), "not_an_archive").await;
    for path in [
        "../../outside.png",
        "/tmp/outside.png",
        "a/..\\..\\outside.png",
    ] {
        refused(
            &service,
            zip(&[good("cats/1.png"), good(path)]),
            "unsafe_path",
        )
        .await;
    }
    refused(&service, symlink_tar(), "unsafe_entry").await;
    let bomb = vec![0_u8; 60_000_000];
    refused(
        &service,
        zip(&[good("cats/1.png"), ("dogs/1.png".to_owned(), bomb)]),
        "archive_ratio",
    )
    .await;
    let many: Vec<(String, Vec<u8>)> = (0..201)
        .map(|i| (format!("cats/{i}.png"), vec![]))
        .collect();
    refused(&service, zip(&many), "archive_too_large").await;
    let corrupt = |name: &str| (name.to_owned(), b"\x89PNG\r\n\x1a\nnot really".to_vec());
    refused(
        &service,
        zip(&[
            good("cats/1.png"),
            good("cats/2.png"),
            corrupt("dogs/1.png"),
        ]),
        "empty_class",
    )
    .await;
    refused(
        &service,
        zip(&[good("cats/1.png"), good("cats/2.png")]),
        "one_class",
    )
    .await;
    refused(
        &service,
        zip(&[corrupt("cats/1.png"), corrupt("dogs/1.png")]),
        "no_usable_images",
    )
    .await;

    assert!(!std::path::Path::new("/tmp/outside.png").exists());
    assert_eq!(service.get("/v1/files").await.ok()["data"], json!([]));
    // Nothing of any upload is left in the store or in the worker's folder.
    let left: Vec<_> = files_below(&service.objects());
    assert_eq!(left, Vec::<String>::new());
    // There it goes after the answer.
    eventually(Duration::from_secs(10), "empty work folder", || {
        files_of_work(&service.dir.path().join("worker"))
            .is_empty()
            .then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn one_corrupt_image_of_many_is_reported_and_left_out() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    let subset = clipart_subset(&["animals", "food"], 20);
    let mut archive = zip::ZipWriter::new_append(std::io::Cursor::new(subset)).unwrap();
    archive
        .start_file("food/broken.png", zip::write::SimpleFileOptions::default())
        .unwrap();
    std::io::Write::write_all(&mut archive, b"\x89PNG\r\n\x1a\nnot really").unwrap();
    let file = service
        .dataset(archive.finish().unwrap().into_inner())
        .await;
    assert_eq!(file["status"], "processed", "{file}");
    assert_eq!(file["dataset"]["unusable"], 1);
    let report = service
        .get(&format!(
            "/v1/files/{}/report",
            file["id"].as_str().unwrap()
        ))
        .await
        .ok();
    let warned = report["warnings"].as_array().unwrap();
    assert!(
        warned.iter().any(|one| one["path"] == "food/broken.png"),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_jobs_are_refused_before_anything_runs() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    service.lite0().await;
    let file = service
        .dataset(clipart_subset(&["animals", "food"], 6))
        .await;
    let submit = async |body: Value| service.post("/v1/fine_tuning/jobs", &body).await;
    let with = |transfer: Value| json!({"model": "efficientnet_lite0", "training_file": file["id"], "method": {"type": "transfer", "transfer": transfer}});

    submit(json!({"model": "efficientnet_lite1", "training_file": file["id"]}))
        .await
        .error(422, "unknown_model");
    submit(json!({"model": "efficientnet_lite0", "training_file": "file-00000000000000000000000000000000"}))
        .await
        .error(422, "unknown_file");
    let message = submit(with(json!({"hyperparameters": {"n_epohcs": 3}})))
        .await
        .error(422, "unknown_field");
    assert!(message.contains("n_epochs"), "{message}");
    for epochs in [json!(0), json!(-1), json!(1e9)] {
        let message = submit(with(json!({"hyperparameters": {"n_epochs": epochs}})))
            .await
            .error(422, "out_of_range");
        assert!(message.contains("n_epochs"), "{message}");
    }
    submit(with(json!({"hyperparameters": {"learning_rate": "NaN"}})))
        .await
        .error(422, "wrong_type");
    let message = submit(with(json!({"freeze": {"blocks": ["blocks.9"]}})))
        .await
        .error(422, "unknown_layer");
    assert!(message.contains("blocks."), "{message}");
    submit(with(json!({"freeze": {"all_but_last_stages": 99}})))
        .await
        .error(422, "out_of_range");
    // Whether or not its values are within their bounds, what a request names is looked up.
    for option in [json!({"batch_size": 4096}), json!({"n_epochs": 0})] {
        let both = submit(with(
            json!({"freeze": {"blocks": ["x"]}, "hyperparameters": option}),
        ))
        .await;
        assert_eq!(
            both.json()["error"]["details"].as_array().unwrap().len(),
            2,
            "{}",
            both.text()
        );
    }
    let raw = |body: &'static str| {
        service.send(Method::POST, "/v1/fine_tuning/jobs", move |request| {
            request
                .header("content-type", "application/json")
                .body(body)
        })
    };
    raw("{").await.error(400, "invalid_json");
    raw("[]").await.error(422, "wrong_type");

    assert_eq!(
        service.get("/v1/fine_tuning/jobs").await.ok()["data"],
        json!([])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_weights_are_refused_by_name_and_run_nothing() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    let register = async |name: &str, bytes: Vec<u8>| {
        let file = service.upload(name, "weights", bytes).await.ok();
        let body = json!({"id": "mine", "architecture": "tf_efficientnet_lite0", "weights": {"file": file["id"]}});
        let answer = service.post("/v1/base_models", &body).await;
        service
            .delete(&format!("/v1/files/{}", file["id"].as_str().unwrap()))
            .await
            .ok();
        answer
    };

    // posix.system("touch /tmp/rehead-pwned") as a protocol-2 pickle.
    let marker = std::path::Path::new("/tmp/rehead-pwned");
    let hostile =
        b"\x80\x02cposix\nsystem\nX\x17\x00\x00\x00touch /tmp/rehead-pwned\x85R.".to_vec();
    let message = register("hostile.pth", hostile.clone())
        .await
        .error(422, "unsupported_format");
    register("hostile.safetensors", hostile)
        .await
        .error(422, "unsupported_format");
    assert!(!marker.exists(), "the pickle ran: {message}");

    let header = br#"{"conv_stem.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    let mut safetensors = (header.len() as u64).to_le_bytes().to_vec();
    safetensors.extend(header);
    safetensors.extend([0_u8; 16]);
    let message = register("wrong.safetensors", safetensors)
        .await
        .error(422, "misshapen_tensor");
    assert!(message.contains("conv_stem.weight"), "{message}");

    let mut cut = lite0_weights();
    cut.truncate(cut.len() / 2);
    register("cut.pth", cut)
        .await
        .error(422, "unsupported_format");

    let file = service
        .upload("lite0.pth", "weights", lite0_weights())
        .await
        .ok();
    let body = json!({"id": "mine", "architecture": "efficientnet_lite0", "weights": {"file": file["id"]}});
    let message = service
        .post("/v1/base_models", &body)
        .await
        .error(422, "unknown_architecture");
    assert!(message.contains("tf_efficientnet_lite0"), "{message}");

    assert_eq!(service.get("/v1/models").await.ok()["data"], json!([]));
}

/// A tar archive whose second entry is reached through a symbolic link of the first.
fn symlink_tar() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "cats", "/tmp").unwrap();
    let image = image();
    let mut file = tar::Header::new_gnu();
    file.set_size(image.len() as u64);
    file.set_mode(0o644);
    builder
        .append_data(&mut file, "cats/outside.png", image.as_slice())
        .unwrap();
    builder.into_inner().unwrap()
}

/// A learning rate that is too large.
#[tokio::test(flavor = "multi_thread")]
async fn trap_26_a_job_that_diverges_fails_at_that_step() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    service.lite0().await;
    let file = service
        .dataset(clipart_subset(&["animals", "food"], 12))
        .await;
    let job = service
        .job(
            &file,
            &json!({
                "freeze": "all", "head": {"init": "normal"}, "checkpoint_every_seconds": 1,
                "hyperparameters": {
                    "n_epochs": 200, "batch_size": 8, "optimizer": "sgd", "schedule": "constant",
                    "learning_rate": 100, "weight_decay": 10, "gradient_clip": 1,
                },
            }),
        )
        .await;
    let job = service.ended(&job).await;
    assert_eq!(
        (&job["status"], &job["error"]["code"]),
        (&json!("failed"), &json!("diverged")),
        "{job}"
    );
    assert_eq!(
        job["attempts"].as_array().unwrap().len(),
        1,
        "no other try helps: {job}"
    );
    let message = job["error"]["message"].as_str().unwrap();
    assert!(message.contains("learning_rate"), "{message}");

    // Every number in the answers is one: NaN has no JSON.
    let metrics = service.part(&job, "/metrics").await;
    let losses = metrics["columns"]["train_loss"].as_array().unwrap();
    let (last, before) = losses.split_last().unwrap();
    assert!(
        before.len() > 1 && before.iter().all(Value::is_number),
        "{losses:?}"
    );
    assert!(last.is_null() || last.is_number(), "{last}");
    assert!(
        message.contains(&format!("step {}", losses.len())),
        "{message} after {} losses",
        losses.len()
    );
}
