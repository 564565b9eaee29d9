//! Cancelling, wherever a job is: it ends, never runs again, and its device is free soon, whatever
//! its trainer does.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{
    attempts::{POINTS, QUICK, has_told, long_job, material, outcomes, signal_all},
    postgres::invariants,
    process::{eventually, is_alive},
    service::Service,
};

#[tokio::test(flavor = "multi_thread")]
async fn f18_a_cancelled_job_ends_at_whatever_point_it_is() {
    let service = Service::start().await;
    let worker = service.worker("worker", &[]);
    let file = material(&service).await;

    // Waiting: at once. The worker is busy with the next one of the list.
    for (point, phase) in POINTS {
        let epochs = match phase {
            Some("evaluating" | "exporting") => 1,
            _ => 1_000,
        };
        let running = long_job(&service, &file, epochs).await;
        let waiting = long_job(&service, &file, 1_000).await;
        let waiting = service.ask(&waiting, "cancel").await.ok();
        assert_eq!(waiting["status"], "cancelled", "{waiting}");

        has_told(&service, &running, point, phase).await;
        let asked = Instant::now();
        let answer = service.ask(&running, "cancel").await;
        let ended = service.ended(&running).await;
        let took = asked.elapsed();
        println!(
            "cancelled at {point} {phase:?}: {} after {took:?}",
            ended["status"]
        );
        assert!(took < Duration::from_secs(15), "{point}: {took:?}");
        match ended["status"].as_str() {
            Some("cancelled") => {
                assert_eq!(outcomes(&ended), ["cancelled"], "{point}");
                assert_eq!(answer.status.as_u16(), 200, "{point}");
            }
            // Success beats a late cancel, and only a short job can be that quick.
            Some("succeeded") => assert_eq!(epochs, 1, "{point}"),
            _ => panic!("{point}: {ended}"),
        }
        // Once more changes nothing.
        if ended["status"] == "cancelled" {
            let again = service.ask(&running, "cancel").await.ok();
            assert_eq!(again["finished_at"], ended["finished_at"]);
        } else {
            service
                .ask(&running, "cancel")
                .await
                .error(409, "job_ended");
        }
    }
    // The device is free: the next job runs.
    let next = long_job(&service, &file, 1).await;
    let next = service.ended(&next).await;
    assert_eq!(next["status"], "succeeded", "{next}\n{}", worker.log());
    invariants(&service.pool().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f18_a_cancellation_frees_the_device_of_a_trainer_that_hangs() {
    let service = Service::start().await;
    let worker = service.worker("worker", &QUICK);
    let file = material(&service).await;
    let job = long_job(&service, &file, 1_000).await;
    service.has_checkpoint(&job).await;
    let trainers = worker.descendants();
    signal_all(&trainers, Signal::SIGSTOP);
    let asked = Instant::now();
    service.ask(&job, "cancel").await.ok();
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["cancelled"], "{ended}");
    eventually(Duration::from_secs(15), "end of the trainer", || {
        let alive = trainers.iter().filter(|&&pid| is_alive(pid)).count();
        (alive < trainers.len()).then_some(())
    });
    let took = asked.elapsed();
    println!("a hanging trainer was gone {took:?} after the cancellation");
    assert!(took < Duration::from_secs(15), "{took:?}");
    // The warm trainer was stopped too, and is of no more use to the next job.
    signal_all(&worker.descendants(), Signal::SIGCONT);
    let refused = service.ask(&job, "pause").await.error(409, "job_ended");
    assert!(refused.contains("`cancelled`"), "{refused}");
    let next = long_job(&service, &file, 1).await;
    assert_eq!(service.ended(&next).await["status"], "succeeded");
    let missing = json!({"id": "ftjob-00000000000000000000000000000000"});
    service
        .ask(&missing, "cancel")
        .await
        .error(404, "not_found");
    invariants(&service.pool().await).await;
}
