//! Jobs that are posted: once for each key, up to a limit, and resolved when their files are.

use std::collections::BTreeSet;

use rehead::{
    db::{
        files,
        jobs::{self, Created},
        work::Kind,
    },
    domain::{file::Purpose, job::JobStatus, problem::Problem},
    jobs::{
        admit::{self, AdmitError},
        resolve_waiting::resolve_waiting,
    },
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{
    postgres::invariants,
    queue::{HOUR, Queue, idempotency, resolution, unusable, usable, validated},
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
                Created::New(job) => (1, job),
                Created::Replayed(job) => (0, job),
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
async fn a_job_waits_for_its_file_and_is_resolved_once() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let mut resolved = Vec::new();
    for accepted in [true, false] {
        let file = queue.upload(queue.tenant, Purpose::FineTune).await;
        let mut job = queue.new_job();
        job.resolution = None;
        job.request.training_file = file;
        assert!(matches!(
            jobs::create(pool, &job).await.unwrap(),
            Created::New(_)
        ));
        assert!(jobs::waiting_for_files(pool, 10).await.unwrap().is_empty());
        assert_eq!(
            files::delete(pool, queue.tenant, file).await.unwrap(),
            files::Deleted::InUseByJob(job.id)
        );

        let lease = queue.claim_work(Kind::Validate, HOUR).await.unwrap();
        assert_eq!(lease.subject, file.0);
        if accepted {
            assert!(
                files::accept(pool, &lease, &validated(usable(), 2_000))
                    .await
                    .unwrap()
            );
        } else {
            assert!(
                files::refuse(pool, &lease, &unusable(), "no image")
                    .await
                    .unwrap()
            );
        }
        let waiting = jobs::waiting_for_files(pool, 10).await.unwrap();
        assert_eq!(
            (waiting.len(), waiting[0].id, waiting[0].seed),
            (1, job.id, job.seed)
        );
        assert_eq!(
            (waiting[0].tenant, waiting[0].model.as_deref()),
            (queue.tenant, Some("net"))
        );
        let outcome = if accepted {
            Ok(resolution())
        } else {
            Err(vec![Problem::new(
                "training_file",
                "unusable_file",
                "the file cannot be used: no image",
            )])
        };
        let becomes = jobs::resolve(pool, job.id, &outcome).await.unwrap();
        let again = jobs::resolve(pool, job.id, &Ok(resolution()))
            .await
            .unwrap();
        assert_eq!(becomes, again);
        resolved.push(becomes.unwrap());
        assert!(jobs::waiting_for_files(pool, 10).await.unwrap().is_empty());
    }
    assert_eq!(resolved, [JobStatus::Queued, JobStatus::Failed]);
    invariants(pool).await;
}

/// A data set that turns out to be unusable while a job waits for it fails the job with the very
/// problem that a request for it is refused with.
#[tokio::test]
async fn waiting_job_fails_as_admission_refuses() {
    let queue = Queue::start().await;
    let (pool, tenant) = (queue.pool(), queue.tenant);
    let file = queue.upload(tenant, Purpose::FineTune).await;
    let body = json!({ "model": "net", "training_file": file });
    let created = admit::admit(pool, tenant, &body, None).await.unwrap();
    let Created::New(job) = created else {
        panic!("{created:?}");
    };
    resolve_waiting(pool).await.unwrap();
    let waiting = jobs::get(pool, tenant, job).await.unwrap().unwrap();
    assert_eq!(waiting.status, JobStatus::ValidatingFiles);

    let lease = queue.claim_work(Kind::Validate, HOUR).await.unwrap();
    let report = unusable();
    let refused = files::refuse(pool, &lease, &report, "no image");
    assert!(refused.await.unwrap());
    resolve_waiting(pool).await.unwrap();
    let failed = jobs::get(pool, tenant, job).await.unwrap().unwrap();
    let error = failed.error.unwrap();

    let Err(AdmitError::Refused(problems)) = admit::check(pool, tenant, &body).await else {
        panic!("a request for an unusable data set is admitted");
    };
    assert_eq!(problems.len(), 1);
    assert_eq!(
        (error.code, error.message, error.param.unwrap()),
        (
            problems[0].code.clone(),
            problems[0].message.clone(),
            problems[0].path.clone()
        )
    );
    assert_eq!(problems[0].code, "unusable_file");
}
