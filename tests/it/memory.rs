//! A job whose trainer runs out of memory goes on in smaller batches, and the job says so.

use std::{fs, thread::sleep, time::Duration};

use serde_json::json;

use crate::support::{
    data::clipart_subset,
    process::{Process, eventually, limit_memory, resident_memory},
    service::Service,
};

const MIB: u64 = 1 << 20;
/// Trainers run as the test's own user, whose limits it may change.
const SAME_USER: [&str; 2] = ["--sandbox", "landlock,seccomp"];

/// The worker's trainer that waits for a job, once it has loaded torch.
fn idle_trainer(worker: &Process) -> i32 {
    let waits = |pid: &i32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains("rehead-trainer") && line.contains("warm-trainer")
    };
    eventually(Duration::from_secs(60), "idle trainer", || {
        let pid = worker.descendants().into_iter().find(waits)?;
        let before = resident_memory(pid);
        sleep(Duration::from_secs(1));
        (before > 100 * MIB && resident_memory(pid) == before).then_some(pid)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_reports_reduced_batch_sizes() {
    let service = Service::start().await;
    let worker = service.worker("worker", &SAME_USER);
    service.lite0().await;
    let file = service
        .dataset(clipart_subset(&["animals", "food"], 12))
        .await;
    limit_memory(idle_trainer(&worker), 700 * MIB);
    let job = service
        .job(
            &file,
            &json!({"freeze": "none", "hyperparameters": {"n_epochs": 1, "batch_size": 16}}),
        )
        .await;
    let job = service.ended(&job).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(job["determinism"]["guarantee"], "best_effort", "{job}");
    let reason = job["determinism"]["reason"].as_str().unwrap();
    assert!(
        reason.contains("out of memory: training continues with"),
        "{reason}"
    );
    let events = service.part(&job, "/events?limit=100").await;
    let told = events["data"].as_array().unwrap().iter();
    let told = told.filter(|event| event["message"] == *reason && event["level"] == "warn");
    assert_eq!(told.count(), 1, "{events}");
}

/// The kernel ends a trainer whose control group has no memory left. Where no group can be made,
/// the worker does not start with such a limit: see `sandbox`.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_beyond_the_memory_of_its_control_group_fails_as_out_of_memory() {
    if rehead::cgroup::Group::of("memory").is_err() {
        return;
    }
    let service = Service::start().await;
    let limit = (400 * MIB).to_string();
    let worker = service.worker("worker", &["--sandbox-memory-bytes", &limit]);
    service.lite0().await;
    let file = service
        .dataset(clipart_subset(&["animals", "food"], 40))
        .await;
    let recipe = json!({"freeze": "none", "hyperparameters": {"n_epochs": 1, "batch_size": 64}});
    let job = service.ended(&service.job(&file, &recipe).await).await;
    assert_eq!(job["error"]["code"], "out_of_memory", "{job}");
    let message = job["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("419430400 bytes (--sandbox-memory-bytes)")
            && message.contains("batch_size"),
        "{message}"
    );
    assert_eq!(job["attempts"].as_array().unwrap().len(), 2, "{job}");
    assert!(resident_memory(worker.pid()) > 0);
}
