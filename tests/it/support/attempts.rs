//! A job that takes some seconds, with checkpoints on the way; and what became of it.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{
    data::{clipart_subset, unzip},
    service::Service,
};

/// Times of the queue that tests can wait for.
pub(crate) const QUICK: [&str; 6] = [
    "--lease-ms",
    "3000",
    "--heartbeat-ms",
    "500",
    "--reap-ms",
    "300",
];

/// Registers Lite0 and uploads a small data set. Needs a worker.
pub(crate) async fn material(service: &Service) -> Value {
    service.lite0().await;
    service
        .dataset(clipart_subset(&["animals", "food"], 10))
        .await
}

/// Posts a job whose last stage trains: some tens of steps, and a checkpoint at least every second.
pub(crate) async fn long_job(service: &Service, file: &Value, epochs: u32) -> Value {
    service.job(file, &transfer(epochs)).await
}

/// Posts one that trains until it is asked to stop.
pub(crate) async fn endless_job(service: &Service, file: &Value) -> Value {
    let mut transfer = transfer(10_000);
    transfer["early_stopping"]["patience"] = json!(10_000);
    service.job(file, &transfer).await
}

fn transfer(epochs: u32) -> Value {
    json!({
        "freeze": {"all_but_last_stages": 2},
        "head": {"layers": [{"dropout": 0.2}]},
        "hyperparameters": {"n_epochs": epochs, "batch_size": 4, "learning_rate": 0.001},
        "early_stopping": {"metric": "valid_loss"},
        "checkpoint_every_seconds": 1,
    })
}

/// A job's id, as Postgres has it.
pub(crate) fn uuid(job: &Value) -> &str {
    job["id"].as_str().unwrap().trim_start_matches("ftjob-")
}

/// Where an attempt may be when its user wants something else: kinds of events, and their phases.
pub(crate) const POINTS: [(&str, Option<&str>); 7] = [
    ("started", None),
    ("phase", Some("caching_features")),
    ("phase", Some("training")),
    ("evaluated", None),
    ("checkpoint", None),
    ("phase", Some("evaluating")),
    ("phase", Some("exporting")),
];

/// Waits until a job's history has an event of this kind (of this phase).
pub(crate) async fn has_told(service: &Service, job: &Value, kind: &str, phase: Option<&str>) {
    let path = format!("{}/events?limit=100", service.path(job));
    service
        .until(&path, kind, |events| {
            events["data"].as_array().unwrap().iter().any(|event| {
                event["kind"] == kind && phase.is_none_or(|phase| event["data"]["phase"] == phase)
            })
        })
        .await;
}

/// The weights in the exported bundle of a job that succeeded.
pub(crate) async fn weights(service: &Service, job: &Value) -> Vec<u8> {
    assert_eq!(job["status"], "succeeded", "{job}");
    let model = job["fine_tuned_model"].as_str().unwrap();
    let bundle = service.get(&format!("/v1/models/{model}/export")).await;
    unzip(&bundle.body).remove("model.safetensors").unwrap()
}

/// How each attempt of a job ended, oldest first.
pub(crate) fn outcomes(job: &Value) -> Vec<&str> {
    job["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| attempt["outcome"].as_str().unwrap_or("open"))
        .collect()
}

/// Signals processes, some of which may have ended.
pub(crate) fn signal_all(pids: &[i32], signal: Signal) {
    for &pid in pids {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
