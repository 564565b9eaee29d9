//! A full disk ends what cannot be written with a name and a sentence, keeps what was there, and
//! holds up nothing else.

use std::{fs::File, io::Write, time::Duration};

use serde_json::Value;

use crate::support::{
    attempts::{QUICK, long_job, material},
    data::{clipart_subset, files_below},
    process::eventually,
    service::Service,
    tmpfs::Tmpfs,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_does_not_fit_leaves_nothing() {
    let service = Service::start().await;
    let objects = service.objects();
    let Some(_small) = Tmpfs::mount(&objects, 8) else {
        // Needs a user who may mount; CI runs as root.
        eprintln!("not run: this user may not mount a tmpfs");
        return;
    };
    let answer = service
        .upload("big.zip", "fine-tune", vec![7; 16 << 20])
        .await;
    let message = answer.error(507, "storage_full");
    assert!(message.contains("full"), "{message}");
    assert_eq!(files_below(&service.objects()), Vec::<String>::new());
    // A smaller one fits.
    service
        .upload("small.zip", "fine-tune", vec![7; 1 << 20])
        .await
        .ok();
    // Before its objects go with the file system.
    drop(service);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_save_fails_by_name_and_others_go_on() {
    let service = Service::start().await;
    let full = service.dir.path().join("full");
    let Some(_small) = Tmpfs::mount(&full, 24) else {
        eprintln!("not run: this user may not mount a tmpfs");
        return;
    };
    let roomy = service.worker("roomy", &QUICK);
    let file = material(&service).await;
    drop(roomy);
    let hopeless = long_job(&service, &file, 3).await;
    let pool = service.pool().await;
    sqlx::query("update jobs set max_failures = 0")
        .execute(&pool)
        .await
        .unwrap();
    let patient = long_job(&service, &file, 3).await;
    // Its folder holds the base weights, and no checkpoint beside them.
    let cramped = service.worker("full/worker", &QUICK);
    let failed = service.ended(&hopeless).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert_eq!(failed["error"]["code"], "storage_full", "{failed}");
    assert_eq!(failed["error"]["permanent"], false, "{failed}");
    let message = failed["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("full") || message.contains("No space left"),
        "{message}"
    );
    drop(cramped);

    let _roomy = service.worker("roomy", &QUICK);
    let ended = service.ended(&patient).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
}

/// The images are not to blame.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_set_that_finds_no_room_to_be_checked_waits_for_it() {
    let service = Service::start().await;
    let full = service.dir.path().join("full");
    let Some(_small) = Tmpfs::mount(&full, 32) else {
        eprintln!("not run: this user may not mount a tmpfs");
        return;
    };
    let mut worker = service.worker("full/worker", &[]);
    worker.wait_for("this worker is active");
    let filler = full.join("filler");
    let mut filling = File::create(&filler).unwrap();
    while filling.write_all(&[7; 1 << 12]).is_ok() {}
    let images = clipart_subset(&["animals", "food"], 10);
    let file = service.upload("data.zip", "fine-tune", images).await.ok();
    eventually(Duration::from_secs(60), "two tries", || {
        (worker.log().matches("no room to validate").count() >= 2).then_some(())
    });
    let pool = service.pool().await;
    let crashes: Vec<i32> = sqlx::query_scalar("select crashes from work where kind = 'validate'")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert!(crashes.iter().all(|&crashes| crashes == 0), "{crashes:?}");
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    assert_eq!(service.get(&path).await.ok()["status"], "uploaded");
    std::fs::remove_file(&filler).unwrap();
    drop(filling);
    let checked = |file: &Value| file["status"] == "processed";
    service.until(&path, "room for its check", checked).await;
}
