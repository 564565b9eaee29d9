//! No route gives anything of another tenant, and none changes it.

use rehead::domain::role::Role;
use reqwest::{Method, multipart};
use serde_json::{Value, json};

use crate::support::{
    data::clipart_subset,
    openapi::CONTRACT,
    service::{Answer, Service},
};

/// The id of another tenant's object for a route.
fn id<'a>(template: &str, owned: &'a Value) -> &'a str {
    let noun = match template {
        path if path.starts_with("/v1/files") => "file",
        path if path.starts_with("/v1/uploads") => "upload",
        path if path.starts_with("/v1/fine_tuning/checkpoints") => "checkpoint",
        path if path.starts_with("/v1/fine_tuning/jobs") => "job",
        path if path.starts_with("/v1/models") => "model",
        other => panic!("a route of a noun that this test does not know: {other}"),
    };
    owned[noun].as_str().unwrap()
}

async fn call(
    service: &Service,
    method: Method,
    path: &str,
    operation: &str,
    owned: &Value,
) -> Answer {
    service
        .send(method.clone(), path, |request| match operation {
            "complete_upload" => request.json(&json!({"part_ids": [owned["part"]]})),
            "add_upload_part" => {
                let part = multipart::Part::bytes(vec![1]);
                request.multipart(multipart::Form::new().part("data", part))
            }
            "predict" => {
                let part = multipart::Part::bytes(vec![1]).file_name("a.png");
                request.multipart(multipart::Form::new().part("image", part))
            }
            _ if method == Method::POST => request.json(&json!({})),
            _ => request,
        })
        .await
}

/// A tenant's objects of each noun.
async fn make(service: &Service) -> Value {
    let worker = service.worker("worker", &[]);
    service.lite0().await;
    let file = service
        .dataset(clipart_subset(&["animals", "food"], 10))
        .await;
    let choice = json!({"freeze": "all", "hyperparameters": {"n_epochs": 1}});
    let job = service.job(&file, &choice).await;
    let job = service.ended(&job).await;
    assert_eq!(job["status"], "succeeded", "{job}\n{}", worker.log());
    drop(worker);
    assert!(job["trained_tokens"].as_u64().unwrap() > 0, "{job}");
    let results = job["result_files"][0].as_str().unwrap();
    let results = service.get(&format!("/v1/files/{results}/content")).await;
    let results = results.text();
    let header = "step,epoch,learning_rate,train_loss,valid_loss,valid_accuracy";
    assert!(
        results.starts_with(header) && results.lines().count() > 2,
        "{results}"
    );
    // One that has not ended, to be cancelled.
    let waiting = service.job(&file, &choice).await;
    let body = json!({"filename": "a", "purpose": "weights", "bytes": 1});
    let upload = service.post("/v1/uploads", &body).await.ok();
    let parts = format!("/v1/uploads/{}/parts", upload["id"].as_str().unwrap());
    let part = multipart::Part::bytes(vec![1]);
    let form = multipart::Form::new().part("data", part);
    let part = service.send(Method::POST, &parts, |request| request.multipart(form));
    json!({
        "file": file["id"], "job": waiting["id"], "checkpoint": job["best_checkpoint"],
        "model": job["fine_tuned_model"], "upload": upload["id"], "part": part.await.ok()["id"],
        "results": job["result_files"][0],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_reaches_objects_of_another_tenant() {
    let mut service = Service::start().await;
    let owned = make(&service).await;
    let own = service.new_key("default", Role::User).await;
    let other = service.new_key("other", Role::User).await;
    service.key = Some(other);
    let mut routes = 0;
    for (template, item) in CONTRACT["paths"].as_object().unwrap() {
        // Keys are an operator's, of all tenants.
        if !template.contains("{id}") || template.starts_with("/v1/keys/") {
            continue;
        }
        for (method, operation) in item.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let operation = operation["operationId"].as_str().unwrap();
            let path = template.replace("{id}", id(template, &owned));
            let answer = call(&service, method, &path, operation, &owned).await;
            assert_eq!(answer.status, 404, "{operation}: {}", answer.text());
            routes += 1;
        }
    }
    assert!(routes > 20, "{routes}");
    let checkpoint = owned["checkpoint"].as_str().unwrap();
    let path = format!("/v1/models/{checkpoint}/predict");
    call(&service, Method::POST, &path, "predict", &owned)
        .await
        .error(404, "not_found");
    for path in ["/v1/files", "/v1/models", "/v1/fine_tuning/jobs"] {
        assert_eq!(service.get(path).await.ok()["data"], json!([]), "{path}");
    }

    // Nothing has changed for the owner.
    service.key = Some(own);
    for (path, noun) in [
        ("/v1/files", "file"),
        ("/v1/files", "results"),
        ("/v1/models", "model"),
        ("/v1/fine_tuning/jobs", "job"),
    ] {
        let path = format!("{path}/{}", owned[noun].as_str().unwrap());
        service.get(&path).await.ok();
    }
    let job = format!("/v1/fine_tuning/jobs/{}", owned["job"].as_str().unwrap());
    assert_eq!(service.get(&job).await.ok()["status"], "queued");
    let upload = format!("/v1/uploads/{}/cancel", owned["upload"].as_str().unwrap());
    service.post(&upload, &json!({})).await.ok();
}
