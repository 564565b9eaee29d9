//! A worker trains on each of its devices: every listed device is a slot.

use std::{process::Command, time::Duration};

use serde_json::Value;

use crate::support::{
    attempts::{QUICK, endless_job, material, outcomes},
    postgres::invariants,
    process::{eventually, trainer},
    service::Service,
};

/// `--device auto` asks the trainer: every GPU that torch sees, or else the CPU.
#[test]
fn trainer_lists_the_devices_of_auto() {
    let listed = Command::new(trainer()).arg("devices").output().unwrap();
    let devices: Vec<String> = serde_json::from_slice(&listed.stdout).unwrap();
    let gpus = (0..devices.len()).map(|index| format!("cuda:{index}"));
    assert!(
        devices == ["cpu"] || devices == gpus.collect::<Vec<_>>(),
        "{devices:?}"
    );
}

async fn only_worker(service: &Service) -> Value {
    let workers = service.get("/v1/workers").await.ok();
    assert_eq!(workers["data"].as_array().unwrap().len(), 1, "{workers}");
    workers["data"][0].clone()
}

/// Two devices take two jobs at once, each with a warm trainer of its own; a third job waits.
#[tokio::test(flavor = "multi_thread")]
async fn listed_devices_train_one_job_each() {
    let service = Service::start().await;
    let mut arguments = QUICK.to_vec();
    arguments.extend(["--device", "cpu,cpu"]);
    let worker = service.worker("worker", &arguments);
    let file = material(&service).await;
    eventually(Duration::from_secs(30), "two warm trainers", || {
        (worker.descendants().len() == 2).then_some(())
    });
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(endless_job(&service, &file).await);
    }
    for job in &jobs[..2] {
        service.has_checkpoint(job).await;
    }
    let shown = only_worker(&service).await;
    assert_eq!(
        (&shown["device"], &shown["slots"], &shown["busy"]),
        (&"cpu,cpu".into(), &2.into(), &2.into()),
        "{shown}"
    );
    let waiting = service.get(&service.path(&jobs[2])).await.ok();
    assert_eq!(waiting["queue"]["reason"], "slots_busy", "{waiting}");
    for job in &jobs {
        service.has_checkpoint(job).await;
        service.ask(job, "stop").await.ok();
        let ended = service.ended(job).await;
        assert_eq!(outcomes(&ended), ["succeeded"], "{ended}\n{}", worker.log());
    }
    invariants(&service.pool().await).await;
}

/// A device that fails its self-test takes no job, and the other one trains.
#[tokio::test(flavor = "multi_thread")]
async fn unfit_device_leaves_the_other_slot_at_work() {
    let service = Service::start().await;
    let mut arguments = QUICK.to_vec();
    // No machine has as many GPUs.
    arguments.extend(["--device", "cpu,cuda:63"]);
    let mut worker = service.worker("worker", &arguments);
    worker.wait_for("this worker is active: cuda:63 is unfit:");
    let file = material(&service).await;
    let job = endless_job(&service, &file).await;
    service.has_checkpoint(&job).await;
    service.ask(&job, "stop").await.ok();
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["succeeded"], "{ended}");
    assert_eq!(ended["attempts"][0]["device"], "cpu", "{ended}");
    let shown = only_worker(&service).await;
    let reason = shown["reason"].as_str().unwrap();
    assert_eq!(
        (&shown["state"], &shown["slots"]),
        (&"active".into(), &1.into()),
        "{shown}"
    );
    assert!(reason.starts_with("cuda:63 is unfit:"), "{shown}");
    invariants(&service.pool().await).await;
}
