//! A disk that fills up while a job trains, and has room again later.

use std::{fs::File, io::Write};

use crate::support::{
    attempts::{QUICK, long_job, material, outcomes},
    postgres::invariants,
    service::Service,
    tmpfs::Tmpfs,
};

#[tokio::test(flavor = "multi_thread")]
async fn f32_a_full_disk_costs_one_attempt() {
    let service = Service::start().await;
    let small = service.dir.path().join("small");
    let Some(_small) = Tmpfs::mount(&small, 400) else {
        eprintln!("not run: this user may not mount a tmpfs");
        return;
    };
    let worker = service.worker("small/worker", &QUICK);
    let file = material(&service).await;
    let job = long_job(&service, &file, 60).await;
    service.has_checkpoint(&job).await;

    let filler = small.join("filler");
    let filling = File::create(&filler).unwrap();
    let failed = service
        .until(&service.path(&job), "a failed attempt", |job| {
            // What the trainer gives back is taken again.
            while (&filling).write_all(&[7; 1 << 16]).is_ok() {}
            job["attempts"][0]["outcome"].is_string()
        })
        .await;
    assert_eq!(failed["attempts"][0]["outcome"], "failed", "{failed}");
    let message = failed["attempts"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("No space left") || message.contains("full"),
        "{message}"
    );
    let events = service
        .get(&format!("{}/events?limit=100", service.path(&job)))
        .await
        .ok();
    assert!(events.to_string().contains("storage_full"), "{events}");
    drop(filling);
    std::fs::remove_file(&filler).unwrap();

    // The same worker, from the last checkpoint before.
    let ended = service.ended(&job).await;
    let ends = outcomes(&ended);
    assert_eq!(ends.last(), Some(&"succeeded"), "{ended}");
    let resumed = ended["attempts"][ends.len() - 1]["resumed_step"].as_u64();
    assert!(resumed > Some(0), "{ended}\n{}", worker.log());
    invariants(&service.pool().await).await;
}
