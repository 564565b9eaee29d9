//! Tenants share the workers by weight, whatever one of them has waiting; a job that needs much memory gets its turn; and
//! old snapshots do not slow claims down.

use std::time::{Duration, Instant};

use rehead::{
    db::{
        queue::{self, Claimed, DEFAULT_CLASS, Offer, Trace},
        tenants::{self, Change, TenantId},
    },
    domain::{
        id::{FileId, JobId},
        job::Outcome,
    },
};

use crate::support::{
    postgres::invariants,
    queue::{HOUR, Queue, new_model},
};

const TEN_MINUTES: Duration = Duration::from_secs(600);

async fn end(queue: &Queue, claimed: &Claimed) {
    let model = new_model(claimed);
    let (job, token) = (claimed.job, claimed.token);
    let trace = Trace::default();
    let ended = queue::finish(
        queue.pool(),
        job,
        token,
        &Outcome::Succeeded,
        Some(&model),
        &trace,
    );
    ended.await.unwrap().unwrap();
}

/// Enqueues and claims jobs of one tenant, one after the other; each claim's time, sorted.
async fn pickups(queue: &Queue, tenant: TenantId, file: FileId, n: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        let job = queue.job_of(tenant, file, 2).await;
        let asked = Instant::now();
        let claimed = queue.claim().await.unwrap();
        times.push(asked.elapsed());
        assert_eq!(claimed.job, job);
        end(queue, &claimed).await;
    }
    times.sort_unstable();
    times
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// Copies of one queued job.
async fn flood(queue: &Queue, template: JobId, copies: i32) {
    sqlx::query(
        "insert into jobs (id, tenant_id, status, model, training_file, result_model, seed, timeout_seconds, metadata,
            request, recipe)
        select gen_random_uuid(), tenant_id, status, model, training_file, result_model || copy, seed, timeout_seconds,
            metadata, request, recipe
        from jobs, generate_series(1, $2) copy where id = $1",
    )
    .bind(template.0)
    .bind(copies)
    .execute(queue.pool())
    .await
    .unwrap();
    sqlx::query("analyze jobs")
        .execute(queue.pool())
        .await
        .unwrap();
}

/// Somebody claims, or counts, in a transaction that takes its time.
#[tokio::test(flavor = "multi_thread")]
async fn f29_a_tenant_whose_row_is_locked_holds_nobody_else_up() {
    let queue = Queue::start().await;
    let (other, file) = queue.tenant("other").await;
    queue.job().await;
    let free = queue.job_of(other, file, 4).await;
    let mut holder = queue.pool().begin().await.unwrap();
    sqlx::query("select from tenants where id = $1 for update")
        .bind(queue.tenant.0)
        .execute(&mut *holder)
        .await
        .unwrap();
    let claimed = tokio::time::timeout(Duration::from_secs(5), queue.claim())
        .await
        .expect("a claim waits for another tenant's row");
    assert_eq!(claimed.unwrap().job, free);
    // And nobody waits for the row where there is nothing else to do.
    let nothing = tokio::time::timeout(Duration::from_secs(5), queue.claim()).await;
    assert!(nothing.expect("a claim waits for the row").is_none());
    holder.rollback().await.unwrap();
    assert_eq!(queue.claim().await.unwrap().tenant, queue.tenant);
}

#[tokio::test(flavor = "multi_thread")]
async fn f29_ten_thousand_jobs_of_a_capped_tenant_leave_anothers_pickup_alone() {
    let queue = Queue::start().await;
    let (other, file) = queue.tenant("other").await;
    let alone = pickups(&queue, other, file, 200).await;

    let change = Change {
        max_running: Some(1),
        ..Change::default()
    };
    assert!(
        tenants::change(queue.pool(), "default", &change)
            .await
            .unwrap()
    );
    let template = queue.job().await;
    flood(&queue, template, 10_000).await;
    let running = queue.claim().await.unwrap();
    assert_eq!(running.tenant, queue.tenant);
    let beside = pickups(&queue, other, file, 200).await;
    let (alone, beside) = (percentile(&alone, 95), percentile(&beside, 95));
    println!("p95 of a pickup: {alone:?} alone, {beside:?} beside 10,000 jobs of a capped tenant");
    assert!(beside < alone * 3 + Duration::from_millis(20));

    // Not capped, it takes its turns, and no more.
    end(&queue, &running).await;
    let change = Change {
        max_running: Some(100),
        ..Change::default()
    };
    tenants::change(queue.pool(), "default", &change)
        .await
        .unwrap();
    sqlx::query("update tenants set vtime = 0")
        .execute(queue.pool())
        .await
        .unwrap();
    for _ in 0..10 {
        queue.job_of(other, file, 2).await;
    }
    let mut turns = Vec::new();
    for _ in 0..8 {
        turns.push(queue.claim().await.unwrap().tenant == other);
    }
    assert_eq!(turns.iter().filter(|&&turn| turn).count(), 4, "{turns:?}");
    let listed = tenants::list(queue.pool()).await.unwrap();
    let default = listed
        .iter()
        .find(|tenant| tenant.name == "default")
        .unwrap();
    assert_eq!((default.running, default.queued), (4, 10_001 - 1 - 4));
    invariants(queue.pool()).await;
}

#[tokio::test]
async fn f29_weights_share_the_workers_and_newcomers_do_not_take_them_all() {
    let queue = Queue::start().await;
    let (heavy, file) = queue.tenant("heavy").await;
    let change = Change {
        weight: Some(3.0),
        max_running: Some(100),
        ..Change::default()
    };
    tenants::change(queue.pool(), "heavy", &change)
        .await
        .unwrap();
    let change = Change {
        max_running: Some(100),
        ..Change::default()
    };
    tenants::change(queue.pool(), "default", &change)
        .await
        .unwrap();
    for priority in [4, 0].into_iter().cycle().take(20) {
        queue.job_of(heavy, file, priority).await;
        queue.job().await;
    }
    let mut heavy_turns = 0;
    for turn in 0..16 {
        let claimed = queue.claim().await.unwrap();
        if claimed.tenant == heavy {
            heavy_turns += 1;
            let urgent: i16 = sqlx::query_scalar("select priority from jobs where id = $1")
                .bind(claimed.job.0)
                .fetch_one(queue.pool())
                .await
                .unwrap();
            // Priorities are among a tenant's own jobs.
            assert_eq!(urgent, if heavy_turns <= 10 { 0 } else { 4 }, "turn {turn}");
        }
    }
    assert_eq!(heavy_turns, 12, "of 16, by a weight of 3 to 1");

    // It was not there before; it has one turn, not all that the others have had.
    let (late, file) = queue.tenant("late").await;
    for _ in 0..8 {
        queue.job_of(late, file, 0).await;
    }
    let mut late_turns = 0;
    for _ in 0..5 {
        late_turns += usize::from(queue.claim().await.unwrap().tenant == late);
    }
    assert!((1..=2).contains(&late_turns), "{late_turns} of 5");
    let nobody = tenants::change(queue.pool(), "nobody", &Change::default()).await;
    assert!(!nobody.unwrap());
    invariants(queue.pool()).await;
}

#[tokio::test]
async fn f30_a_job_that_needs_much_memory_gets_it_in_the_end() {
    let queue = Queue::start().await;
    let big = queue.job().await;
    sqlx::query("update jobs set device_mb = 3000")
        .execute(queue.pool())
        .await
        .unwrap();
    for _ in 0..6 {
        queue.job().await;
    }
    let claim = async |device_mb, capacity_mb| {
        let offer = Offer {
            worker: queue.worker,
            class: DEFAULT_CLASS,
            device_mb,
            capacity_mb,
            reserve: TEN_MINUTES,
            ttl: HOUR,
        };
        queue::claim(queue.pool(), offer).await.unwrap()
    };
    // Something else runs here; the big one waits, and small ones pass it.
    let running = claim(1_000, 4_000).await.unwrap();
    assert_ne!(running.job, big);
    sqlx::query("update jobs set run_at = now() - interval '11 minutes' where device_mb = 3000")
        .execute(queue.pool())
        .await
        .unwrap();
    // Now they wait for it, on a worker that could run it …
    assert!(claim(1_000, 4_000).await.is_none());
    // … and only there.
    let elsewhere = claim(1_000, 2_999).await.unwrap();
    assert_ne!(elsewhere.job, big);
    // While its tenant is at its cap it could not start anyway: nobody waits.
    let (other, file) = queue.tenant("other").await;
    let others = queue.job_of(other, file, 2).await;
    let cap = async |max_running| {
        let change = Change {
            max_running: Some(max_running),
            ..Change::default()
        };
        tenants::change(queue.pool(), "default", &change)
            .await
            .unwrap();
    };
    cap(2).await;
    assert_eq!(claim(1_000, 4_000).await.unwrap().job, others);
    cap(9).await;
    end(&queue, &running).await;
    assert_eq!(claim(4_000, 4_000).await.unwrap().job, big);
    assert!(
        claim(1_000, 4_000).await.is_some(),
        "and the small ones go on"
    );
    invariants(queue.pool()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f17_an_old_snapshot_does_not_slow_claims_down() {
    let queue = Queue::start().await;
    let (other, file) = queue.tenant("other").await;
    let before = pickups(&queue, other, file, 200).await;
    let mut snapshot = queue.pool().begin().await.unwrap();
    for statement in [
        "set transaction isolation level repeatable read",
        "select count(*) from jobs",
    ] {
        sqlx::query(statement)
            .execute(&mut *snapshot)
            .await
            .unwrap();
    }
    // An idle transaction is ended after a while; this one is as bad as they come.
    sqlx::query("set local idle_in_transaction_session_timeout = 0")
        .execute(&mut *snapshot)
        .await
        .unwrap();
    let beside = pickups(&queue, other, file, 1_000).await;
    let late = percentile(&beside, 99);
    snapshot.commit().await.unwrap();
    let before = percentile(&before, 99);
    println!("p99 of a claim: {before:?} before, {late:?} over 1,000 jobs beside an old snapshot");
    assert!(late < before * 3 + Duration::from_millis(50));
    invariants(queue.pool()).await;
}
