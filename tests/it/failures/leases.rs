//! Leases on a real Postgres: kept ones are never taken, and of all who would end an attempt
//! exactly one does.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rehead::domain::{
    id::WorkerId,
    job::{JobStatus, Outcome},
};

use crate::support::{
    attempts::{endless_job, material, outcomes},
    postgres::invariants,
    queue::{Queue, claim, heartbeat, reap, skip_backoff},
    service::Service,
};

const AT_ONCE: Duration = Duration::ZERO;
/// Races of one end of an attempt against another.
const RACES: u64 = 10_000;

#[tokio::test]
async fn f04_a_lease_renewed_ten_times_is_never_reaped() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    let ttl = Duration::from_millis(300);
    let claimed = claim(pool, queue.worker, ttl).await.unwrap();
    let until = Instant::now() + ttl * 10;
    while Instant::now() < until {
        tokio::time::sleep(ttl / 6).await;
        let kept = heartbeat(pool, job, claimed.token, ttl).await.unwrap();
        assert!(kept.is_some());
        assert_eq!(reap(pool, AT_ONCE).await.unwrap(), None);
    }
    tokio::time::sleep(ttl * 2).await;
    assert_eq!(reap(pool, Duration::from_secs(3_600)).await.unwrap(), None);
    let reaped = reap(pool, AT_ONCE).await.unwrap();
    assert_eq!(reaped, Some((job, JobStatus::Queued)));
}

/// Another worker and the server look for dead leases all the time.
#[tokio::test(flavor = "multi_thread")]
async fn f04_a_job_of_ten_lease_times_is_never_reaped() {
    const LEASE: Duration = Duration::from_millis(2_000);
    let reaping = ["--lease-ms", "2000", "--reap-ms", "200"];
    let mut working = reaping.to_vec();
    working.extend(["--heartbeat-ms", "200"]);
    let service = Service::start_with(&reaping).await;
    // Whichever takes the job, the other one is beside it.
    let workers = ["one", "other"].map(|name| service.worker(name, &working));
    let file = material(&service).await;
    let job = endless_job(&service, &file).await;
    service.has_checkpoint(&job).await;
    tokio::time::sleep(LEASE * 10).await;
    service.ask(&job, "stop").await.ok();
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["succeeded"], "{ended}");
    for process in workers.iter().chain([&service.server]) {
        let log = process.log();
        assert!(!log.contains("a lease expired"), "{log}");
    }
    invariants(&service.pool().await).await;
}

/// The reaper has seen a dead lease and reaches for it: it looks once more.
#[tokio::test(flavor = "multi_thread")]
async fn f04_a_heartbeat_during_reaping_keeps_the_lease() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    let claimed = claim(pool, queue.worker, AT_ONCE).await.unwrap();
    let mut renewing = rehead::db::begin(pool).await.unwrap();
    sqlx::query("update work set lease_expires_at = now() + interval '1 hour' where job_id = $1")
        .bind(job.0)
        .execute(&mut *renewing)
        .await
        .unwrap();
    let reaper = tokio::spawn({
        let pool = pool.clone();
        async move { reap(&pool, AT_ONCE).await }
    });
    // It waits for the row.
    let waiting = "select exists (select from pg_stat_activity where wait_event_type = 'Lock')";
    while !sqlx::query_scalar::<_, bool>(waiting)
        .fetch_one(pool)
        .await
        .unwrap()
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    renewing.commit().await.unwrap();
    assert_eq!(reaper.await.unwrap().unwrap(), None);
    let kept = heartbeat(pool, job, claimed.token, Duration::from_secs(60)).await;
    assert!(kept.unwrap().is_some());
}

/// Each lane claims with a lease that is dead at birth, then ends the attempt while a reaper ends
/// it too: of both exactly one finds the lease. Lanes reap each other's attempts as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn f02_f03_a_finish_and_a_reaper_at_once_end_an_attempt_once() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    // No job runs out of lives, and none waits after a loss.
    sqlx::query("alter table jobs alter max_crashes set default 1000000")
        .execute(pool)
        .await
        .unwrap();
    sqlx::query("update tenants set max_running = 100, max_queued = 100000")
        .execute(pool)
        .await
        .unwrap();
    for _ in 0..150 {
        queue.job().await;
    }
    let (races, finished, reaped) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let lane = || async {
        while races.fetch_add(1, Ordering::Relaxed) < RACES {
            let Some(claimed) = claim(pool, WorkerId::new(), AT_ONCE).await else {
                skip_backoff(pool).await;
                continue;
            };
            // Most ends put the job back, so that it can be raced for again.
            let succeed = claimed.token % 100 == 99;
            let outcome = if succeed {
                Outcome::Succeeded
            } else {
                Outcome::Yielded
            };
            let finish = queue.end(&claimed, &outcome);
            let (ended, lost) = tokio::join!(finish, reap(pool, AT_ONCE));
            finished.fetch_add(u64::from(ended.is_some()), Ordering::Relaxed);
            reaped.fetch_add(u64::from(lost.unwrap().is_some()), Ordering::Relaxed);
        }
    };
    let since = Instant::now();
    futures_util::future::join_all((0..8).map(|_| lane())).await;
    let took = since.elapsed();
    while reap(pool, AT_ONCE).await.unwrap().is_some() {
        reaped.fetch_add(1, Ordering::Relaxed);
    }
    let (finished, reaped) = (finished.into_inner(), reaped.into_inner());
    println!("{finished} attempts finished, {reaped} reaped, in {took:?}");
    let attempts: i64 = sqlx::query_scalar("select count(*) from attempts")
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(finished + reaped, attempts.unsigned_abs());
    assert!(
        finished > RACES / 20 && reaped > RACES / 20,
        "one side always won"
    );
    let succeeded: i64 =
        sqlx::query_scalar("select count(*) from models where kind = 'fine_tuned'")
            .fetch_one(pool)
            .await
            .unwrap();
    assert!(succeeded > 10, "{succeeded} jobs succeeded");
    // Each job is what its last attempt made of it.
    let wrong: Vec<String> = sqlx::query_scalar(
        "select j.id::text from jobs j join attempts a on a.job_id = j.id and a.token = j.token
        where (j.status = 'succeeded') <> (a.outcome = 'succeeded')",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(wrong.is_empty(), "{wrong:?}");
    invariants(pool).await;
}
