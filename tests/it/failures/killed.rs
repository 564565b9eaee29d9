//! A worker that is killed takes its trainer with it and loses no job: another goes on from the
//! last checkpoint, and ends with the weights of the run that nothing disturbed.

use std::{
    fs,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rehead::{
    db::exports,
    domain::{export::NetworkFormat, id::JobId},
};
use serde_json::json;

use crate::{
    export::{UNCONFINED, is_of_the_bundle, pranked},
    support::{
        attempts::{QUICK, long_job, material, outcomes, weights},
        data::unzip,
        postgres::invariants,
        process::{eventually, is_alive},
        service::Service,
    },
};

const EPOCHS: u32 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn f05_f25_another_worker_continues_with_the_same_weights() {
    let service = Service::start().await;
    let first = service.worker("first", &QUICK);
    let file = material(&service).await;
    let job = long_job(&service, &file, EPOCHS).await;
    service.has_checkpoint(&job).await;

    let children = first.descendants();
    assert!(!children.is_empty(), "no trainer runs");
    first.signal(Signal::SIGKILL);
    let killed = Instant::now();
    eventually(Duration::from_secs(5), "end of the orphans", || {
        (!children.iter().any(|&pid| is_alive(pid))).then_some(())
    });

    let second = service.worker("second", &QUICK);
    service.runs_attempt(&job, 2).await;
    let taken_over = killed.elapsed();
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["lost", "succeeded"], "{}", second.log());
    let resumed = ended["attempts"][1]["resumed_step"].as_u64();
    assert!(resumed.is_some_and(|step| step > 0), "{ended}");
    // One lease, and then the reaper's grace after the start of the second worker, with room for a
    // busy machine.
    assert!(taken_over < Duration::from_secs(30), "{taken_over:?}");
    println!("taken over {taken_over:?} after SIGKILL, from step {resumed:?}");

    let straight = service
        .ended(&long_job(&service, &file, EPOCHS).await)
        .await;
    assert_eq!(outcomes(&straight), ["succeeded"]);
    assert_eq!(
        weights(&service, &ended).await,
        weights(&service, &straight).await,
        "the resumed run ended with other weights"
    );
    invariants(&service.pool().await).await;
}

/// The worker dies while its trainer writes the TorchScript. The request waits on, another worker
/// takes the export over, and what was half written is never stored.
#[tokio::test(flavor = "multi_thread")]
async fn export_of_a_killed_worker_ends_once() {
    let service = Service::start().await;
    let dir = service.dir.path();
    let (began, runs) = (dir.join("began"), dir.join("runs"));
    let hangs = format!(
        "[ $1 = verify ] || {{ echo half >\"$3\"; : >{}; exec sleep 600; }}",
        began.display()
    );
    let first = service.worker_of(&pranked(&dir.join("hangs"), &hangs), "first", &UNCONFINED);
    let file = material(&service).await;
    let transfer = json!({"head": {"init": "zero"}, "hyperparameters": {"n_epochs": 1}});
    let job = service.ended(&service.job(&file, &transfer).await).await;
    assert_eq!(job["status"], "succeeded", "{job}\n{}", first.log());
    let id: JobId = job["id"].as_str().unwrap().parse().unwrap();
    let stored = service
        .objects()
        .join(exports::key(id, NetworkFormat::Torchscript));
    let bundle = format!(
        "/v1/models/{}/export",
        job["fine_tuned_model"].as_str().unwrap()
    );
    let script = format!("{bundle}?format=torchscript");

    let replaced = async {
        while !began.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let children = first.descendants();
        first.signal(Signal::SIGKILL);
        eventually(Duration::from_secs(5), "end of the orphans", || {
            (!children.iter().any(|&pid| is_alive(pid))).then_some(())
        });
        assert!(!stored.exists(), "half a script is stored");
        let counts = format!("echo $1 >>{}", runs.display());
        service.worker_of(
            &pranked(&dir.join("counts"), &counts),
            "second",
            &UNCONFINED,
        )
    };
    let (answer, second) = tokio::join!(service.get(&script), replaced);
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), second.log());
    let files = unzip(&service.get(&bundle).await.body);
    let file = (NetworkFormat::Torchscript, &answer.body[..]);
    is_of_the_bundle(&dir.join("unpacked"), &files, file);

    let again = service.get(&script).await;
    assert!(again.body == answer.body && fs::read(&stored).unwrap() == answer.body);
    assert_eq!(fs::read_to_string(&runs).unwrap(), "export\n");
    let pool = service.pool().await;
    let left: i64 = sqlx::query_scalar("select count(*) from work where kind = 'export'")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(left, 0, "the export is queued still");
    invariants(&pool).await;
}

/// No other worker is there to notice: the server does.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_the_last_worker_can_be_cancelled_after_its_death() {
    let service = Service::start_with(&["--lease-ms", "3000", "--reap-ms", "300"]).await;
    let worker = service.worker("last", &QUICK);
    let file = material(&service).await;
    let job = long_job(&service, &file, EPOCHS).await;
    service.has_checkpoint(&job).await;
    worker.signal(Signal::SIGKILL);
    let path = service.path(&job);
    let waits = service
        .until(&path, "its end", |job| job["status"] == "queued")
        .await;
    assert_eq!(outcomes(&waits), ["lost"], "{waits}");

    let worker = service.worker("another", &QUICK);
    service.runs_attempt(&job, 2).await;
    worker.signal(Signal::SIGKILL);
    service.ask(&job, "cancel").await.ok();
    let ended = service.ended(&job).await;
    assert_eq!(ended["status"], "cancelled", "{ended}");
    assert_eq!(outcomes(&ended), ["lost", "lost"], "{ended}");
    invariants(&service.pool().await).await;
}

/// The trainer alone dies, as by the kernel's out-of-memory killer: the same worker goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_trainer_costs_one_attempt() {
    let service = Service::start().await;
    let worker = service.worker("worker", &QUICK);
    let file = material(&service).await;
    let job = long_job(&service, &file, EPOCHS).await;
    service.has_checkpoint(&job).await;
    // The worker's children: the trainer, and the warm trainers that wait.
    for pid in worker.descendants() {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
    }
    let ended = service.ended(&job).await;
    assert_eq!(
        outcomes(&ended),
        ["crashed", "succeeded"],
        "{ended}\n{}",
        worker.log()
    );
    let [killed, last] = [0, 1].map(|n| &ended["attempts"][n]);
    assert_eq!(killed["exit_signal"], "SIGKILL", "{killed}");
    assert!(
        killed["exit_code"].is_null() && last["exit_code"] == 0,
        "{ended}"
    );
    assert!(
        killed["reached_step"].as_u64() >= last["resumed_step"].as_u64(),
        "{ended}"
    );
    assert_eq!(
        last["reached_step"], ended["progress"]["n_steps"],
        "{ended}"
    );
    assert_eq!(killed["host"], last["host"]);
    assert_eq!(ended["budgets"]["crashes"], 1, "{ended}");
    invariants(&service.pool().await).await;
}

/// SIGTERM is no failure: the trainer saves, the job goes back to the queue, the next worker goes
/// on.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_releases_its_job() {
    let service = Service::start().await;
    let mut first = service.worker("first", &QUICK);
    let file = material(&service).await;
    let job = long_job(&service, &file, EPOCHS).await;
    service.has_checkpoint(&job).await;
    first.signal(Signal::SIGTERM);
    assert!(first.wait(Duration::from_secs(30)).success());
    let path = format!("/v1/fine_tuning/jobs/{}", job["id"].as_str().unwrap());
    assert_eq!(service.get(&path).await.ok()["status"], "queued");

    let _second = service.worker("second", &QUICK);
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["yielded", "succeeded"], "{ended}");
    invariants(&service.pool().await).await;
}

/// A worker that starts again on the same machine is a new one, and no lease depends on the rows
/// that name workers.
#[tokio::test(flavor = "multi_thread")]
async fn f06_f07_a_restarted_worker_is_not_the_dead_one() {
    let service = Service::start().await;
    let pool = service.pool().await;
    let first = service.worker("worker", &QUICK);
    let file = material(&service).await;
    let job = long_job(&service, &file, EPOCHS).await;
    service.has_checkpoint(&job).await;
    first.signal(Signal::SIGKILL);
    drop(first);
    // Somebody tidied up before the reaper came.
    sqlx::query("delete from workers")
        .execute(&pool)
        .await
        .unwrap();

    let _again = service.worker("worker", &QUICK);
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["lost", "succeeded"], "{ended}");
    let [dead, alive] = [0, 1].map(|n| &ended["attempts"][n]);
    assert_ne!(dead["worker"], alive["worker"]);
    assert!(
        dead["host"].is_string() && dead["host"] == alive["host"],
        "{ended}"
    );
    invariants(&pool).await;
}
