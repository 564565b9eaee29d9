//! A trainer that lives and gets nowhere: the worker's heartbeats keep its lease, the watchdog ends
//! its attempt.

use std::time::{Duration, Instant};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use serde_json::json;

use crate::support::{
    attempts::{QUICK, long_job, material, outcomes},
    data::{clipart_subset, lite0_weights, zip},
    postgres::invariants,
    process::{Process, eventually},
    service::Service,
};

/// Stops every child of a worker that lives now, its trainers, the idle one with them; gives their
/// ids.
fn freeze_children(worker: &Process) -> Vec<i32> {
    let children = eventually(Duration::from_secs(30), "child", || {
        let children = worker.descendants();
        (!children.is_empty()).then_some(children)
    });
    for &pid in &children {
        let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
    }
    children
}

#[tokio::test(flavor = "multi_thread")]
async fn f19_a_trainer_that_is_never_ready_is_ended() {
    let service = Service::start().await;
    let mut arguments = QUICK.to_vec();
    arguments.extend(["--start-ms", "6000"]);
    let mut worker = service.worker("worker", &arguments);
    let file = material(&service).await;
    worker.wait_for("this worker is active");
    // The idle trainer, which the next job gets.
    freeze_children(&worker);
    let asked = Instant::now();
    let job = long_job(&service, &file, 2).await;
    let failed = service
        .until(&service.path(&job), "an ended attempt", |job| {
            job["attempts"][0]["outcome"].is_string()
        })
        .await;
    assert_eq!(failed["attempts"][0]["outcome"], "failed", "{failed}");
    let message = failed["attempts"][0]["message"].as_str().unwrap();
    assert!(message.contains("was not ready within 6"), "{message}");
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "{:?}",
        asked.elapsed()
    );
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["failed", "succeeded"], "{ended}");
    invariants(&service.pool().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f20_a_trainer_without_progress_is_stalled_and_retried() {
    let service = Service::start().await;
    let mut arguments = QUICK.to_vec();
    // A bundle is verified within it too, by a process that has to load torch.
    arguments.extend(["--stall-ms", "8000"]);
    let worker = service.worker("worker", &arguments);
    let file = material(&service).await;
    let job = long_job(&service, &file, 12).await;
    service.has_checkpoint(&job).await;
    let children = freeze_children(&worker);
    let frozen = Instant::now();
    let failed = service
        .until(&service.path(&job), "an ended attempt", |job| {
            job["attempts"][0]["outcome"].is_string()
        })
        .await;
    let attempt = &failed["attempts"][0];
    assert_eq!(attempt["outcome"], "failed", "{failed}");
    let message = attempt["message"].as_str().unwrap();
    assert!(message.contains("made no progress for"), "{message}");
    println!("stalled after {:?}: {message}", frozen.elapsed());
    // The idle one could not help it.
    for pid in children {
        let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
    }
    // The lease was never in doubt: its heartbeats went on all the time.
    assert!(!worker.log().contains("lease"), "{}", worker.log());
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["failed", "succeeded"], "{ended}");
    assert!(
        ended["attempts"][1]["resumed_step"].as_u64() > Some(0),
        "{ended}"
    );
    invariants(&service.pool().await).await;
}

/// Classes of two small images each.
fn many_classes(count: u32) -> Vec<u8> {
    let image = |number: u32| {
        let pixel =
            |x: u32, y: u32| image::Rgb([number as u8, (number / 256 * 80) as u8, (x * y) as u8]);
        let mut bytes = std::io::Cursor::new(Vec::new());
        let image = image::RgbImage::from_fn(8, 8, pixel);
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    let files = (0..2 * count).map(|number| {
        let name = format!("c{:04}/{number}.png", number / 2);
        (name, image(number))
    });
    zip(&files.collect::<Vec<_>>())
}

/// With 60 classes of two images, no epoch is as long as the linear probe before it. The time to
/// load torch is longer than the patience, too.
#[tokio::test(flavor = "multi_thread")]
async fn f20_what_computes_is_not_stalled() {
    let service = Service::start().await;
    let mut arguments = QUICK.to_vec();
    arguments.extend(["--stall-ms", "2500"]);
    let worker = service.worker("worker", &arguments);
    let weights = service.upload("lite0.pth", "weights", lite0_weights());
    let base = json!({
        "id": "efficientnet_lite0", "architecture": "tf_efficientnet_lite0",
        "weights": {"file": weights.await.ok()["id"]}, "preprocessing": {"input_size": 64},
    });
    service.post("/v1/base_models", &base).await.ok();
    let file = service.dataset(many_classes(60)).await;
    assert_eq!(file["status"], "processed", "{file}");
    let transfer = json!({"freeze": "all", "hyperparameters": {"n_epochs": 1}});
    let job = service.ended(&service.job(&file, &transfer).await).await;
    assert_eq!(job["status"], "succeeded", "{job}\n{}", worker.log());
    assert_eq!(outcomes(&job), ["succeeded"], "{job}");
    let events = format!("{}/events?limit=100", service.path(&job));
    let events = service.get(&events).await.ok().to_string();
    assert!(events.contains("probing"), "{events}");
}

/// Threads that wait for one another would stop all whenever one has lost its core.
#[tokio::test(flavor = "multi_thread")]
async fn f33_a_job_on_a_busy_machine_is_slow_and_never_stalled() {
    let service = Service::start().await;
    let mut worker = service.worker("worker", &["--threads", "2"]);
    service.lite0().await;
    let data = clipart_subset(&["animals", "food"], 12);
    let file = service.dataset(data).await;
    worker.wait_for("this worker is active");
    let busy: Vec<Busy> = (0..16).map(|_| Busy::start()).collect();
    let whole = json!({"freeze": "none", "hyperparameters": {"n_epochs": 1, "batch_size": 16}});
    let job = service.ended(&service.job(&file, &whole).await).await;
    drop(busy);
    assert_eq!(outcomes(&job), ["succeeded"], "{job}");
}

/// A process that never rests.
struct Busy(std::process::Child);

impl Busy {
    fn start() -> Self {
        let mut shell = std::process::Command::new("/bin/sh");
        let shell = shell.args(["-c", "while :; do :; done"]);
        Self(shell.spawn().unwrap())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
