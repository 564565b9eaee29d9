//! The main job, as a user does it: a published network becomes a classifier of one's own classes.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    job_summaries::assert_agrees,
    support::{
        data::{clipart, clipart_subset, demo, find},
        service::{Service, job_body},
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_published_network_becomes_a_classifier_of_ones_own_classes() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    let base = service.lite0().await;
    assert_eq!(base["owned_by"], "base");
    let layers = service
        .get("/v1/models/efficientnet_lite0/layers")
        .await
        .ok();
    assert_eq!(layers["feature_dim"], 1280);

    let file = service.dataset(clipart()).await;
    assert_eq!(
        file["dataset"]["classes"].as_array().unwrap().len(),
        6,
        "{file}"
    );
    let job = service
        .job(&file, &json!({"freeze": "all", "head": {"init": "zero"}}))
        .await;
    let job = service.ended(&job).await;
    assert_eq!(job["status"], "succeeded", "{job}");

    let summaries = service.get("/v1/fine_tuning/job_summaries").await.ok();
    let summary = &summaries["data"][0];
    assert_agrees(summary, &job);
    assert!(summary.to_string().len() <= 450, "{summary}");

    let report = service.part(&job, "/report").await;
    for (found, expected) in [0, 1].map(|at| {
        let of = |interval: &Value| interval[at].as_f64().unwrap();
        (
            of(&summary["metric"]["interval"]),
            of(&report["accuracy_interval"]),
        )
    }) {
        assert!((found - expected).abs() <= 5.1e-5, "{summary} {report}");
    }
    let accuracy = report["accuracy"].as_f64().unwrap();
    assert!(accuracy >= 0.74, "{report}");
    let [low, high] = [0, 1].map(|i| report["accuracy_interval"][i].as_f64().unwrap());
    assert!(low < accuracy && accuracy < high);
    assert!(report["majority_baseline"].as_f64().unwrap() < 0.35);

    predicts_images_it_never_saw(&service, &job).await;
    keeps_its_history(&service, &job).await;
    streams_checkpoints(&service, &job).await;
    let curves = service
        .get(&format!("{}/curves.svg", service.path(&job)))
        .await;
    assert!(curves.text().starts_with("<svg"), "{}", curves.text());
}

/// The gain of a published network is in its weights: the same job on random ones learns far less.
#[tokio::test(flavor = "multi_thread")]
async fn random_weights_make_a_poor_classifier() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    service.lite0().await;
    let architecture = "tf_efficientnet_lite0";
    let weights = service.untrained_weights("efficientnet_lite0").await;
    service.base_model(architecture, weights).await;
    let file = service.dataset(clipart()).await;
    let body = job_body(architecture, &file, &json!({"freeze": "all"}));
    let job = service.post("/v1/fine_tuning/jobs", &body).await.ok();
    let job = service.ended(&job).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    let report = service.part(&job, "/report").await;
    let accuracy = report["accuracy"].as_f64().unwrap();
    let scores = &report["transferability"];
    println!("accuracy over random weights: {accuracy:.3}, {scores}");
    assert!(accuracy <= 0.50, "{report}");
}

async fn predicts_images_it_never_saw(service: &Service, job: &Value) {
    let model = job["fine_tuned_model"].as_str().unwrap();
    let mut right = 0;
    let mut asked = 0;
    for entry in std::fs::read_dir(demo().join("unseen")).unwrap() {
        let path = entry.unwrap().path();
        let class = path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .split(['-', '.'])
            .next()
            .unwrap()
            .to_owned();
        let top = service.predict(model, std::fs::read(&path).unwrap()).await;
        assert!(top["probability"].as_f64().unwrap() > 1.0 / 6.0, "{top}");
        asked += 1;
        right += u32::from(top["label"] == class.as_str());
    }
    assert!(asked == 3 && right >= 1, "{right} of {asked} right");
}

async fn keeps_its_history(service: &Service, job: &Value) {
    let events = service.part(job, "/events?limit=100").await;
    assert!(!events["data"].as_array().unwrap().is_empty());
    let metrics = service.part(job, "/metrics").await;
    let steps = metrics["columns"]["step"].as_array().unwrap();
    let losses = metrics["columns"]["train_loss"].as_array().unwrap();
    assert_eq!(steps.len(), losses.len());
    assert_eq!(steps.last(), Some(&job["progress"]["step"]));
    // A zero head's first loss is ln(6), whatever the features.
    assert!(
        (losses[0].as_f64().unwrap() - 6_f64.ln()).abs() < 1e-5,
        "{}",
        losses[0]
    );
    assert!(losses.last().unwrap().as_f64().unwrap() < 1.0);

    assert!(job["trained_tokens"].as_u64().unwrap() > 0, "{job}");
    let results = job["result_files"][0].as_str().unwrap();
    let results = service.get(&format!("/v1/files/{results}/content")).await;
    let results = results.text();
    let header = "step,epoch,learning_rate,train_loss,valid_loss,valid_accuracy";
    assert!(results.starts_with(header), "{results}");
    assert_eq!(results.lines().count(), 1 + steps.len(), "{results}");
}

async fn streams_checkpoints(service: &Service, job: &Value) {
    let checkpoints = service.part(job, "/checkpoints").await;
    let checkpoint = checkpoints["data"][0]["id"].as_str().unwrap();
    let path = format!("/v1/fine_tuning/checkpoints/{checkpoint}/content");
    let whole = service.get(&path).await;
    let tensors = safetensors::SafeTensors::deserialize(&whole.body).unwrap();
    assert!(tensors.names().iter().any(|name| name.ends_with("weight")));
    let part = service
        .send(Method::GET, &path, |request| {
            request.header("range", "bytes=8-15")
        })
        .await;
    assert_eq!(part.status, 206);
    assert_eq!(part.body, whole.body[8..16]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_holds_all_that_another_program_needs() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    service.lite0().await;
    let file = service
        .dataset(clipart_subset(&["animals", "food", "plants"], 10))
        .await;
    let job = service
        .job(&file, &json!({"hyperparameters": {"n_epochs": 3}}))
        .await;
    let job = service.ended(&job).await;
    let model = job["fine_tuned_model"].as_str().unwrap();
    let bundle = service.get(&format!("/v1/models/{model}/export")).await;
    assert_eq!(bundle.status, 200);
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bundle.body)).unwrap();
    let names: Vec<String> = archive
        .file_names()
        .map(|name| name.unwrap().into_owned())
        .collect();
    for name in [
        "model.safetensors",
        "config.json",
        "preprocess.json",
        "labels.json",
        "metrics.json",
        "README.md",
        "golden.safetensors",
    ] {
        assert!(names.iter().any(|found| found.ends_with(name)), "{names:?}");
    }
    let mut labels = String::new();
    let name = names
        .iter()
        .find(|name| name.ends_with("labels.json"))
        .unwrap();
    std::io::Read::read_to_string(&mut archive.by_name(name).unwrap(), &mut labels).unwrap();
    let labels: Value = serde_json::from_str(&labels).unwrap();
    assert_eq!(labels, json!(["animals", "food", "plants"]));
}

/// The backbone runs once for each sample, whoever asks: a second job on the same data computes no
/// feature.
#[tokio::test(flavor = "multi_thread")]
async fn features_are_computed_once() {
    let service = Service::start().await;
    let worker = service.worker("worker", &[]);
    service.lite0().await;
    let file = service
        .dataset(clipart_subset(&["animals", "food"], 10))
        .await;
    for epochs in [5, 50] {
        let job = service
            .job(
                &file,
                &json!({"head": {"init": "probe"}, "hyperparameters": {"n_epochs": epochs}}),
            )
            .await;
        let job = service.ended(&job).await;
        assert_eq!(job["status"], "succeeded");
        let metrics = service.part(&job, "/metrics").await;
        // The head begins as a linear probe, and that is measured before the first step.
        assert_eq!(metrics["evaluations"][0]["step"], 0, "{metrics}");
    }
    let cache = service.dir.path().join("worker/cache/features");
    assert_eq!(
        std::fs::read_dir(cache).unwrap().count(),
        1,
        "{}",
        worker.log()
    );
}

/// Uploading never fills the server's memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_is_uploaded_through_little_memory() {
    let service = Service::start().await;
    let path = service.dir.path().join("big");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    let file = tokio::fs::File::open(&path).await.unwrap();
    let stream = tokio_util::io::ReaderStream::with_capacity(file, 1 << 20);
    let part =
        reqwest::multipart::Part::stream_with_length(reqwest::Body::wrap_stream(stream), 1 << 30)
            .file_name("big.zip");
    let form = reqwest::multipart::Form::new()
        .text("purpose", "weights")
        .part("file", part);
    let file = service
        .send(Method::POST, "/v1/files", |request| request.multipart(form))
        .await
        .ok();
    assert_eq!(file["bytes"], 1 << 30);
    assert_eq!(
        file["sha256"],
        "49bc20df15e412a64472421e13fe86ff1c5165e18b2afccf160d4dc19fe68a14"
    );
    let peak = service.server.peak_memory_kib();
    assert!(peak < 150 * 1024, "{peak} KiB");
}

#[test]
fn the_demo_holds_out_three_images() {
    assert_eq!(
        std::fs::read_dir(
            find(&demo(), "clipart.zip")
                .parent()
                .unwrap()
                .join("unseen")
        )
        .unwrap()
        .count(),
        3
    );
}
