//! Many jobs at once: a key makes one job however often it is sent, and a thousand jobs are taken
//! over any number of connections.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::{events::queued_job, support::service::Service};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_posts_under_one_key_make_one_job() {
    let service = Service::start().await;
    let job = queued_job(&service).await;
    let body = json!({"model": "net", "training_file": job["training_file"], "seed": 1});
    let client = Client::new();
    let post = |body: Value| {
        let request = client.post(format!("{}/v1/fine_tuning/jobs", service.url));
        async move {
            let answer = request
                .header("idempotency-key", "once")
                .json(&body)
                .send()
                .await
                .unwrap();
            let replayed = answer
                .headers()
                .get("idempotent-replayed")
                .is_some_and(|value| value == "true");
            (
                answer.status(),
                replayed,
                answer.json::<Value>().await.unwrap(),
            )
        }
    };
    let answers = futures_util::future::join_all((0..50).map(|_| post(body.clone()))).await;
    assert!(
        answers.iter().all(|(status, ..)| *status == StatusCode::OK),
        "{answers:?}"
    );
    assert_eq!(
        answers.iter().filter(|(_, replayed, _)| !replayed).count(),
        1
    );
    let ids: BTreeSet<&str> = answers
        .iter()
        .map(|(.., job)| job["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 1);
    let other = json!({"model": "net", "training_file": job["training_file"], "seed": 2});
    let (status, _, refused) = post(other).await;
    assert_eq!(
        (status.as_u16(), &refused["error"]["code"]),
        (409, &"idempotency_key_reused".into())
    );
    // The whole answer comes again, also when the job is something else by now.
    let id = ids.first().unwrap();
    service.ask(&json!({"id": id}), "cancel").await.ok();
    let (status, replayed, again) = post(body).await;
    assert_eq!(
        (status, replayed, &again["status"]),
        (StatusCode::OK, true, &"cancelled".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_jobs_are_taken_over_few_connections() {
    const JOBS: usize = 1_000;
    let service = Service::start().await;
    let job = queued_job(&service).await;
    let pool = service.pool().await;
    sqlx::query("update tenants set max_queued = 10000")
        .execute(&pool)
        .await
        .unwrap();
    let body = json!({"model": "net", "training_file": job["training_file"]});
    for connections in [1, 8] {
        let (taken, since) = (AtomicUsize::new(0), Instant::now());
        let lanes = (0..connections).map(|_| async {
            // A client of its own is a connection of its own, which stays open.
            let client = Client::new();
            while taken.fetch_add(1, Ordering::Relaxed) < JOBS {
                let request = client.post(format!("{}/v1/fine_tuning/jobs", service.url));
                let answer = request.json(&body).send().await.unwrap();
                assert_eq!(answer.status(), StatusCode::OK);
                answer.bytes().await.unwrap();
            }
        });
        futures_util::future::join_all(lanes).await;
        let took = since.elapsed();
        // Time is for people; the machine may be busy.
        println!("{JOBS} jobs over {connections} connections: {took:?}");
    }
    let count: i64 = sqlx::query_scalar("select count(*) from jobs")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(count, 2 * JOBS as i64 + 1);
}
