//! Leases that ran out: of jobs, and of files and imports.

use rehead::{
    db::{
        checkpoints, files, jobs, models,
        queue::{self, Records},
    },
    domain::{
        file::Purpose,
        job::{JobStatus, Outcome, Phase},
    },
};

use super::{AT_ONCE, retryable};
use crate::support::{
    postgres::invariants,
    queue::{HOUR, Queue, checkpoint, claim, skip_backoff, usable},
};

#[tokio::test]
async fn a_worker_that_lost_its_lease_writes_nothing() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    let zombie = claim(pool, queue.worker, AT_ONCE).await.unwrap();
    assert_eq!(
        queue::reap(pool, AT_ONCE).await.unwrap(),
        Some((job, JobStatus::Queued))
    );
    skip_backoff(pool).await;
    let owner = queue.claim().await.unwrap();
    assert_eq!((owner.job, owner.token), (job, 2));
    let before = jobs::get(pool, queue.tenant, job)
        .await
        .unwrap()
        .unwrap()
        .version;

    let records = Records {
        phase: Some(Phase::Training),
        ..Records::default()
    };
    let outcomes = [
        Outcome::Succeeded,
        Outcome::Yielded,
        Outcome::Cancelled,
        retryable("late"),
    ];
    assert_eq!(
        queue::heartbeat(pool, job, zombie.token, HOUR)
            .await
            .unwrap(),
        None
    );
    assert!(
        !queue::record(pool, job, zombie.token, &records)
            .await
            .unwrap()
    );
    let late = checkpoint(&zombie, 5, true);
    assert_eq!(
        queue::commit_checkpoint(pool, job, zombie.token, &late)
            .await
            .unwrap(),
        None
    );
    for outcome in outcomes {
        assert_eq!(queue.end(&zombie, &outcome).await, None);
    }
    assert!(
        checkpoints::supersede(pool, job, zombie.token)
            .await
            .unwrap()
            .is_empty()
    );

    assert_eq!(
        jobs::get(pool, queue.tenant, job)
            .await
            .unwrap()
            .unwrap()
            .version,
        before
    );
    assert_eq!(
        queue.told(job).await,
        ["created", "queued", "started", "requeued", "started"]
    );
    assert!(checkpoints::latest(pool, job).await.unwrap().is_none());
    assert!(
        queue::heartbeat(pool, job, owner.token, HOUR)
            .await
            .unwrap()
            .is_some()
    );
    invariants(pool).await;
}

#[tokio::test]
async fn files_and_imports_have_leases_and_budgets_too() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let file = queue.upload(queue.tenant, Purpose::FineTune).await;
    queue.register(queue.tenant, "bad").await;
    for attempt in 1..=3 {
        if attempt == 3 {
            // Their leases ran out, but only the reaper may say so: it knows of outages.
            assert!(
                files::claim(pool, queue.worker, HOUR)
                    .await
                    .unwrap()
                    .is_none()
            );
            assert!(
                models::claim_import(pool, queue.worker, HOUR)
                    .await
                    .unwrap()
                    .is_none()
            );
            assert!(files::reap(pool).await.unwrap().is_empty());
            assert!(models::reap_imports(pool).await.unwrap().is_empty());
        }
        let stale = files::claim(pool, queue.worker, AT_ONCE)
            .await
            .unwrap()
            .unwrap();
        let stale_import = models::claim_import(pool, queue.worker, AT_ONCE)
            .await
            .unwrap()
            .unwrap();
        if attempt == 1 {
            // Stopped, not crashed: costs nothing.
            assert!(
                files::release(pool, file, stale.token, false)
                    .await
                    .unwrap()
            );
            assert!(
                models::release_import(pool, &stale_import, false)
                    .await
                    .unwrap()
            );
            let held = files::claim(pool, queue.worker, HOUR)
                .await
                .unwrap()
                .unwrap();
            let held_import = models::claim_import(pool, queue.worker, HOUR)
                .await
                .unwrap()
                .unwrap();
            assert!(!files::renew(pool, file, stale.token, HOUR).await.unwrap());
            assert!(
                !files::accept(pool, file, stale.token, &usable(), "cd", 1)
                    .await
                    .unwrap()
            );
            assert!(
                !models::renew_import(pool, &stale_import, HOUR)
                    .await
                    .unwrap()
            );
            assert!(
                !models::refuse_import(pool, &stale_import, &[])
                    .await
                    .unwrap()
            );
            assert!(
                files::claim(pool, queue.worker, HOUR)
                    .await
                    .unwrap()
                    .is_none()
            );
            assert!(files::release(pool, file, held.token, true).await.unwrap());
            assert!(
                models::release_import(pool, &held_import, true)
                    .await
                    .unwrap()
            );
        }
    }
    assert!(
        files::claim(pool, queue.worker, HOUR)
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(files::reap(pool).await.unwrap(), [file]);
    assert_eq!(models::reap_imports(pool).await.unwrap(), ["bad"]);
    assert_eq!(
        models::take_refused(pool, queue.tenant, "bad")
            .await
            .unwrap()
            .unwrap()[0]
            .code,
        "validation_crashed"
    );
    assert!(
        models::get(pool, queue.tenant, "bad")
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(
        files::delete(pool, queue.tenant, file).await.unwrap(),
        files::Deleted::Yes
    );
}
