//! Following a job: waits, entity tags, event streams. The rows are written here as a worker writes
//! them, by the same functions; no trainer is needed to see what a follower sees.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use rehead::db::work::{self, Kind, Lease};
use rehead_domain::{
    file::{Class, Dataset, FileReport, SplitSizes},
    id::WorkerId,
    job::{Failure, Outcome},
    recipe::Task,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{
    queue::{imported, validated},
    service::Service,
};

async fn claim(pool: &PgPool, kind: Kind) -> Option<Lease> {
    let claimed = work::claim(pool, WorkerId::new(), &[kind], Duration::from_secs(60)).await;
    claimed.unwrap()
}

/// The only job of a service; see `another_queued_job`.
pub(crate) async fn queued_job(service: &Service) -> Value {
    let job = another_queued_job(service).await;
    assert_eq!(job["queue"]["position"], 1);
    job
}

/// A validated data set of two classes, and a job that waits on a base model: rows as a worker
/// would have left them.
pub(crate) async fn another_queued_job(service: &Service) -> Value {
    let pool = service.pool().await;
    let file = service
        .upload("data.zip", "fine-tune", vec![1, 2, 3])
        .await
        .ok();
    let claimed = claim(&pool, Kind::Validate).await;
    let class = |name: &str| Class {
        name: name.to_owned(),
        train: 40,
        validation: 10,
        test: 0,
    };
    let dataset = Dataset {
        modality: rehead_domain::input::Modality::Image,
        task: Task::SingleLabelClassification,
        target: None,
        classes: vec![class("cat"), class("dog")],
        samples: 100,
        splits: SplitSizes {
            train: 80,
            validation: 20,
            test: 0,
        },
        split_by: "hash".to_owned(),
        unusable: 0,
        duplicates: 0,
    };
    let report = FileReport {
        dataset: Some(dataset),
        errors: vec![],
        warnings: vec![],
        warnings_omitted: 0,
    };
    assert!(
        rehead::db::files::accept(&pool, &claimed.unwrap(), &validated(report, 3))
            .await
            .unwrap()
    );

    let weights = service.upload("w.pth", "weights", vec![1]).await.ok();
    let body = json!({"id": "net", "architecture": "resnet18", "weights": {"file": weights["id"]}});
    let registering = service.post("/v1/base_models", &body);
    let importing = async {
        let claimed = loop {
            if let Some(claimed) = claim(&pool, Kind::Import).await {
                break claimed;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(
            rehead::db::models::accept_import(&pool, &claimed, &imported(), &"b".repeat(64))
                .await
                .unwrap()
        );
    };
    let started = Instant::now();
    let (registered, ()) = tokio::join!(registering, importing);
    assert_eq!(registered.ok()["status"], "ready");
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "the registration did not hear of its import"
    );
    let body = json!({"model": "net", "training_file": file["id"], "seed": 7, "metadata": {"team": "blue"}});
    let job = service.post("/v1/fine_tuning/jobs", &body).await.ok();
    assert_eq!(job["status"], "queued");
    job
}

/// Frames of an event stream until it ends: (id, data).
async fn follow(service: &Service, path: &str, last: Option<&str>) -> Vec<(String, Value)> {
    let mut request = reqwest::Client::new()
        .get(format!("{}{path}", service.url))
        .header("accept", "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
    text.split("\n\n")
        .filter(|frame| frame.contains("data:"))
        .map(|frame| {
            let field = |name: &str| {
                frame
                    .lines()
                    .find_map(|line| line.strip_prefix(name))
                    .unwrap()
                    .trim()
                    .to_owned()
            };
            (field("id:"), serde_json::from_str(&field("data:")).unwrap())
        })
        .collect()
}

#[tokio::test]
async fn a_stream_has_history_then_what_happens_then_ends() {
    let service = Service::start().await;
    let job = queued_job(&service).await;
    let path = format!(
        "/v1/fine_tuning/jobs/{}/events",
        job["id"].as_str().unwrap()
    );
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        service
            .post(&path.replace("/events", "/cancel"), &json!({}))
            .await
            .ok()
    };
    let started = Instant::now();
    let (frames, cancelled) = tokio::join!(follow(&service, &path, None), cancel);
    assert_eq!(cancelled["status"], "cancelled");
    // Well before the next look without a notification.
    assert!(
        started.elapsed() < Duration::from_millis(1_900),
        "{:?}",
        started.elapsed()
    );
    let kinds: Vec<&str> = frames
        .iter()
        .map(|(_, event)| event["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        (kinds.first(), kinds.last()),
        (Some(&"created"), Some(&"cancelled"))
    );
    let seqs: Vec<u64> = frames
        .iter()
        .map(|(_, event)| event["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());

    // Coming back with the last id gives exactly the rest; after the end, nothing, at once.
    let rest = follow(&service, &path, Some(&frames[0].0)).await;
    assert_eq!(rest, frames[1..]);
    assert_eq!(
        follow(&service, &path, Some(&frames.last().unwrap().0)).await,
        []
    );
    for garbage in ["9e99", "-1", "ftevent-00000000000000000000000000000000"] {
        assert_eq!(follow(&service, &path, Some(garbage)).await, frames);
    }

    // The list has the same events, a page at a time.
    let mut listed = Vec::new();
    let mut query = "?order=asc&limit=1".to_owned();
    loop {
        let page = service.get(&format!("{path}{query}")).await.ok();
        listed.extend(page["data"].as_array().unwrap().clone());
        if page["has_more"] == false {
            break;
        }
        query = format!(
            "?order=asc&limit=1&after={}",
            page["last_id"].as_str().unwrap()
        );
    }
    let streamed: Vec<Value> = frames.into_iter().map(|(_, event)| event).collect();
    assert_eq!(listed, streamed);
}

#[tokio::test]
async fn a_wait_ends_when_the_job_changes() {
    let service = Service::start().await;
    let job = queued_job(&service).await;
    let path = format!("/v1/fine_tuning/jobs/{}", job["id"].as_str().unwrap());
    let first = service.get(&path).await;
    let etag = first.headers["etag"].to_str().unwrap().to_owned();
    let known = service
        .send(Method::GET, &path, |request| {
            request.header("if-none-match", &etag)
        })
        .await;
    assert_eq!(known.status, StatusCode::NOT_MODIFIED);
    service
        .get(&format!("{path}?wait=100000"))
        .await
        .error(422, "out_of_range");

    // Nothing happens: the wait lasts as long as asked, and the job is answered all the same.
    let started = Instant::now();
    assert_eq!(
        service
            .get(&format!("{path}?wait=1&until=running"))
            .await
            .ok()["status"],
        "queued"
    );
    assert!(started.elapsed() >= Duration::from_secs(1));

    let pool = service.pool().await;
    let run = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let offer = rehead::db::queue::Offer {
            worker: WorkerId::new(),
            class: rehead::db::queue::DEFAULT_CLASS,
            device_mb: i32::MAX.unsigned_abs(),
            capacity_mb: i32::MAX.unsigned_abs(),
            reserve: Duration::from_secs(600),
            ttl: Duration::from_secs(60),
        };
        rehead::db::queue::claim(&pool, offer)
            .await
            .unwrap()
            .unwrap()
    };
    let started = Instant::now();
    let running = format!("{path}?wait=30&until=running");
    let (seen, claimed) = tokio::join!(service.get(&running), run);
    assert_eq!(seen.ok()["status"], "running");
    assert!(
        started.elapsed() < Duration::from_millis(2_000),
        "{:?}",
        started.elapsed()
    );

    let end = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let outcome = Outcome::Failed(Failure::permanent("diverged", "at step 3"));
        rehead::db::queue::finish(
            &pool,
            claimed.job,
            claimed.token,
            &outcome,
            None,
            &rehead::db::queue::Trace::default(),
        )
        .await
        .unwrap()
    };
    let terminal = format!("{path}?wait=30&until=terminal");
    let (seen, _) = tokio::join!(service.get(&terminal), end);
    let failed = seen.ok();
    assert_eq!(
        (failed["status"].as_str(), failed["is_terminal"].as_bool()),
        (Some("failed"), Some(true))
    );
    assert_eq!(failed["error"]["code"], "diverged");
    assert_eq!(failed["attempts"][0]["outcome"], "failed");
    service
        .post(&format!("{path}/cancel"), &json!({}))
        .await
        .error(409, "job_ended");
    service
        .get(&format!("{path}/report"))
        .await
        .error(409, "no_report");
    let image = service.get(&format!("{path}/curves.svg")).await;
    assert!(image.text().starts_with("<svg"));
}

#[tokio::test]
async fn the_same_idempotency_key_makes_one_job() {
    let service = Service::start().await;
    let job = queued_job(&service).await;
    let body = json!({"model": "net", "training_file": job["training_file"]});
    let post = |key: &'static str, body: Value| {
        let service = &service;
        async move {
            let jobs = "/v1/fine_tuning/jobs";
            service
                .send(Method::POST, jobs, |request| {
                    request.header("idempotency-key", key).json(&body)
                })
                .await
        }
    };
    let answers = futures_util::future::join_all((0..20).map(|_| post("k", body.clone()))).await;
    let fresh = answers
        .iter()
        .filter(|answer| !answer.headers.contains_key("idempotent-replayed"))
        .count();
    assert_eq!(fresh, 1);
    let ids: std::collections::BTreeSet<String> = answers
        .into_iter()
        .map(|answer| answer.ok()["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 1);
    let mut other = body.clone();
    other["seed"] = json!(8);
    let reused = post("k", other.clone()).await;
    assert_eq!(reused.headers["x-should-retry"], "false");
    reused.error(409, "idempotency_key_reused");
    assert!(!ids.contains(post("l", other).await.ok()["id"].as_str().unwrap()));

    // Lists: pages that meet, filters that hold.
    let all = service.get("/v1/fine_tuning/jobs?order=asc").await.ok();
    assert_eq!(all["data"].as_array().unwrap().len(), 3);
    let page = service
        .get("/v1/fine_tuning/jobs?order=asc&limit=2")
        .await
        .ok();
    assert_eq!(page["has_more"], true);
    let rest = format!(
        "/v1/fine_tuning/jobs?order=asc&after={}",
        page["last_id"].as_str().unwrap()
    );
    assert_eq!(
        service.get(&rest).await.ok()["data"][0]["id"],
        all["data"][2]["id"]
    );
    let blue = service
        .get("/v1/fine_tuning/jobs?metadata[team]=blue&status=queued&model=net")
        .await
        .ok();
    assert_eq!(blue["data"].as_array().unwrap().len(), 1);
    assert_eq!(blue["data"][0]["id"], job["id"]);
}

#[tokio::test]
async fn streams_are_counted_and_end_with_the_service() {
    let mut service = Service::start_with(&["--max-streams", "1"]).await;
    let job = queued_job(&service).await;
    let path = format!(
        "/v1/fine_tuning/jobs/{}/events",
        job["id"].as_str().unwrap()
    );
    let open = |last: Option<&str>| {
        let mut request = reqwest::Client::new()
            .get(format!("{}{path}", service.url))
            .header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        request.send()
    };
    let first = open(None).await.unwrap();
    let second = open(None).await.unwrap();
    assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(second.headers().contains_key("retry-after"));
    drop(first);
    let again = loop {
        let again = open(None).await.unwrap();
        if again.status() == StatusCode::OK {
            break again;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // A stop does not wait for followers.
    service.server.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(service.server.wait(Duration::from_secs(5)).success());
    drop(again);
}
