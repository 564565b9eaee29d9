//! A cancellation, whatever the job is doing.

use rehead::{
    db::controls::{self, Answer},
    domain::{
        id::JobId,
        job::{Control, JobStatus, Outcome},
    },
};

use super::{AT_ONCE, retryable, status};
use crate::support::{
    postgres::invariants,
    queue::{HOUR, Queue, claim, heartbeat, reap},
};

#[tokio::test]
async fn a_job_is_cancelled_wherever_it_is() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let tenant = queue.tenant;

    let waiting = queue.job().await;
    assert!(matches!(
        controls::ask(pool, tenant, waiting, Control::Cancel)
            .await
            .unwrap(),
        Answer::Accepted
    ));
    assert_eq!(status(&queue, waiting).await, JobStatus::Cancelled);
    assert!(matches!(
        controls::ask(pool, tenant, waiting, Control::Cancel)
            .await
            .unwrap(),
        Answer::Accepted
    ));
    assert!(queue.claim().await.is_none());

    // A running job gets the flag; however its attempt then ends, but for a success, it is
    // cancelled.
    let crashed = Outcome::Crashed {
        message: "gone".to_owned(),
    };
    for outcome in [
        Outcome::Cancelled,
        Outcome::Yielded,
        retryable("no memory"),
        crashed,
    ] {
        let running = queue.job().await;
        let claimed = queue.claim().await.unwrap();
        let seen = heartbeat(pool, running, 1, HOUR).await.unwrap().unwrap();
        assert!(!seen.cancel_requested);
        for _ in 0..2 {
            assert!(matches!(
                controls::ask(pool, tenant, running, Control::Cancel)
                    .await
                    .unwrap(),
                Answer::Accepted
            ));
            assert_eq!(status(&queue, running).await, JobStatus::Running);
        }
        let seen = heartbeat(pool, running, 1, HOUR).await.unwrap().unwrap();
        assert!(seen.cancel_requested);
        let ended = queue.end(&claimed, &outcome).await;
        assert_eq!(ended, Some(JobStatus::Cancelled), "{outcome:?}");
        assert_eq!(
            queue.told(running).await,
            [
                "created",
                "queued",
                "started",
                "cancel_requested",
                "cancelled"
            ]
        );
    }
    let lost = queue.job().await;
    claim(pool, queue.worker, AT_ONCE).await.unwrap();
    controls::ask(pool, tenant, lost, Control::Cancel)
        .await
        .unwrap();
    assert_eq!(
        reap(pool, AT_ONCE).await.unwrap(),
        Some((lost, JobStatus::Cancelled))
    );

    let done = queue.job().await;
    let claimed = queue.claim().await.unwrap();
    controls::ask(pool, tenant, done, Control::Cancel)
        .await
        .unwrap();
    let ended = queue.end(&claimed, &Outcome::Succeeded).await;
    assert_eq!(ended, Some(JobStatus::Succeeded));
    assert!(matches!(
        controls::ask(pool, tenant, done, Control::Cancel)
            .await
            .unwrap(),
        Answer::Refused(_)
    ));
    assert!(matches!(
        controls::ask(pool, tenant, JobId::new(), Control::Cancel)
            .await
            .unwrap(),
        Answer::NotFound
    ));
    invariants(pool).await;
}
