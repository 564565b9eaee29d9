//! Requests of clients that wait: `wait`, `ETag`, request ids, long pages.

use std::time::Duration;

use rehead::{
    db::{controls, tenants::default_tenant},
    domain::job::Control,
};
use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};

use crate::{
    events::queued_job,
    support::service::{Answer, Service},
};

async fn with(service: &Service, path: &str, name: &'static str, value: &str) -> Answer {
    let value = value.to_owned();
    service
        .send(Method::GET, path, |request| request.header(name, value))
        .await
}

fn tag(headers: &HeaderMap) -> String {
    headers["etag"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn files_and_models_answer_304_until_they_change() {
    let service = Service::start_with(&["--max-wait-seconds", "1"]).await;
    let file = service.upload("a.zip", "fine-tune", vec![1; 10]).await.ok();
    let weights = service.upload("a.pth", "weights", vec![1; 10]).await.ok();
    let body = json!({"id": "net", "architecture": "resnet18", "weights": {"file": weights["id"]}});
    let model = service.post("/v1/base_models", &body).await.ok();
    assert_eq!(model["status"], "importing");
    let file = format!("/v1/files/{}", file["id"].as_str().unwrap());
    let mut tags = Vec::new();
    for path in [file.as_str(), "/v1/models/net"] {
        let first = service.get(path).await;
        let known = tag(&first.headers);
        let second = with(&service, path, "if-none-match", &known).await;
        assert_eq!(second.status, StatusCode::NOT_MODIFIED);
        assert_eq!(tag(&second.headers), known);
        let listed = format!("\"other\", {known}");
        let third = with(&service, path, "if-none-match", &listed).await;
        assert_eq!(third.status, StatusCode::NOT_MODIFIED);
        let other = with(&service, path, "if-none-match", "\"other\"").await;
        assert_eq!(other.ok(), first.ok());
        // Nothing happens: the wait ends without a change.
        let waited = format!("{path}?wait=1&until=change");
        let waited = with(&service, &waited, "if-none-match", &known).await;
        assert_eq!(waited.status, StatusCode::NOT_MODIFIED);
        tags.push(known);
    }
    let _worker = service.worker("worker", &[]);
    for (path, known) in [file.as_str(), "/v1/models/net"].into_iter().zip(tags) {
        let mut changed = None;
        for _ in 0..60 {
            let path = format!("{path}?wait=1&until=change");
            let answer = with(&service, &path, "if-none-match", &known).await;
            if answer.status == StatusCode::OK {
                changed = Some(answer.ok());
                break;
            }
        }
        // A registration that nobody waits for stays, in error.
        assert_eq!(changed.unwrap()["status"], "error");
    }
    let ended = service.get("/v1/models/net?wait=1&until=imported").await;
    assert_eq!(ended.ok()["status"], "error");
    service
        .get("/v1/models/none?wait=1")
        .await
        .error(404, "not_found");
}

#[tokio::test]
async fn a_sane_request_id_is_kept() {
    let service = Service::start().await;
    let longest = "x".repeat(128);
    for id in ["abc-123", longest.as_str(), "{\"id\":1}"] {
        let answer = with(&service, "/v1/files/file-0", "x-request-id", id).await;
        assert_eq!(answer.headers["x-request-id"], id);
        assert_eq!(answer.json()["error"]["request_id"], id);
    }
    for id in ["", "a b", &"x".repeat(129), "naïve", "a\tb"] {
        let answer = with(&service, "/healthz", "x-request-id", id).await;
        let made = answer.headers["x-request-id"].to_str().unwrap();
        assert!(made.starts_with("req_"), "{made}");
    }
}

#[tokio::test]
async fn long_pages_are_those_of_openais_clients() {
    let service = Service::start().await;
    let mut weights = Value::Null;
    for _ in 0..25 {
        weights = service.upload("a.pth", "weights", vec![1]).await.ok();
    }
    let count = |list: &Value| list["data"].as_array().unwrap().len();
    let list = service.get("/v1/files?limit=10000").await.ok();
    assert_eq!((count(&list), &list["has_more"]), (25, &json!(false)));
    service
        .get("/v1/files?limit=10001")
        .await
        .error(422, "out_of_range");
    let mut seen = 0;
    let mut after = String::new();
    loop {
        let path = format!("/v1/files?limit=10&order=asc&purpose=weights{after}");
        let page = service.get(&path).await.ok();
        seen += count(&page);
        if page["has_more"] == false {
            break;
        }
        after = format!("&after={}", page["last_id"].as_str().unwrap());
    }
    assert_eq!(seen, 25);
    let none = service.get("/v1/files?purpose=fine-tune-results").await;
    assert_eq!(count(&none.ok()), 0);

    // Their list of models has no pages: it is whole unless a limit is asked for.
    let pool = service.pool().await;
    sqlx::query(
        "insert into models (tenant_id, id, kind, status, architecture, modality, source_task, problems)
        select t.id, 'm' || n, 'base', 'error', 'resnet18', 'image', '{\"name\": \"x\", \"classes\": null, \"dataset\": null}', '[]'
        from tenants t, generate_series(1, 150) n",
    )
    .execute(&pool)
    .await
    .unwrap();
    assert_eq!(count(&service.get("/v1/models").await.ok()), 150);
    let page = service.get("/v1/models?limit=7").await.ok();
    assert_eq!((count(&page), &page["has_more"]), (7, &json!(true)));
    assert!(weights["id"].is_string());
}

#[tokio::test]
async fn ids_of_base_models_are_no_others() {
    let service = Service::start().await;
    let weights = service.upload("a.pth", "weights", vec![1]).await.ok();
    for id in [
        "", ".", "..", "...", ".a", "-a", "_a", "ftckpt_1", "ft:a", "a/b", "a b", "é",
    ] {
        let body =
            json!({"id": id, "architecture": "resnet18", "weights": {"file": weights["id"]}});
        service
            .post("/v1/base_models", &body)
            .await
            .error(422, "invalid_value");
    }
    for id in [".", "..", "%2e%2e", "ftckpt_zz", "ft:none"] {
        let path = format!("/v1/models/{id}/layers");
        let status = service.get(&path).await.status;
        assert_eq!(status, StatusCode::NOT_FOUND, "{id}");
    }
}

/// Who polls a job costs the database nothing, and still sees what they wrote themselves.
#[tokio::test]
async fn a_polled_job_is_kept_but_never_older_than_an_own_write() {
    let service = Service::start().await;
    let job = queued_job(&service).await;
    let path = format!("/v1/fine_tuning/jobs/{}", job["id"].as_str().unwrap());
    for (control, status) in [("pause", "paused"), ("resume", "queued")].repeat(10) {
        let before = service.get(&path).await.ok();
        let written = service.post(&format!("{path}/{control}"), &json!({})).await;
        assert_eq!(written.ok()["status"], status, "before: {before}");
        assert_eq!(service.get(&path).await.ok()["status"], status);
    }

    let pool = service.pool().await;
    let mut answered = false;
    for _ in 0..20 {
        let known = tag(&service.get(&path).await.headers);
        let mut locking = rehead::db::begin(&pool).await.unwrap();
        sqlx::query("lock table jobs in access exclusive mode")
            .execute(&mut *locking)
            .await
            .unwrap();
        let again = with(&service, &path, "if-none-match", &known);
        let again = tokio::time::timeout(Duration::from_millis(150), again).await;
        locking.rollback().await.unwrap();
        answered = again.is_ok_and(|answer| answer.status == StatusCode::NOT_MODIFIED);
        if answered {
            break;
        }
    }
    assert!(answered, "each poll reads the table");

    service.get(&path).await.ok();
    let id = job["id"].as_str().unwrap().parse().unwrap();
    let (tenant, _) = default_tenant(&pool).await.unwrap();
    controls::ask(&pool, tenant, id, Control::Cancel)
        .await
        .unwrap();
    let current = with(&service, &path, "cache-control", "no-cache").await;
    assert_eq!(current.ok()["status"], "cancelled", "by another process");
    service
        .until(&path, "cancelled job", |job| job["status"] == "cancelled")
        .await;
}
