//! A process serves one attempt: what ruins it (a device assert leaves a CUDA context dead for
//! good) ends with it.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{
    attempts::{QUICK, long_job, material, outcomes, signal_all},
    postgres::invariants,
    process::{Process, eventually, is_alive},
    service::Service,
};

/// The trainer that waits for the next job.
fn idle_trainer(worker: &Process, ended: &[i32]) -> i32 {
    eventually(
        std::time::Duration::from_secs(30),
        "idle trainer",
        || match worker.descendants()[..] {
            [one] if !ended.contains(&one) => Some(one),
            _ => None,
        },
    )
}

/// A job whose numbers are not finite within seconds: its trainer ends it with an error, as after a
/// device assert.
async fn diverging_job(service: &Service, file: &Value) -> Value {
    let transfer = json!({
        "freeze": "all", "head": {"init": "normal"},
        "hyperparameters": {
            "n_epochs": 200, "batch_size": 8, "optimizer": "sgd", "schedule": "constant",
            "learning_rate": 100, "weight_decay": 10, "gradient_clip": 1,
        },
    });
    service.job(file, &transfer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn f24_a_job_after_an_abort_gets_a_new_process() {
    let service = Service::start().await;
    let pool = service.pool().await;
    let mut worker = service.worker("worker", &QUICK);
    let file = material(&service).await;
    worker.wait_for("this worker is active");
    sqlx::query("alter table jobs alter max_crashes set default 0")
        .execute(&pool)
        .await
        .unwrap();

    // What C++ does where an assertion fails: abort.
    let mut ended = Vec::new();
    let process = idle_trainer(&worker, &ended);
    let job = long_job(&service, &file, 1_000).await;
    service.has_checkpoint(&job).await;
    let last_words = "terminate called after throwing an instance of 'c10::Error'";
    std::fs::write(format!("/proc/{process}/fd/2"), format!("{last_words}\n")).unwrap();
    signal_all(&[process], Signal::SIGABRT);
    let aborted = service.ended(&job).await;
    assert_eq!(outcomes(&aborted), ["crashed"], "{aborted}");
    // All that there is to know stays in the job.
    let attempt = &aborted["attempts"][0];
    assert_eq!(attempt["exit_signal"], "SIGABRT");
    assert_eq!(
        attempt["log"].as_array().unwrap().last().unwrap(),
        last_words
    );
    assert!(
        attempt["worker"].is_string() && attempt["host"].is_string(),
        "{attempt}"
    );
    assert!(
        attempt["ended_at"].as_i64() >= attempt["started_at"].as_i64(),
        "{attempt}"
    );
    assert!(!is_alive(process));
    ended.push(process);

    // What libtorch does: an error, after which the process would still be there.
    let process = idle_trainer(&worker, &ended);
    let job = diverging_job(&service, &file).await;
    let failed = service.ended(&job).await;
    assert_eq!(failed["error"]["code"], "diverged", "{failed}");
    assert!(!is_alive(process), "it waits for another job");
    ended.push(process);

    let process = idle_trainer(&worker, &ended);
    let job = long_job(&service, &file, 1).await;
    let done = service.ended(&job).await;
    assert_eq!(outcomes(&done), ["succeeded"], "{done}\n{}", worker.log());
    assert!(!is_alive(process), "it waits for another job");
    for attempt in [&failed, &done] {
        let [here, before] = [attempt, &aborted].map(|job| &job["attempts"][0]);
        assert_eq!(
            (&here["worker"], &here["device"]),
            (&before["worker"], &before["device"])
        );
    }
    invariants(&pool).await;
}
