//! Workers and reapers, all at once.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rehead::{
    db::{
        controls,
        queue::{self, Claimed, Records},
    },
    domain::{
        id::WorkerId,
        job::{Control, Outcome, Phase},
    },
};

use super::{AT_ONCE, retryable};
use crate::support::{
    postgres::invariants,
    queue::{Queue, checkpoint, claim, heartbeat, reap, skip_backoff},
};

/// One worker of many: ends a claimed job as `dice` says, under a lease that may have expired
/// already.
async fn act(queue: &Queue, dice: u64, ends: &AtomicU64) {
    let pool = queue.pool();
    let ttl = if dice.is_multiple_of(3) {
        AT_ONCE
    } else {
        Duration::from_millis(dice % 20)
    };
    let Some(claimed) = claim(pool, WorkerId::new(), ttl).await else {
        skip_backoff(pool).await;
        return;
    };
    let Claimed {
        job, token, tenant, ..
    } = claimed;
    if dice.is_multiple_of(5) {
        tokio::time::sleep(Duration::from_millis(dice % 30)).await;
    }
    heartbeat(pool, job, token, ttl).await.unwrap();
    let records = Records {
        phase: Some(Phase::Training),
        ..Records::default()
    };
    queue::record(pool, job, token, &records).await.unwrap();
    queue::commit_checkpoint(pool, job, token, &checkpoint(&claimed, dice % 50, true))
        .await
        .unwrap();
    if dice.is_multiple_of(17) {
        controls::ask(pool, tenant, job, Control::Cancel)
            .await
            .unwrap();
    }
    let outcome = match dice % 7 {
        0 => Outcome::Succeeded,
        1 => retryable("no memory"),
        2 => Outcome::Yielded,
        3 => Outcome::Crashed {
            message: "abort".to_owned(),
        },
        // Vanishes.
        _ => return,
    };
    if queue.end(&claimed, &outcome).await.is_some() {
        ends.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn random_acts_of_workers_and_reapers_break_nothing() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let (other, file) = queue.tenant("other").await;
    queue.run("update tenants set max_running = 4").await;
    queue
        .run("alter table jobs alter max_failures set default 20, alter max_crashes set default 40")
        .await;
    for _ in 0..150 {
        queue.job().await;
        queue.job_of(other, file, 1).await;
    }
    let (ends, reaped) = (AtomicU64::new(0), AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(5);
    let workers = (0..12_u64).map(|worker| {
        let (queue, ends) = (&queue, &ends);
        async move {
            let mut dice = worker + 1;
            while Instant::now() < until {
                // Knuth's multiplier: every worker has its own, repeatable luck.
                dice = dice
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                act(queue, dice >> 33, ends).await;
            }
        }
    });
    let reapers = (0..3).map(|_| async {
        while Instant::now() < until {
            if reap(pool, AT_ONCE).await.unwrap().is_some() {
                reaped.fetch_add(1, Ordering::Relaxed);
            } else {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let watcher = async {
        while Instant::now() < until {
            invariants(pool).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let workers = futures_util::future::join_all(workers);
    let reapers = futures_util::future::join_all(reapers);
    futures_util::future::join3(workers, reapers, watcher).await;
    while reap(pool, AT_ONCE).await.unwrap().is_some() {}
    tokio::time::sleep(Duration::from_millis(50)).await;
    while reap(pool, AT_ONCE).await.unwrap().is_some() {}
    invariants(pool).await;
    let (ends, reaped) = (ends.into_inner(), reaped.into_inner());
    println!("{ends} attempts ended by their workers, {reaped} by a reaper");
    assert!(
        ends > 50 && reaped > 50,
        "{ends} ends, {reaped} reaped: too few to show anything"
    );
}
