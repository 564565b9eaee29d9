//! Pausing frees the device and loses nothing: whatever happens meanwhile, the job goes on where it
//! was.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{
    attempts::{POINTS, QUICK, has_told, long_job, material, outcomes, signal_all, weights},
    postgres::invariants,
    process::{eventually, is_alive},
    service::Service,
};

const EPOCHS: u32 = 12;

async fn becomes(service: &Service, job: &Value, status: &str) -> Value {
    service
        .until(&service.path(job), status, |job| job["status"] == status)
        .await
}

/// Waits until this attempt trains: from before that, a worker that is told to pause needs no
/// trainer to give the job back.
async fn trains(service: &Service, job: &Value, attempt: u32) {
    service
        .until(&service.path(job), "training of the attempt", |job| {
            let phase = job["phases"].as_array().unwrap().last().unwrap();
            phase["phase"] == "training" && phase["attempt"] == attempt
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_job_frees_its_device_and_resumes_exactly() {
    let service = Service::start().await;
    let worker = service.worker("worker", &QUICK);
    let file = material(&service).await;
    let job = long_job(&service, &file, EPOCHS).await;
    service.has_checkpoint(&job).await;
    let trainers = worker.descendants();
    let asked = service.ask(&job, "pause").await.ok();
    assert_eq!(asked["status"], "pausing", "{asked}");
    let paused = becomes(&service, &job, "paused").await;
    assert_eq!(outcomes(&paused), ["yielded"], "{paused}");
    assert_eq!(paused["phase"], "waiting");
    eventually(Duration::from_secs(10), "end of the trainer", || {
        let alive = trainers.iter().filter(|&&pid| is_alive(pid)).count();
        (alive < trainers.len()).then_some(())
    });
    let step = paused["progress"]["step"].as_u64();

    // Meanwhile the device serves another: the same job, undisturbed.
    let straight = service
        .ended(&long_job(&service, &file, EPOCHS).await)
        .await;
    assert_eq!(outcomes(&straight), ["succeeded"]);
    assert_eq!(
        service.get(&service.path(&job)).await.ok()["status"],
        "paused"
    );

    let exact = json!("exact");
    assert_eq!(paused["determinism"]["guarantee"], exact, "{paused}");
    let resumed = service.ask(&job, "resume").await.ok();
    assert!(["queued", "running"].contains(&resumed["status"].as_str().unwrap()));
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["yielded", "succeeded"], "{ended}");
    // It saved when it was told to: no step is trained twice.
    assert_eq!(
        ended["attempts"][1]["resumed_step"].as_u64(),
        step,
        "{ended}"
    );
    assert_eq!(
        weights(&service, &ended).await,
        weights(&service, &straight).await,
        "the paused run ended with other weights"
    );
    assert_eq!(ended["determinism"]["guarantee"], exact, "{ended}");
    invariants(&service.pool().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f18_a_job_paused_at_any_point_resumes_exactly() {
    let service = Service::start().await;
    let worker = service.worker("worker", &QUICK);
    let file = material(&service).await;
    let straight = service.ended(&long_job(&service, &file, 4).await).await;
    let straight = weights(&service, &straight).await;
    for (point, phase) in POINTS {
        let job = long_job(&service, &file, 4).await;
        has_told(&service, &job, point, phase).await;
        let asked = service.ask(&job, "pause").await;
        let path = service.path(&job);
        let still = service
            .until(&path, "pause", |job| {
                job["status"] == "paused" || job["is_terminal"] == true
            })
            .await;
        println!("paused at {point} {phase:?}: {}", still["status"]);
        if still["status"] == "paused" {
            assert_eq!(asked.status.as_u16(), 200, "{point}");
            assert_eq!(outcomes(&still), ["yielded"], "{point}");
            // Once more changes nothing.
            let again = service.ask(&job, "pause").await.ok();
            assert_eq!(again["status"], "paused");
            service.ask(&job, "resume").await.ok();
            service.ask(&job, "resume").await.ok();
        } else {
            let late = matches!(phase, Some("evaluating" | "exporting"));
            assert!(late, "{point}: it had ended already: {still}");
        }
        let ended = service.ended(&job).await;
        assert_eq!(ended["status"], "succeeded", "{ended}\n{}", worker.log());
        assert_eq!(
            weights(&service, &ended).await,
            straight,
            "{point} {phase:?}"
        );
    }
    invariants(&service.pool().await).await;
}

/// Sums come out in another order there, and a user who compares weights must know.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_resumed_with_other_threads_reports_it() {
    let service = Service::start().await;
    let worker = service.worker("one-thread", &QUICK);
    let file = material(&service).await;
    let job = long_job(&service, &file, EPOCHS).await;
    service.has_checkpoint(&job).await;
    service.ask(&job, "pause").await.ok();
    becomes(&service, &job, "paused").await;
    drop(worker);

    let mut arguments = QUICK.to_vec();
    arguments.extend(["--threads", "2"]);
    let _worker = service.worker("two-threads", &arguments);
    service.ask(&job, "resume").await.ok();
    let ended = service.ended(&job).await;
    let determinism = &ended["determinism"];
    assert_eq!(determinism["guarantee"], "best_effort", "{ended}");
    let reason = determinism["reason"].as_str().unwrap();
    assert!(reason.contains("1 and 2 threads"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pausing_job_whose_trainer_hangs_or_dies_ends_paused() {
    let service = Service::start().await;
    let mut arguments = QUICK.to_vec();
    arguments.extend(["--grace-ms", "1500"]);
    let worker = service.worker("worker", &arguments);
    let file = material(&service).await;
    let job = long_job(&service, &file, EPOCHS).await;
    service.has_checkpoint(&job).await;

    // It hangs: after the grace it is ended, and the last checkpoint counts.
    signal_all(&worker.descendants(), Signal::SIGSTOP);
    service.ask(&job, "pause").await.ok();
    let paused = becomes(&service, &job, "paused").await;
    assert_eq!(outcomes(&paused), ["yielded"], "{paused}");
    signal_all(&worker.descendants(), Signal::SIGCONT);

    // It is told, and the pause is taken back: it stops, and goes on by itself.
    service.ask(&job, "resume").await.ok();
    trains(&service, &job, 2).await;
    signal_all(&worker.descendants(), Signal::SIGSTOP);
    service.ask(&job, "pause").await.ok();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let back = service.ask(&job, "resume").await.ok();
    assert_eq!(back["status"], "running", "{back}");
    signal_all(&worker.descendants(), Signal::SIGCONT);
    service.runs_attempt(&job, 3).await;

    // It dies.
    trains(&service, &job, 3).await;
    signal_all(&worker.descendants(), Signal::SIGSTOP);
    service.ask(&job, "pause").await.ok();
    signal_all(&worker.descendants(), Signal::SIGKILL);
    let paused = becomes(&service, &job, "paused").await;
    assert_eq!(
        outcomes(&paused),
        ["yielded", "yielded", "crashed"],
        "{paused}"
    );
    service.ask(&job, "resume").await.ok();
    let ended = service.ended(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", worker.log());
    invariants(&service.pool().await).await;
}
