//! Expired leases: of jobs, and of files, imports and exports.

use rehead::{
    db::{
        checkpoints,
        exports::{self, Export},
        files, jobs, models,
        queue::{self, Records},
        reap,
        work::{self, Kind, Released},
    },
    domain::{
        checkpoint::ManifestEntry,
        export::NetworkFormat,
        file::{FileStatus, Purpose},
        job::{JobStatus, Outcome, Phase},
    },
};

use super::{AT_ONCE, retryable};
use crate::support::{
    postgres::invariants,
    queue::{
        self as rows, HOUR, Queue, checkpoint, claim, heartbeat, skip_backoff, usable, validated,
    },
};

#[tokio::test]
async fn a_worker_that_lost_its_lease_writes_nothing() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    let zombie = claim(pool, queue.worker, AT_ONCE).await.unwrap();
    assert_eq!(
        rows::reap(pool, AT_ONCE).await.unwrap(),
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
        heartbeat(pool, job, zombie.token, HOUR).await.unwrap(),
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
        heartbeat(pool, job, owner.token, HOUR)
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
    let kinds = [Kind::Validate, Kind::Import];
    for attempt in 1..=3 {
        if attempt == 3 {
            // Their leases expired, but only the reaper may say so: it knows of outages.
            for kind in kinds {
                assert_eq!(queue.claim_work(kind, HOUR).await, None);
            }
            for _ in kinds {
                let reaped = reap::expired(pool, AT_ONCE).await.unwrap();
                assert_eq!(reaped.unwrap().job, None);
            }
            assert_eq!(reap::expired(pool, AT_ONCE).await.unwrap(), None);
            assert_eq!(reap::exhausted(pool).await.unwrap(), []);
        }
        for kind in kinds {
            let stale = queue.claim_work(kind, AT_ONCE).await.unwrap();
            if attempt > 1 {
                continue;
            }
            // Released, not crashed: costs nothing.
            let unfinished = Released::Unfinished;
            assert!(work::release(pool, &stale, unfinished).await.unwrap());
            let held = queue.claim_work(kind, HOUR).await.unwrap();
            assert_eq!(work::renew(pool, &stale, HOUR).await.unwrap(), None);
            let lost = match kind {
                Kind::Validate => files::accept(pool, &stale, &validated(usable(), 1)).await,
                _ => models::refuse_import(pool, &stale, &[]).await,
            };
            assert!(!lost.unwrap());
            assert!(!work::release(pool, &stale, unfinished).await.unwrap());
            assert_eq!(queue.claim_work(kind, HOUR).await, None);
            let crashed = Released::Crashed;
            assert!(work::release(pool, &held, crashed).await.unwrap());
            assert_eq!(queue.claim_work(kind, HOUR).await, None, "it backs off");
            queue.run("update work set run_at = now()").await;
        }
    }
    assert_eq!(reap::exhausted(pool).await.unwrap(), []);
    while reap::expired(pool, AT_ONCE).await.unwrap().is_some() {}
    for kind in kinds {
        assert_eq!(queue.claim_work(kind, HOUR).await, None);
    }
    let given_up = reap::exhausted(pool).await.unwrap();
    assert_eq!(given_up.len(), 2);
    assert!(given_up.iter().any(|lease| lease.subject == file.0));
    let failed = files::get(pool, queue.tenant, file).await.unwrap().unwrap();
    assert_eq!(failed.status, FileStatus::Error);
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

/// Whoever holds the lease writes nothing more.
#[tokio::test]
async fn work_ends_with_its_file_or_model() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let file = queue.upload(queue.tenant, Purpose::FineTune).await;
    queue.register(queue.tenant, "unwanted").await;
    let validation = queue.claim_work(Kind::Validate, HOUR).await.unwrap();
    let import = queue.claim_work(Kind::Import, HOUR).await.unwrap();
    let deleted = files::delete(pool, queue.tenant, file).await.unwrap();
    assert_eq!(deleted, files::Deleted::Yes);
    models::delete(pool, queue.tenant, "unwanted")
        .await
        .unwrap();
    for lease in [validation, import] {
        assert_eq!(work::renew(pool, &lease, HOUR).await.unwrap(), None);
    }
    assert!(
        !files::accept(pool, &validation, &validated(usable(), 1))
            .await
            .unwrap()
    );
    queue.register(queue.tenant, "unwanted").await;
    assert!(!models::refuse_import(pool, &import, &[]).await.unwrap());
}

#[tokio::test]
async fn an_export_is_queued_once_and_ends_with_a_result_or_its_model() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    let claimed = queue.claim().await.unwrap();
    queue.end(&claimed, &Outcome::Succeeded).await.unwrap();
    let state = || async {
        exports::state(pool, job, NetworkFormat::Onnx)
            .await
            .unwrap()
    };
    assert_eq!(state().await, Export::None);

    let script = ManifestEntry {
        bytes: 3,
        sha256: "ab".repeat(32),
    };
    exports::request(pool, job, NetworkFormat::Onnx)
        .await
        .unwrap();
    let dead = queue.claim_work(Kind::Export, AT_ONCE).await.unwrap();
    exports::request(pool, job, NetworkFormat::Onnx)
        .await
        .unwrap();
    assert_eq!(queue.claim_work(Kind::Export, HOUR).await, None);
    assert_eq!(state().await, Export::Pending);
    invariants(pool).await;
    assert!(reap::expired(pool, AT_ONCE).await.unwrap().is_some());
    for _ in 1..work::MAX_CRASHES {
        let held = queue.claim_work(Kind::Export, HOUR).await.unwrap();
        assert!(!exports::end(pool, &dead, Ok(&script)).await.unwrap());
        let crashed = Released::Crashed;
        assert!(work::release(pool, &held, crashed).await.unwrap());
        queue.run("update work set run_at = now()").await;
    }
    assert_eq!(queue.claim_work(Kind::Export, HOUR).await, None);
    assert_eq!(reap::exhausted(pool).await.unwrap().len(), 1);
    let Export::Failed(failure) = state().await else {
        panic!("{:?}", state().await);
    };
    assert_eq!(failure.code, exports::UNFINISHED);

    // The next request tries again, and a success takes the failure away.
    exports::request(pool, job, NetworkFormat::Onnx)
        .await
        .unwrap();
    assert_eq!(state().await, Export::Pending);
    let held = queue.claim_work(Kind::Export, HOUR).await.unwrap();
    assert!(exports::end(pool, &held, Ok(&script)).await.unwrap());
    let Export::Stored(stored) = state().await else {
        panic!("{:?}", state().await);
    };
    assert_eq!(stored.sha256, script.sha256);

    // Each format is an export of its own.
    let other = NetworkFormat::Torchscript;
    let state_of_other = || async { exports::state(pool, job, other).await.unwrap() };
    assert_eq!(state_of_other().await, Export::None);
    exports::request(pool, job, other).await.unwrap();
    assert_eq!(state_of_other().await, Export::Pending);
    assert_eq!(state().await, Export::Stored(stored));
    let held = queue.claim_work(Kind::Export, HOUR).await.unwrap();
    let model = exports::to_export(pool, held.subject).await.unwrap();
    assert_eq!(model.unwrap().format, other);
    assert!(exports::end(pool, &held, Ok(&script)).await.unwrap());
    assert!(matches!(state_of_other().await, Export::Stored(_)));
    invariants(pool).await;

    exports::request(pool, job, NetworkFormat::Onnx)
        .await
        .unwrap();
    let held = queue.claim_work(Kind::Export, HOUR).await.unwrap();
    models::delete(pool, queue.tenant, &claimed.result_model)
        .await
        .unwrap();
    assert_eq!(work::renew(pool, &held, HOUR).await.unwrap(), None);
    assert!(!exports::end(pool, &held, Ok(&script)).await.unwrap());
    assert_eq!(state().await, Export::NoModel);
    exports::request(pool, job, NetworkFormat::Onnx)
        .await
        .unwrap();
    assert_eq!(queue.claim_work(Kind::Export, HOUR).await, None);
}
