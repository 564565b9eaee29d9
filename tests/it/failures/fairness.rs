//! Tenants share the workers by weight, whatever one of them has waiting; a job that needs much
//! memory gets its turn; and old snapshots do not slow claims down.

use std::time::{Duration, Instant};

use rehead::{
    db::{
        queue::{self, Claimed, DEFAULT_CLASS, Offer},
        tenants::{self, Change, TenantId},
    },
    domain::{
        id::{FileId, JobId},
        job::Outcome,
        role::Role,
    },
};
use serde_json::Value;
use sqlx::PgPool;

use crate::support::{
    attempts::{QUICK, endless_job, long_job, material, outcomes, uuid},
    postgres::invariants,
    queue::{HOUR, Queue},
    service::Service,
};

const TEN_MINUTES: Duration = Duration::from_secs(600);

async fn end(queue: &Queue, claimed: &Claimed) {
    let ended = queue.end(claimed, &Outcome::Succeeded).await;
    ended.unwrap();
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
async fn flood(pool: &PgPool, template: JobId, copies: i32) {
    sqlx::query(
        "insert into jobs (id, tenant_id, status, model, training_file, result_model, seed, timeout_seconds, metadata,
            request, recipe)
        select gen_random_uuid(), tenant_id, status, model, training_file, result_model || copy, seed, timeout_seconds,
            metadata, request, recipe
        from jobs, generate_series(1, $2) copy where id = $1",
    )
    .bind(template.0)
    .bind(copies)
    .execute(pool)
    .await
    .unwrap();
    sqlx::query("analyze jobs").execute(pool).await.unwrap();
}

/// How long a job waited for its worker. Returns once it has succeeded.
async fn waited(service: &Service, pool: &PgPool, job: &Value) -> Duration {
    let ended = service.ended(job).await;
    assert_eq!(outcomes(&ended), ["succeeded"], "{ended}");
    let seconds: f64 = sqlx::query_scalar(
        "select extract(epoch from a.started_at - j.created_at)::float8
        from attempts a join jobs j on j.id = a.job_id where j.id = $1::uuid",
    )
    .bind(uuid(job))
    .fetch_one(pool)
    .await
    .unwrap();
    Duration::from_secs_f64(seconds)
}

/// Somebody claims, or counts, in a transaction that takes its time.
#[tokio::test(flavor = "multi_thread")]
async fn f29_a_locked_tenant_does_not_delay_others() {
    let queue = Queue::start().await;
    let (other, file) = queue.tenant("other").await;
    queue.job().await;
    let free = queue.job_of(other, file, 4).await;
    let mut holder = rehead::db::begin(queue.pool()).await.unwrap();
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
async fn f29_ten_thousand_capped_jobs_do_not_slow_claims() {
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
    flood(queue.pool(), template, 10_000).await;
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

/// The same on a worker that has a slot left.
#[tokio::test(flavor = "multi_thread")]
async fn f29_ten_thousand_capped_jobs_do_not_delay_another_tenant() {
    let mut service = Service::start().await;
    let pool = service.pool().await;
    let mut arguments = QUICK.to_vec();
    arguments.extend(["--slots", "2"]);
    let worker = service.worker("worker", &arguments);
    let file = material(&service).await;
    sqlx::query("update tenants set max_running = 1")
        .execute(&pool)
        .await
        .unwrap();
    let running = endless_job(&service, &file).await;
    service.runs_attempt(&running, 1).await;
    let template = endless_job(&service, &file).await;

    service.key = Some(service.new_key("other", Role::User).await);
    let other = tenants::find_or_create(&pool, "other").await.unwrap();
    let file = material(&service).await;
    let job = long_job(&service, &file, 1).await;
    let alone = waited(&service, &pool, &job).await;
    flood(
        &pool,
        template["id"].as_str().unwrap().parse().unwrap(),
        10_000,
    )
    .await;
    let job = long_job(&service, &file, 1).await;
    let beside = waited(&service, &pool, &job).await;
    println!("a worker took {alone:?} to a job, {beside:?} beside 10,000 of a capped tenant");
    assert!(beside < alone + Duration::from_secs(2), "{}", worker.log());

    // It was the cap that held the others back, and nothing else.
    let attempts = || {
        sqlx::query_scalar::<_, i64>(
            "select count(*) from attempts a join jobs j on j.id = a.job_id where j.tenant_id <> $1",
        )
        .bind(other.0)
        .fetch_one(&pool)
    };
    assert_eq!(attempts().await.unwrap(), 1);
    sqlx::query("update tenants set max_running = 2")
        .execute(&pool)
        .await
        .unwrap();
    while attempts().await.unwrap() < 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    invariants(&pool).await;
}

#[tokio::test]
async fn f29_tenants_share_workers_by_weight() {
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
async fn f30_large_jobs_are_not_starved() {
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

/// Shares of the memory that a worker measures: of two slots each has room for a small job, and a
/// big one needs both.
#[tokio::test(flavor = "multi_thread")]
async fn f30_a_worker_reserves_memory_for_a_large_job() {
    let service = Service::start().await;
    let pool = service.pool().await;
    let mut arguments = QUICK.to_vec();
    arguments.extend(["--slots", "2", "--reserve-ms", "1000"]);
    let worker = service.worker("worker", &arguments);
    let file = material(&service).await;
    sqlx::query("update tenants set paused = true")
        .execute(&pool)
        .await
        .unwrap();
    let running = endless_job(&service, &file).await;
    let big = long_job(&service, &file, 1).await;
    let mut small = Vec::new();
    for _ in 0..3 {
        small.push(long_job(&service, &file, 1).await);
    }
    let measured = service
        .until("/v1/workers", "measured worker", |workers| {
            workers["data"][0]["free_mb"].as_u64() > Some(0)
        })
        .await;
    let free_mb = measured["data"][0]["free_mb"].as_i64().unwrap();
    // Far from either side: other tests take memory, and give it back.
    sqlx::query("update jobs set device_mb = case when id = $1::uuid then $2 else $2 / 2 end")
        .bind(uuid(&big))
        .bind(free_mb / 5 * 4)
        .execute(&pool)
        .await
        .unwrap();
    sqlx::query("update tenants set paused = false")
        .execute(&pool)
        .await
        .unwrap();
    // A small one passes it, however long that takes here: until then it has only just come.
    loop {
        sqlx::query("update jobs set run_at = now() where id = $1::uuid")
            .bind(uuid(&big))
            .execute(&pool)
            .await
            .unwrap();
        let first = service.get(&service.path(&small[0])).await.ok();
        if first["started_at"].is_u64() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // From then on small ones wait for it, though there is room for one.
    let last = service.path(&small[2]);
    let kept = |job: &Value| job["queue"]["reason"] == "reserved";
    service.until(&last, "reserved room", kept).await;
    service.has_checkpoint(&running).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let waits = service.get(&last).await.ok();
    assert!(kept(&waits), "{waits}\n{}", worker.log());
    let waits = service.get(&service.path(&big)).await.ok();
    assert_eq!(waits["queue"]["reason"], "memory", "{waits}");

    service.ask(&running, "stop").await.ok();
    for job in small.iter().chain([&running, &big]) {
        let ended = service.ended(job).await;
        assert_eq!(outcomes(&ended), ["succeeded"], "{ended}");
    }
    let started: Vec<String> = sqlx::query_scalar(
        "select replace(job_id::text, '-', '') from attempts order by started_at",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let place = |job: &Value| started.iter().position(|id| id == uuid(job)).unwrap();
    assert!(place(&small[0]) < place(&big), "{started:?}");
    assert!(place(&big) < place(&small[2]), "{started:?}");
    invariants(&pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f17_an_old_snapshot_does_not_slow_claims_down() {
    let queue = Queue::start().await;
    let (other, file) = queue.tenant("other").await;
    let before = pickups(&queue, other, file, 200).await;
    let mut snapshot = rehead::db::begin(queue.pool()).await.unwrap();
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
