//! Stopping a worker: the signal reaches the trainer wherever the worker sits, what cannot be saved
//! in time does not hold it up, and a second signal ends it at once.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::support::{
    attempts::{QUICK, long_job, material, outcomes, signal_all},
    postgres::invariants,
    process::{Process, descendants, eventually, is_alive},
    service::Service,
};

/// A worker as process 1 of a namespace of its own, as in a container; `None` where this user may
/// make none.
fn worker_as_pid_1(service: &Service) -> Option<Process> {
    let may = std::process::Command::new("unshare")
        .args(["--pid", "--fork", "true"])
        .status();
    if !may.is_ok_and(|status| status.success()) {
        return None;
    }
    let (objects, work_dir) = (service.objects(), service.dir.path().join("first"));
    let mut arguments = vec!["--pid", "--fork", env!("CARGO_BIN_EXE_rehead"), "work"];
    arguments.extend(["--database-url", &service.database_url]);
    arguments.extend(["--objects", objects.to_str().unwrap()]);
    arguments.extend(["--work-dir", work_dir.to_str().unwrap()]);
    arguments.extend(["--poll-ms", "200", "--threads", "1"]);
    arguments.extend(QUICK);
    Some(Process::start(
        "first",
        service.dir.path(),
        Path::new("unshare"),
        &arguments,
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn f27_a_sigterm_to_process_1_reaches_the_trainer() {
    let service = Service::start().await;
    let Some(mut first) = worker_as_pid_1(&service) else {
        eprintln!("not run: this user may not make a namespace");
        return;
    };
    let file = material(&service).await;
    let job = long_job(&service, &file, 200).await;
    service.has_checkpoint(&job).await;
    // The only child of `unshare`; its own children are the trainers.
    let inner = first
        .descendants()
        .into_iter()
        .find(|&pid| !descendants(pid).is_empty())
        .unwrap();
    kill(Pid::from_raw(inner), Signal::SIGTERM).unwrap();
    assert!(
        first.wait(Duration::from_secs(30)).success(),
        "{}",
        first.log()
    );
    let waiting = service.get(&service.path(&job)).await.ok();
    assert_eq!(outcomes(&waiting), ["yielded"], "{waiting}");
    assert_eq!(waiting["status"], "queued", "{waiting}");

    let _second = service.worker("second", &QUICK);
    service.runs_attempt(&job, 2).await;
    let resumed = service.get(&service.path(&job)).await.ok();
    let step = resumed["attempts"][1]["resumed_step"].as_u64();
    // What was saved when the signal came, not the last one before it: nothing was trained twice.
    let said = waiting["progress"]["step"].as_u64();
    assert!(step >= said && step > Some(0), "{step:?} after {said:?}");
    invariants(&service.pool().await).await;
}

/// As systemd does, or a batch system: the trainer must not end by it before the worker has told it
/// to save.
#[tokio::test(flavor = "multi_thread")]
async fn f27_a_sigterm_to_all_processes_at_once_saves_the_state_too() {
    let service = Service::start().await;
    let mut first = service.worker("first", &QUICK);
    let file = material(&service).await;
    let job = long_job(&service, &file, 200).await;
    service.has_checkpoint(&job).await;
    signal_all(&first.descendants(), Signal::SIGTERM);
    signal_all(&first.descendants(), Signal::SIGINT);
    first.signal(Signal::SIGTERM);
    assert!(
        first.wait(Duration::from_secs(30)).success(),
        "{}",
        first.log()
    );
    let waiting = service.get(&service.path(&job)).await.ok();
    assert_eq!(outcomes(&waiting), ["yielded"], "{waiting}");
    assert_eq!(waiting["budgets"]["crashes"], 0, "{waiting}");
    service.ask(&job, "cancel").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn f27_a_save_beyond_the_grace_keeps_the_last_checkpoint() {
    let service = Service::start().await;
    let mut arguments = QUICK.to_vec();
    arguments.extend(["--grace-ms", "1500"]);
    let mut first = service.worker("first", &arguments);
    let file = material(&service).await;
    let job = long_job(&service, &file, 12).await;
    service.has_checkpoint(&job).await;
    for pid in first.descendants() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
    }
    let asked = Instant::now();
    first.signal(Signal::SIGTERM);
    assert!(
        first.wait(Duration::from_secs(20)).success(),
        "{}",
        first.log()
    );
    println!("gone {:?} after SIGTERM", asked.elapsed());
    let waiting = service.get(&service.path(&job)).await.ok();
    assert_eq!(outcomes(&waiting), ["yielded"], "{waiting}");

    let second = service.worker("second", &QUICK);
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["yielded", "succeeded"], "{ended}");
    assert!(
        ended["attempts"][1]["resumed_step"].as_u64() > Some(0),
        "{ended}"
    );
    drop(second);

    // Twice: at once, with everything it started, and the lease runs out.
    let third = service.worker("third", &QUICK);
    let job: Value = long_job(&service, &file, 12).await;
    service.has_checkpoint(&job).await;
    let children = third.descendants();
    for &pid in &children {
        let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
    }
    let (mut third, asked) = (third, Instant::now());
    third.signal(Signal::SIGTERM);
    third.wait_for("signal again to exit at once");
    third.signal(Signal::SIGTERM);
    assert_eq!(third.wait(Duration::from_secs(5)).code(), Some(130));
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    eventually(Duration::from_secs(5), "end of its children", || {
        (!children.iter().any(|&pid| is_alive(pid))).then_some(())
    });
    let _fourth = service.worker("fourth", &QUICK);
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["lost", "succeeded"], "{ended}");
    invariants(&service.pool().await).await;
}
