//! Uploads in parts: their bytes become a file, exactly once, within limits.

use std::path::Path;

use md5::{Digest as _, Md5};
use rehead::{db::uploads, domain::role::Role, garbage_collection, objects::Objects};
use reqwest::{Method, multipart};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::{
    data::files_below,
    service::{Answer, Service},
};

const UPLOADS: &str = "/v1/uploads";

fn request(bytes: usize) -> Value {
    json!({"filename": "a.pth", "purpose": "weights", "bytes": bytes, "mime_type": "application/octet-stream"})
}

async fn create(service: &Service, bytes: usize) -> String {
    let upload = service.post(UPLOADS, &request(bytes)).await.ok();
    assert_eq!(upload["object"], "upload");
    assert_eq!(upload["status"], "pending");
    assert_eq!(upload["file"], Value::Null);
    upload["id"].as_str().unwrap().to_owned()
}

async fn add(service: &Service, upload: &str, data: Vec<u8>) -> Answer {
    let form = multipart::Form::new().part("data", multipart::Part::bytes(data).file_name("data"));
    let path = format!("{UPLOADS}/{upload}/parts");
    service
        .send(Method::POST, &path, |request| request.multipart(form))
        .await
}

async fn part(service: &Service, upload: &str, data: &[u8]) -> String {
    let part = add(service, upload, data.to_vec()).await.ok();
    assert_eq!(part["object"], "upload.part");
    assert_eq!(part["upload_id"], upload);
    part["id"].as_str().unwrap().to_owned()
}

async fn complete(service: &Service, upload: &str, body: &Value) -> Answer {
    service
        .post(&format!("{UPLOADS}/{upload}/complete"), body)
        .await
}

async fn cancel(service: &Service, upload: &str) -> Answer {
    service
        .post(&format!("{UPLOADS}/{upload}/cancel"), &json!({}))
        .await
}

/// Bytes that differ everywhere.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i * 31 % 251) as u8).collect()
}

/// Objects below a folder of the store.
fn objects(service: &Service, folder: &str) -> usize {
    let folder = service.objects().join(folder);
    if Path::new(&folder).exists() {
        files_below(&folder).len()
    } else {
        0
    }
}

/// Waits for what a handler deletes behind its answer.
async fn until_gone(service: &Service, folder: &str) {
    for _ in 0..200 {
        if objects(service, folder) == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{} objects are left in {folder}", objects(service, folder));
}

#[tokio::test]
async fn parts_in_any_order_and_again_make_the_file() {
    let service = Service::start().await;
    let whole = bytes(300_000);
    let upload = create(&service, whole.len()).await;
    let (b, a, again) = tokio::join!(
        part(&service, &upload, &whole[100_000..]),
        part(&service, &upload, &whole[..100_000]),
        part(&service, &upload, &whole[..100_000]),
    );
    assert_ne!(a, again);
    let md5 = hex::encode(Md5::digest(&whole)).to_uppercase();
    let body = json!({"part_ids": [a, b], "md5": md5});
    let completed = complete(&service, &upload, &body).await.ok();
    assert_eq!(completed["status"], "completed");
    let file = &completed["file"];
    assert_eq!(file["bytes"], whole.len());
    assert_eq!(file["filename"], "a.pth");
    assert_eq!(file["sha256"], hex::encode(Sha256::digest(&whole)));
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    assert_eq!(service.get(&path).await.ok(), *file);
    let content = service.get(&format!("{path}/content")).await;
    assert!(content.body == whole);
    until_gone(&service, "uploads").await;

    // A client that lost the answer gets it again; everything else comes too late.
    assert_eq!(complete(&service, &upload, &body).await.ok(), completed);
    let other = json!({"part_ids": [again, b]});
    complete(&service, &upload, &other)
        .await
        .error(409, "upload_ended");
    cancel(&service, &upload).await.error(409, "upload_ended");
    add(&service, &upload, vec![1])
        .await
        .error(409, "upload_ended");
    service.delete(&path).await.ok();
    let completed = complete(&service, &upload, &body).await.ok();
    assert_eq!(completed["file"], Value::Null);
}

#[tokio::test]
async fn a_completed_data_set_is_validated() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    let archive = crate::support::data::clipart_subset(&["animals", "food"], 10);
    let mut request = request(archive.len());
    request["purpose"] = "fine-tune".into();
    request["expires_after"] = json!({"anchor": "created_at", "seconds": 3_600});
    let upload = service.post(UPLOADS, &request).await.ok();
    let upload = upload["id"].as_str().unwrap();
    let mut parts = Vec::new();
    for chunk in archive.chunks(archive.len() / 3 + 1) {
        parts.push(part(&service, upload, chunk).await);
    }
    let completed = complete(&service, upload, &json!({"part_ids": parts}))
        .await
        .ok();
    let file = &completed["file"];
    assert_eq!(file["status"], "uploaded");
    let lifetime = file["expires_at"].as_i64().unwrap() - file["created_at"].as_i64().unwrap();
    assert_eq!(lifetime, 3_600);
    let path = format!(
        "/v1/files/{}?wait=60&until=processed",
        file["id"].as_str().unwrap()
    );
    assert_eq!(service.get(&path).await.ok()["status"], "processed");
}

#[tokio::test]
async fn an_upload_survives_a_restart_of_the_server() {
    let mut service = Service::start().await;
    let whole = bytes(50_000);
    let upload = create(&service, whole.len()).await;
    let a = part(&service, &upload, &whole[..20_000]).await;
    service.restart_server();
    let b = part(&service, &upload, &whole[20_000..]).await;
    let completed = complete(&service, &upload, &json!({"part_ids": [a, b]}))
        .await
        .ok();
    assert_eq!(
        completed["file"]["sha256"],
        hex::encode(Sha256::digest(&whole))
    );
}

#[tokio::test]
async fn limits_on_uploads_hold_at_the_limit_and_past_it() {
    let service = Service::start_with(&[
        "--max-upload-bytes",
        "1000",
        "--max-part-bytes",
        "100",
        "--max-upload-parts",
        "4",
        "--max-uploads",
        "2",
    ])
    .await;
    service
        .post(UPLOADS, &request(1_001))
        .await
        .error(413, "too_large");
    service
        .post(UPLOADS, &request(0))
        .await
        .error(422, "out_of_range");
    let mut wrong = request(1);
    wrong["filename"] = "a\nb".into();
    wrong["expires_after"] = json!({"anchor": "created_at", "seconds": 3_599});
    let all = service.post(UPLOADS, &wrong).await;
    all.error(422, "out_of_range");
    let upload = create(&service, 1_000).await;
    let other = create(&service, 10).await;
    let full = service.post(UPLOADS, &request(10)).await;
    assert_eq!(full.headers["x-should-retry"], "false");
    full.error(429, "too_many_uploads");

    add(&service, &upload, vec![0; 101])
        .await
        .error(413, "too_large");
    add(&service, &upload, vec![])
        .await
        .error(422, "empty_file");
    for _ in 0..4 {
        part(&service, &upload, &[1; 100]).await;
    }
    add(&service, &upload, vec![1])
        .await
        .error(413, "too_large");
    // Ten bytes may be sent twice, and one part more.
    part(&service, &other, &[1; 100]).await;
    part(&service, &other, &[1; 20]).await;
    add(&service, &other, vec![1]).await.error(413, "too_large");

    cancel(&service, &upload).await.ok();
    assert_eq!(cancel(&service, &upload).await.ok()["status"], "cancelled");
    create(&service, 1_000).await;
    until_gone(&service, &format!("uploads/{}", &upload["upload_".len()..])).await;
}

#[tokio::test]
async fn a_completion_that_does_not_fit_names_what_is_wrong() {
    let service = Service::start().await;
    let upload = create(&service, 30).await;
    let other = create(&service, 30).await;
    let a = part(&service, &upload, &[1; 10]).await;
    let b = part(&service, &upload, &[2; 20]).await;
    let foreign = part(&service, &other, &[2; 20]).await;
    let refused =
        async |body: Value, code: &str| complete(&service, &upload, &body).await.error(422, code);
    refused(json!({"part_ids": []}), "out_of_range").await;
    refused(json!({"part_ids": [a, a]}), "invalid_value").await;
    refused(json!({"part_ids": [a]}), "bytes_mismatch").await;
    refused(json!({"part_ids": ["part_1"]}), "invalid_value").await;
    let message = refused(json!({"part_ids": [a, foreign]}), "unknown_part").await;
    assert!(message.contains("part_ids[1]"), "{message}");
    refused(json!({"part_ids": [a, b], "md5": "xyz"}), "invalid_value").await;
    let md5 = "0".repeat(32);
    refused(json!({"part_ids": [b, a], "md5": md5}), "checksum_mismatch").await;
    until_gone(&service, "files").await;
    complete(&service, &upload, &json!({"part_ids": [b, a]}))
        .await
        .ok();
}

#[tokio::test]
async fn of_many_completions_and_cancellations_one_wins() {
    let service = Service::start().await;
    for round in 0..6 {
        let upload = create(&service, 400_000).await;
        let mut parts = Vec::new();
        for chunk in bytes(400_000).chunks(50_000) {
            parts.push(part(&service, &upload, chunk).await);
        }
        let body = json!({"part_ids": parts});
        let (completions, cancelled) = tokio::join!(
            futures_util::future::join_all((0..4).map(|_| complete(&service, &upload, &body))),
            async {
                tokio::time::sleep(std::time::Duration::from_millis(round * 3)).await;
                cancel(&service, &upload).await
            },
        );
        let files = service.get("/v1/files?limit=100").await.ok();
        let made = files["data"].as_array().unwrap().len();
        if cancelled.status.is_success() {
            assert_eq!(made, 0);
            for answer in completions {
                answer.error(409, "upload_ended");
            }
        } else {
            cancelled.error(409, "upload_ended");
            assert_eq!(made, 1);
            for answer in completions {
                assert_eq!(answer.ok()["file"], files["data"][0]);
            }
            let id = files["data"][0]["id"].as_str().unwrap();
            service.delete(&format!("/v1/files/{id}")).await.ok();
        }
        until_gone(&service, "uploads").await;
        until_gone(&service, "files").await;
    }
}

#[tokio::test]
async fn parts_of_open_uploads_count_as_stored() {
    let service = Service::start_with(&["--max-stored-bytes", "8"]).await;
    let upload = create(&service, 8).await;
    let first = part(&service, &upload, &[1; 4]).await;
    let full = "storage_quota_exceeded";
    add(&service, &upload, vec![2; 5]).await.error(429, full);
    let second = part(&service, &upload, &[2; 4]).await;
    add(&service, &upload, vec![3]).await.error(429, full);
    // Once cancelled they count no more; once completed the file counts.
    cancel(&service, &upload).await.ok();
    let body = json!({"part_ids": [first, second]});
    complete(&service, &upload, &body)
        .await
        .error(409, "upload_ended");
    let upload = create(&service, 8).await;
    let whole = part(&service, &upload, &[4; 8]).await;
    let body = json!({"part_ids": [whole]});
    complete(&service, &upload, &body).await.ok();
    let next = create(&service, 1).await;
    add(&service, &next, vec![5]).await.error(429, full);
}

#[tokio::test]
async fn a_damaged_or_missing_part_makes_no_file() {
    let service = Service::start().await;
    let upload = create(&service, 4).await;
    let id = part(&service, &upload, &[1; 4]).await;
    let body = json!({"part_ids": [id]});
    let object = files_below(&service.objects().join("uploads")).remove(0);
    let damages: [Option<&[u8]>; 3] = [Some(&[1, 1, 1, 2]), Some(&[1, 1, 1]), None];
    for damage in damages {
        match damage {
            Some(bytes) => std::fs::write(&object, bytes).unwrap(),
            None => std::fs::remove_file(&object).unwrap(),
        }
        let error = complete(&service, &upload, &body)
            .await
            .error(500, "object_damaged");
        assert!(error.contains(&id), "{error}");
    }
    assert_eq!(service.get("/v1/files").await.ok()["data"], json!([]));
}

#[tokio::test]
async fn uploads_of_other_tenants_do_not_exist() {
    let mut service = Service::start().await;
    let upload = create(&service, 4).await;
    let a = part(&service, &upload, &[1; 4]).await;
    service.key = Some(service.new_key("other", Role::User).await);
    add(&service, &upload, vec![1])
        .await
        .error(404, "not_found");
    complete(&service, &upload, &json!({"part_ids": [a]}))
        .await
        .error(404, "not_found");
    cancel(&service, &upload).await.error(404, "not_found");
    // The part of another tenant's upload is no part of one's own.
    let own = create(&service, 4).await;
    complete(&service, &own, &json!({"part_ids": [a]}))
        .await
        .error(422, "unknown_part");
}

#[tokio::test]
async fn uploads_expire_and_are_collected() {
    let service = Service::start().await;
    let upload = create(&service, 4).await;
    let a = part(&service, &upload, &[1; 4]).await;
    let pool = service.pool().await;
    let store = Objects::open(service.objects().to_str().unwrap()).unwrap();
    let sweep = || garbage_collection::sweep(&pool, &store, std::time::Duration::ZERO);
    sweep().await.unwrap();
    assert_eq!(objects(&service, "uploads"), 1, "it is still open");
    sqlx::query("update uploads set expires_at = now()")
        .execute(&pool)
        .await
        .unwrap();
    let body = json!({"part_ids": [a]});
    let message = complete(&service, &upload, &body)
        .await
        .error(409, "upload_ended");
    assert!(message.contains("expired"), "{message}");
    add(&service, &upload, vec![1])
        .await
        .error(409, "upload_ended");
    sweep().await.unwrap();
    assert_eq!(objects(&service, "uploads"), 0);
    cancel(&service, &upload).await.error(409, "upload_ended");
    // A day later nothing is left.
    uploads::forget(&pool).await.unwrap();
    cancel(&service, &upload).await.error(409, "upload_ended");
    sqlx::query("update uploads set expires_at = now() - interval '25 hours'")
        .execute(&pool)
        .await
        .unwrap();
    uploads::forget(&pool).await.unwrap();
    cancel(&service, &upload).await.error(404, "not_found");
}
