//! A request that creates something may be sent again with its `Idempotency-Key`.

use rehead::domain::role::Role;
use reqwest::{Method, RequestBuilder, multipart};
use serde_json::{Value, json};

use crate::support::service::{Answer, Service};

fn form(content: &[u8], lifetime: Option<&str>) -> multipart::Form {
    let file = multipart::Part::bytes(content.to_vec()).file_name("a.pth");
    let form = multipart::Form::new()
        .part("file", file)
        .text("purpose", "weights");
    match lifetime {
        Some(seconds) => form
            .text("expires_after[anchor]", "created_at")
            .text("expires_after[seconds]", seconds.to_owned()),
        None => form,
    }
}

async fn keyed(
    service: &Service,
    path: &str,
    key: &str,
    build: impl FnOnce(RequestBuilder) -> RequestBuilder,
) -> Answer {
    let send = service.send(Method::POST, path, |request| {
        build(request.header("idempotency-key", key))
    });
    send.await
}

fn is_replayed(answer: &Answer) -> bool {
    answer
        .headers
        .get("idempotent-replayed")
        .is_some_and(|value| value == "true")
}

/// Sends a request and its repetition: the same object, marked.
async fn twice(first: Answer, second: Answer) -> Value {
    assert!(!is_replayed(&first));
    assert!(is_replayed(&second), "{}", second.text());
    let (first, second) = (first.ok(), second.ok());
    assert_eq!(first["id"], second["id"]);
    second
}

#[tokio::test]
async fn the_same_key_and_body_gives_the_first_answer() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    let file = |content: &'static [u8], lifetime| {
        let form = form(content, lifetime);
        keyed(&service, "/v1/files", "f", |request| {
            request.multipart(form)
        })
    };
    let weights = twice(file(b"abc", None).await, file(b"abc", None).await).await;
    file(b"abd", None)
        .await
        .error(409, "idempotency_key_reused");
    file(b"abc", Some("3600"))
        .await
        .error(409, "idempotency_key_reused");
    let files = service.get("/v1/files").await.ok();
    assert_eq!(files["data"].as_array().unwrap().len(), 1);

    let upload = |bytes: u64| {
        let body = json!({"filename": "a.pth", "purpose": "weights", "bytes": bytes});
        keyed(&service, "/v1/uploads", "f", move |request| {
            request.json(&body)
        })
    };
    let made = twice(upload(3).await, upload(3).await).await;
    upload(4).await.error(409, "idempotency_key_reused");

    let path = format!("/v1/uploads/{}/parts", made["id"].as_str().unwrap());
    let part = |content: &'static [u8]| {
        let form = multipart::Form::new().part("data", multipart::Part::bytes(content));
        keyed(&service, &path, "f", |request| request.multipart(form))
    };
    twice(part(b"abc").await, part(b"abc").await).await;
    part(b"xyz").await.error(409, "idempotency_key_reused");

    let model = |id: &str, file: &Value| {
        let body = json!({"id": id, "architecture": "resnet18", "weights": {"file": file["id"]}});
        keyed(&service, "/v1/base_models", "f", move |request| {
            request.json(&body)
        })
    };
    // A refused registration makes nothing, so its key stays free.
    model("net", &weights)
        .await
        .error(422, "unsupported_format");
    model("other", &weights)
        .await
        .error(422, "unsupported_format");
}

#[tokio::test]
async fn a_webhook_is_registered_once_per_key() {
    let arguments = ["--private-hosts", "127.0.0.1:9", "--max-webhooks", "1"];
    let service = Service::start_with(&arguments).await;
    let webhook = |url: &str| {
        let body = json!({"url": url});
        keyed(&service, "/v1/webhooks", "k", move |request| {
            request.json(&body)
        })
    };
    let first = webhook("http://127.0.0.1:9/a").await;
    let secret = first.json()["secret"].clone();
    assert!(secret.is_string(), "{}", first.text());
    // Its caller may have lost the first answer, and the secret with it.
    let again = twice(first, webhook("http://127.0.0.1:9/a").await).await;
    assert_eq!(again["secret"], secret);
    webhook("http://127.0.0.1:9/b")
        .await
        .error(409, "idempotency_key_reused");
}

#[tokio::test]
async fn a_base_model_is_registered_once_per_key() {
    // Without a worker the import stays under way.
    let service = Service::start_with(&["--max-wait-seconds", "1"]).await;
    let weights = service.upload("a.pth", "weights", vec![1, 2, 3]).await.ok();
    let model = |id: &str| {
        let body =
            json!({"id": id, "architecture": "resnet18", "weights": {"file": weights["id"]}});
        keyed(&service, "/v1/base_models", "k", move |request| {
            request.json(&body)
        })
    };
    let model = twice(model("net").await, model("net").await).await;
    assert_eq!(model["status"], "importing");
    let body =
        json!({"id": "other", "architecture": "resnet18", "weights": {"file": weights["id"]}});
    keyed(&service, "/v1/base_models", "k", |request| {
        request.json(&body)
    })
    .await
    .error(409, "idempotency_key_reused");
    let models = service.get("/v1/models").await.ok();
    assert_eq!(models["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn fifty_requests_with_one_key_make_one_file() {
    let service = Service::start_with(&["--max-uploads-per-tenant", "50"]).await;
    let send = |_| {
        let form = form(b"abc", None);
        keyed(&service, "/v1/files", "k", |request| {
            request.multipart(form)
        })
    };
    let answers = futures_util::future::join_all((0..50).map(send)).await;
    let fresh = answers.iter().filter(|answer| !is_replayed(answer)).count();
    assert_eq!(fresh, 1);
    let ids: std::collections::HashSet<String> = answers
        .into_iter()
        .map(|answer| answer.ok()["id"].to_string())
        .collect();
    assert_eq!(ids.len(), 1);
    let files = service.objects().join("files");
    for _ in 0..200 {
        if std::fs::read_dir(&files).unwrap().count() == 1 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("content of requests that made no file is left");
}

#[tokio::test]
async fn keys_of_tenants_are_independent_and_freed_with_their_row() {
    let mut service = Service::start().await;
    let first = keyed(&service, "/v1/files", "k", |request| {
        request.multipart(form(b"abc", None))
    });
    let first = first.await.ok();
    let path = format!("/v1/files/{}", first["id"].as_str().unwrap());
    service.delete(&path).await.ok();
    let again = keyed(&service, "/v1/files", "k", |request| {
        request.multipart(form(b"xyz", None))
    });
    let again = again.await;
    assert!(!is_replayed(&again));
    service.key = Some(service.new_key("other", Role::User).await);
    let other = keyed(&service, "/v1/files", "k", |request| {
        request.multipart(form(b"xyz", None))
    });
    let other = other.await;
    assert!(!is_replayed(&other));
    assert_ne!(other.ok()["id"], again.ok()["id"]);
    for key in ["", &"k".repeat(256)] {
        keyed(&service, "/v1/uploads", key, |request| {
            request.json(&json!({"filename": "a", "purpose": "weights", "bytes": 1}))
        })
        .await
        .error(422, "invalid_value");
    }
}

#[tokio::test]
async fn files_expire_as_the_form_says() {
    let service = Service::start().await;
    let send = |form| service.send(Method::POST, "/v1/files", |request| request.multipart(form));
    let file = send(form(b"abc", Some("3600"))).await.ok();
    let seconds = |name: &str| file[name].as_i64().unwrap();
    assert_eq!(seconds("expires_at") - seconds("created_at"), 3_600);
    send(form(b"abc", Some("2592000"))).await.ok();
    assert_eq!(
        send(form(b"abc", None)).await.ok()["expires_at"],
        Value::Null
    );
    for (seconds, code) in [
        ("3599", "out_of_range"),
        ("2592001", "out_of_range"),
        ("soon", "invalid_value"),
    ] {
        send(form(b"abc", Some(seconds))).await.error(422, code);
    }
    let half = form(b"abc", None).text("expires_after[seconds]", "3600");
    let message = send(half).await.error(422, "missing_field");
    assert!(message.contains("expires_after[anchor]"), "{message}");
    let wrong = form(b"abc", None).text("expires_after[anchor]", "last_used_at");
    send(wrong).await.error(422, "invalid_value");
}
