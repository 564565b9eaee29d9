//! Corrected data sets: made of a stored one, with exactly the changes that were asked for.

use std::{collections::BTreeMap, io::Read as _};

use rehead::domain::role::Role;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{data, postgres::invariants, service::Service};

/// The samples of a data set by path: label, split and SHA-256, as its pack has them.
fn samples(service: &Service, file: &Value) -> BTreeMap<String, (String, u8, Vec<u8>)> {
    let id = &file["id"].as_str().unwrap()[5..];
    let pack = service
        .objects()
        .join(format!("files/{id}/pack.safetensors"));
    let bytes = std::fs::read(pack).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().as_ref().unwrap();
    let classes: Vec<String> = serde_json::from_str(&metadata["classes"]).unwrap();
    let pack = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name: &str| pack.tensor(name).unwrap().data().to_vec();
    let paths: Vec<String> = serde_json::from_slice(&tensor("paths")).unwrap();
    let (labels, splits, hashes) = (tensor("label"), tensor("split"), tensor("sha256"));
    let sample = |(at, path): (usize, String)| {
        let label = labels[8 * at..].first_chunk().unwrap();
        let label = classes[i64::from_le_bytes(*label) as usize].clone();
        (path, (label, splits[at], hashes[32 * at..][..32].to_vec()))
    };
    paths.into_iter().enumerate().map(sample).collect()
}

async fn correct(service: &Service, file: &Value, body: &Value) -> Value {
    let id = file["id"].as_str().unwrap();
    let made = service
        .post(&format!("/v1/files/{id}/corrections"), body)
        .await;
    let made = made.ok();
    assert_eq!(made["corrected_from"], file["id"]);
    let path = format!(
        "/v1/files/{}?wait=60&until=processed",
        made["id"].as_str().unwrap()
    );
    service.get(&path).await.ok()
}

/// D23: what is wrong is refused by name; what is made has exactly those changes, can be corrected
/// again, downloaded, and uploaded again.
#[tokio::test(flavor = "multi_thread")]
async fn corrected_data_set_has_exactly_those_changes() {
    let mut service = Service::start().await;
    let _worker = service.worker("worker", &[]);
    let file = service
        .dataset(data::clipart_subset(&["animals", "food", "people"], 8))
        .await;
    let id = file["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/files/{id}/corrections");
    for (body, code, at) in [
        (json!({}), "missing_field", ""),
        (json!({"exclude": [24]}), "unknown_sample", "exclude[24]"),
        (json!({"exclude": [-1]}), "invalid_value", "exclude"),
        (json!({"exclude": 3}), "invalid_value", "exclude"),
        (
            json!({"relabel": {"99": "food"}}),
            "unknown_sample",
            "relabel.99",
        ),
        (
            json!({"relabel": {"x": "food"}}),
            "invalid_value",
            "relabel",
        ),
        (
            json!({"relabel": {"1": "foot"}}),
            "unknown_class",
            "relabel.1",
        ),
        (
            json!({"relabel": {"1": ["food"]}}),
            "wrong_type",
            "relabel.1",
        ),
        (json!({"relabel": {"1": true}}), "invalid_value", "relabel"),
        (
            json!({"relabel": {"1": "food"}, "exclude": [1]}),
            "contradiction",
            "relabel.1",
        ),
        (
            json!({"exclude": [1], "drop": [2]}),
            "unknown_field",
            "drop",
        ),
    ] {
        let answer = service.post(&path, &body).await;
        let message = answer.error(422, code);
        assert!(message.contains(at), "{body}: {message}");
    }
    let answer = service
        .post(&path, &json!({"relabel": {"1": "foot"}}))
        .await;
    let message = answer.error(422, "unknown_class");
    assert!(message.contains("did you mean `food`"), "{message}");

    let before = samples(&service, &file);
    let paths: Vec<&String> = before.keys().collect();
    let body =
        json!({"exclude": [0, 3, 23], "relabel": {"1": "food", "9": "people", "10": "food"}});
    let made = correct(&service, &file, &body).await;
    assert_eq!(
        (&made["status"], &made["thumbnails"]),
        (&json!("processed"), &json!("ready")),
        "{made}"
    );
    assert_eq!(made["filename"], "data-corrected.tar");
    assert_eq!(made["dataset"]["samples"], 21);
    let mut expected = before.clone();
    for excluded in [0, 3, 23] {
        expected.remove(paths[excluded]);
    }
    for (sample, label) in [(1, "food"), (9, "people"), (10, "food")] {
        expected.get_mut(paths[sample]).unwrap().0 = label.to_owned();
    }
    assert_eq!(samples(&service, &made), expected);
    assert_eq!(
        samples(&service, &file),
        before,
        "the data set before stays"
    );

    // Its content is an archive that is the same data set again.
    let made_id = made["id"].as_str().unwrap();
    let content = service.get(&format!("/v1/files/{made_id}/content")).await;
    assert_eq!(made["bytes"], content.body.len());
    let mut archive = tar::Archive::new(&content.body[..]);
    let mut manifest = String::new();
    let first = archive.entries().unwrap().next().unwrap();
    first.unwrap().read_to_string(&mut manifest).unwrap();
    assert_eq!(manifest.lines().count(), 21);
    let again = service.dataset(content.body).await;
    assert_eq!(samples(&service, &again), expected);
    // And it can be corrected again.
    let twice = correct(&service, &made, &json!({"exclude": [0]})).await;
    assert_eq!(twice["dataset"]["samples"], 20);
    assert_eq!(twice["filename"], "data-corrected.tar");

    // What leaves nothing to train on is refused by its report.
    let all: Vec<u64> = (0..16).collect();
    let refused = correct(&service, &file, &json!({"exclude": all})).await;
    assert_eq!(refused["status"], "error", "{refused}");
    let details = refused["status_details"].as_str().unwrap();
    assert!(details.contains("one class"), "{details}");

    // The same key makes one; another tenant makes none.
    let keyed = |request: RequestBuilder| {
        let body = json!({"exclude": [5]});
        request.header("idempotency-key", "k").json(&body)
    };
    let first = service.send(Method::POST, &path, keyed).await.ok();
    let second = service.send(Method::POST, &path, keyed).await;
    assert_eq!(second.headers["idempotent-replayed"], "true");
    assert_eq!(second.ok()["id"], first["id"]);
    let waits = format!("/v1/files/{}?wait=60", first["id"].as_str().unwrap());
    service.get(&waits).await.ok();
    invariants(&service.pool().await).await;
    service.key = Some(service.new_key("stranger", Role::User).await);
    let answer = service.post(&path, &json!({"exclude": [5]})).await;
    answer.error(404, "not_found");
}

/// The source of a corrected data set stays until that is made; a worker that dies costs nothing;
/// their number is limited.
#[tokio::test(flavor = "multi_thread")]
async fn corrections_wait_for_a_worker() {
    let service = Service::start_with(&["--max-corrections", "1"]).await;
    let worker = service.worker("first", &[]);
    let file = service
        .dataset(data::clipart_subset(&["animals", "food"], 6))
        .await;
    drop(worker);
    let id = file["id"].as_str().unwrap();
    let path = format!("/v1/files/{id}/corrections");
    let made = service.post(&path, &json!({"exclude": [1]})).await.ok();
    assert_eq!(
        (&made["status"], &made["sha256"], &made["bytes"]),
        (&json!("uploaded"), &Value::Null, &json!(0))
    );
    let details = made["status_details"].as_str().unwrap();
    assert!(details.contains(id), "{details}");
    let many = service.post(&path, &json!({"exclude": [2]})).await;
    many.error(429, "too_many_corrections");
    let answer = service.delete(&format!("/v1/files/{id}")).await;
    answer.error(409, "file_in_use");
    let made_path = format!("/v1/files/{}", made["id"].as_str().unwrap());
    let early = service.get(&format!("{made_path}/content")).await;
    early.error(409, "not_ready");
    let again = format!("{made_path}/corrections");
    let early = service.post(&again, &json!({"exclude": [2]})).await;
    early.error(409, "not_ready");
    // Another worker had claimed it, and died.
    let pool = service.pool().await;
    let lost =
        "update work set worker_id = gen_random_uuid(), lease_expires_at = now() - interval '1 h'";
    sqlx::query(lost).execute(&pool).await.unwrap();
    let _worker = service.worker("second", &["--lease-ms", "2000", "--reap-ms", "100"]);
    let wait = format!("{made_path}?wait=60");
    let made = service.get(&wait).await.ok();
    assert_eq!(made["dataset"]["samples"], 11, "{made}");
    service.delete(&format!("/v1/files/{id}")).await.ok();
    let gone = service.get(&made_path).await.ok();
    assert_eq!(gone["corrected_from"], *id);
    // Deleted before it is made: nothing is left to do.
    drop(_worker);
    let path = format!("{made_path}/corrections");
    let unwanted = service.post(&path, &json!({"exclude": [1]})).await.ok();
    service
        .delete(&format!("/v1/files/{}", unwanted["id"].as_str().unwrap()))
        .await
        .ok();
    let count = "select count(*) from work";
    let left: i64 = sqlx::query_scalar(count).fetch_one(&pool).await.unwrap();
    assert_eq!(left, 0);
}
