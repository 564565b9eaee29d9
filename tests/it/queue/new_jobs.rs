//! Jobs that are posted: once for each key, up to a limit, and settled when their files are.

use std::collections::BTreeSet;

use rehead::{
    db::{
        files,
        jobs::{self, Created},
    },
    domain::{file::Purpose, job::JobStatus, problem::Problem},
};
use tokio::task::JoinSet;

use crate::support::{
    postgres::invariants,
    queue::{HOUR, Queue, idempotency, resolution, unusable, usable},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_key_makes_one_job() {
    let queue = Queue::start().await;
    let mut posts = JoinSet::new();
    for _ in 0..50 {
        let pool = queue.pool().clone();
        let mut job = queue.new_job();
        job.idempotency = idempotency("once", 1);
        posts.spawn(async move {
            match jobs::create(&pool, &job).await.unwrap() {
                Created::New(job) => (1, job.id),
                Created::Replayed(job) => (0, job.id),
                other => panic!("{other:?}"),
            }
        });
    }
    let answers = posts.join_all().await;
    assert_eq!(answers.iter().map(|(new, _)| new).sum::<i32>(), 1);
    assert_eq!(
        answers
            .iter()
            .map(|(_, id)| id)
            .collect::<BTreeSet<_>>()
            .len(),
        1
    );

    let mut other = queue.new_job();
    other.idempotency = idempotency("once", 2);
    assert!(matches!(
        jobs::create(queue.pool(), &other).await.unwrap(),
        Created::KeyConflict
    ));
    let (tenant, file) = queue.tenant("other").await;
    other.tenant = tenant;
    other.request.training_file = file;
    assert!(matches!(
        jobs::create(queue.pool(), &other).await.unwrap(),
        Created::New(_)
    ));
    invariants(queue.pool()).await;
}

#[tokio::test]
async fn a_full_queue_takes_no_more() {
    let queue = Queue::start().await;
    queue.run("update tenants set max_queued = 2").await;
    queue.job().await;
    queue.job().await;
    let third = jobs::create(queue.pool(), &queue.new_job()).await.unwrap();
    assert!(matches!(third, Created::QueueFull { limit: 2 }));
    queue.claim().await.unwrap();
    queue.job().await;
}

#[tokio::test]
async fn a_job_waits_for_its_file_and_is_settled_once() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let mut settled = Vec::new();
    for accepted in [true, false] {
        let file = queue.upload(queue.tenant, Purpose::FineTune).await;
        let mut job = queue.new_job();
        job.resolution = None;
        job.request.training_file = file;
        assert!(matches!(
            jobs::create(pool, &job).await.unwrap(),
            Created::New(_)
        ));
        assert!(jobs::to_settle(pool, 10).await.unwrap().is_empty());
        assert_eq!(
            files::delete(pool, queue.tenant, file).await.unwrap(),
            files::Deleted::InUseByJob(job.id)
        );

        let claimed = files::claim(pool, queue.worker, HOUR)
            .await
            .unwrap()
            .unwrap();
        let token = claimed.token;
        if accepted {
            assert!(
                files::accept(pool, file, token, &usable(), "cd", 2_000)
                    .await
                    .unwrap()
            );
        } else {
            assert!(
                files::refuse(pool, file, token, &unusable(), "no image")
                    .await
                    .unwrap()
            );
        }
        let waiting = jobs::to_settle(pool, 10).await.unwrap();
        assert_eq!(
            (waiting.len(), waiting[0].id, waiting[0].seed),
            (1, job.id, job.seed)
        );
        assert!(waiting[0].layers.is_some() && waiting[0].validation.is_none());
        let outcome = if accepted {
            Ok(resolution())
        } else {
            Err(vec![Problem::new(
                "training_file",
                "unusable_file",
                "the file cannot be used: no image",
            )])
        };
        let becomes = jobs::settle(pool, job.id, &outcome).await.unwrap();
        let again = jobs::settle(pool, job.id, &Ok(resolution())).await.unwrap();
        assert_eq!(becomes, again);
        settled.push(becomes.unwrap());
        assert!(jobs::to_settle(pool, 10).await.unwrap().is_empty());
    }
    assert_eq!(settled, [JobStatus::Queued, JobStatus::Failed]);
    invariants(pool).await;
}
