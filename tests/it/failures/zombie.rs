//! A worker that was stopped (SIGSTOP, a frozen machine) and wakes after another took its job
//! writes nothing any more.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    attempts::{QUICK, long_job, material, outcomes},
    data::files_below,
    postgres::invariants,
    process::{eventually, is_alive},
    service::Service,
};

#[tokio::test(flavor = "multi_thread")]
async fn f01_a_worker_that_wakes_too_late_writes_nothing() {
    let service = Service::start().await;
    let mut zombie = service.worker("zombie", &QUICK);
    let file = material(&service).await;
    let job = long_job(&service, &file, 12).await;
    service.has_checkpoint(&job).await;

    zombie.signal(Signal::SIGSTOP);
    let trainers = zombie.descendants();
    let _second = service.worker("second", &QUICK);
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["lost", "succeeded"], "{ended}");
    let objects = files_below(&service.objects());
    let history = service.history(&job).await;

    zombie.signal(Signal::SIGCONT);
    zombie.wait_for("lost its lease; nothing more was written");
    // Its trainer went on meanwhile, for nobody.
    eventually(Duration::from_secs(10), "end of its trainer", || {
        let alive = trainers.iter().filter(|&&pid| is_alive(pid)).count();
        (alive < trainers.len()).then_some(())
    });
    assert_eq!(files_below(&service.objects()), objects);
    assert_eq!(service.history(&job).await, history);
    invariants(&service.pool().await).await;

    // It lost a job, not its usefulness.
    drop(_second);
    let next = long_job(&service, &file, 1).await;
    assert_eq!(service.ended(&next).await["status"], "succeeded");
}

/// The lease is there, and is not its own: only the token tells.
#[tokio::test(flavor = "multi_thread")]
async fn f01_a_worker_that_wakes_beside_a_new_owner_writes_nothing() {
    let service = Service::start().await;
    let mut zombie = service.worker("zombie", &QUICK);
    let file = material(&service).await;
    let job = long_job(&service, &file, 60).await;
    service.has_checkpoint(&job).await;
    zombie.signal(Signal::SIGSTOP);
    // Its trainer goes on: there is much to write when it wakes.
    let _second = service.worker("second", &QUICK);
    service.runs_attempt(&job, 2).await;
    let pool = service.pool().await;
    let id = job["id"].as_str().unwrap().trim_start_matches("ftjob-");
    let saved = "select count(*) from checkpoints where job_id = $1::uuid and token = 2";
    let saved = || {
        sqlx::query_scalar::<_, i64>(saved)
            .bind(id)
            .fetch_one(&pool)
    };
    while saved().await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    zombie.signal(Signal::SIGCONT);
    zombie.wait_for("lost its lease; nothing more was written");
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["lost", "succeeded"], "{ended}");
    let written =
        "select count(*) from job_events where job_id = $1::uuid and token = 1 and seq > (
        select min(seq) from job_events where job_id = $1::uuid and kind = 'requeued')";
    let written = sqlx::query_scalar::<_, i64>(written).bind(id);
    assert_eq!(written.fetch_one(&pool).await.unwrap(), 0);
    invariants(&pool).await;
}
