//! Cancelling: at once while a job waits, soon while it trains, and the device is free afterwards.

use std::time::Duration;

use serde_json::json;

use crate::support::{
    attempts::{long_job, material, outcomes},
    postgres::invariants,
    process::{eventually, is_alive},
    service::Service,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_cancelled_wherever_it_is() {
    let service = Service::start().await;
    let worker = service.worker("worker", &[]);
    let file = material(&service).await;
    let running = long_job(&service, &file, 1_000).await;
    let waiting = long_job(&service, &file, 1_000).await;
    service.has_checkpoint(&running).await;
    let trainers = worker.descendants();
    let path = |job: &serde_json::Value| {
        format!(
            "/v1/fine_tuning/jobs/{}/cancel",
            job["id"].as_str().unwrap()
        )
    };

    let cancelled = service.post(&path(&waiting), &json!({})).await.ok();
    assert_eq!(cancelled["status"], "cancelled", "{cancelled}");

    service.post(&path(&running), &json!({})).await.ok();
    let ended = service.ended(&running).await;
    assert_eq!(ended["status"], "cancelled", "{ended}");
    assert_eq!(outcomes(&ended), ["cancelled"]);
    eventually(Duration::from_secs(15), "end of the trainer", || {
        let alive = trainers.iter().filter(|&&pid| is_alive(pid)).count();
        (alive < trainers.len()).then_some(())
    });

    // Once more changes nothing.
    let again = service.post(&path(&running), &json!({})).await.ok();
    assert_eq!(again["finished_at"], ended["finished_at"]);

    // The device is free: the next job runs.
    let next = long_job(&service, &file, 1).await;
    assert_eq!(service.ended(&next).await["status"], "succeeded");
    invariants(&service.pool().await).await;
}
