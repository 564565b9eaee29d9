//! How often a job is tried again, and what it ends with then.

use rehead::{
    db::jobs,
    domain::job::{Failure, JobStatus, Outcome},
};

use super::{AT_ONCE, retryable};
use crate::support::{
    postgres::invariants,
    queue::{Queue, claim, reap, skip_backoff},
};

#[tokio::test]
async fn budgets_end_a_job_that_fails_or_crashes_again_and_again() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let failing = queue.job().await;
    for attempt in 1..=4 {
        skip_backoff(pool).await;
        let claimed = queue.claim().await.unwrap();
        assert_eq!(claimed.job, failing);
        let ended = queue.end(&claimed, &retryable("no memory")).await;
        let expected = if attempt < 4 {
            JobStatus::Queued
        } else {
            JobStatus::Failed
        };
        assert_eq!(ended, Some(expected));
    }
    let error = jobs::get(pool, queue.tenant, failing)
        .await
        .unwrap()
        .unwrap()
        .error
        .unwrap();
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("torch_error", "no memory")
    );

    let crashing = queue.job().await;
    for attempt in 1..=4 {
        skip_backoff(pool).await;
        let claimed = claim(pool, queue.worker, AT_ONCE).await.unwrap();
        let expected = if attempt < 4 {
            JobStatus::Queued
        } else {
            JobStatus::Failed
        };
        // Both ways to vanish count on one budget.
        if attempt % 2 == 0 {
            assert_eq!(
                reap(pool, AT_ONCE).await.unwrap(),
                Some((crashing, expected))
            );
        } else {
            let crashed = Outcome::Crashed {
                message: "killed by signal 9".to_owned(),
            };
            assert_eq!(queue.end(&claimed, &crashed).await, Some(expected));
        }
    }
    let job = jobs::get(pool, queue.tenant, crashing)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (job.error.unwrap().code.as_str(), job.budgets.crashes),
        ("worker_crash_loop", 4)
    );

    queue.job().await;
    let wrong = queue.claim().await.unwrap();
    let permanent = Outcome::Failed(Failure::permanent("diverged", "loss"));
    assert_eq!(queue.end(&wrong, &permanent).await, Some(JobStatus::Failed));
    assert_eq!(reap(pool, AT_ONCE).await.unwrap(), None);
    invariants(pool).await;
}

/// Another try may find more memory; a third would find the same.
#[tokio::test]
async fn one_sample_that_does_not_fit_is_retried_once() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    for expected in [JobStatus::Queued, JobStatus::Failed] {
        skip_backoff(pool).await;
        let claimed = queue.claim().await.unwrap();
        let outcome = Outcome::Failed(Failure::retryable("out_of_memory", "freeze more"));
        assert_eq!(queue.end(&claimed, &outcome).await, Some(expected));
    }
    let job = jobs::get(pool, queue.tenant, job).await.unwrap().unwrap();
    let error = job.error.unwrap();
    assert_eq!(error.code, "out_of_memory");
    assert!(error.permanent, "{error:?}");
}
