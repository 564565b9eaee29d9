//! A full disk ends what cannot be written with a name and a sentence, keeps what was there, and holds up nothing else.

use crate::support::{
    attempts::{long_job, material},
    data::files_below,
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
    let roomy = service.worker("roomy", &[]);
    let file = material(&service).await;
    drop(roomy);
    // Its folder holds the base weights, and no checkpoint beside them.
    let cramped = service.worker("full/worker", &[]);
    let job = long_job(&service, &file, 3).await;
    service.runs_attempt(&job, 1).await;
    let path = format!("/v1/fine_tuning/jobs/{}", job["id"].as_str().unwrap());
    let failed = service
        .until(&path, "a failed attempt", |job| {
            job["attempts"][0]["outcome"].is_string()
        })
        .await;
    assert_eq!(failed["attempts"][0]["outcome"], "failed", "{failed}");
    let message = failed["attempts"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("storage_full") || message.contains("full"),
        "{message}"
    );
    drop(cramped);

    let _roomy = service.worker("roomy", &[]);
    let ended = service.ended(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
}
