//! Who claims what: a broken worker does not drain the queue, an old one leaves new jobs alone, and
//! nobody takes a job whose memory is not there.

use std::time::Duration;

use rehead::{
    db::{tenants, workers},
    domain::recipe::SPEC_VERSION,
};
use serde_json::Value;
use sqlx::PgPool;

use crate::{
    support::{
        attempts::{QUICK, long_job, material, outcomes, uuid},
        postgres::invariants,
        queue::Queue,
        service::Service,
        tmpfs::Tmpfs,
    },
    waiting::said,
};

async fn worker_in(pool: &PgPool, state: &str) -> workers::Worker {
    for _ in 0..600 {
        let (tenant, _) = tenants::default_tenant(pool).await.unwrap();
        let found = workers::list(pool, tenant).await.unwrap();
        if let Some(worker) = found.into_iter().find(|worker| worker.state == state) {
            return worker;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no worker is {state}");
}

async fn status(service: &Service, job: &Value) -> String {
    let job = service.get(&service.path(job)).await.ok();
    job["status"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn f10_jobs_of_a_newer_version_are_left_alone() {
    let queue = Queue::start().await;
    let newer = queue.job().await;
    let ours = queue.job().await;
    sqlx::query("update jobs set spec_version = $1 where id = $2")
        .bind(SPEC_VERSION.cast_signed() + 1)
        .bind(newer.0)
        .execute(queue.pool())
        .await
        .unwrap();
    // Though it is older.
    assert_eq!(queue.claim().await.unwrap().job, ours);
    assert!(queue.claim().await.is_none());
    let untouched: (String, i64, i32) =
        sqlx::query_as("select status, token, failures from jobs where id = $1")
            .bind(newer.0)
            .fetch_one(queue.pool())
            .await
            .unwrap();
    assert_eq!(untouched, ("queued".to_owned(), 0, 0));
}

/// The server is newer than its only worker, as in the middle of a deployment.
#[tokio::test(flavor = "multi_thread")]
async fn f10_an_old_worker_skips_a_newer_job() {
    let service = Service::start().await;
    let pool = service.pool().await;
    let old = service.worker("old", &QUICK);
    let file = material(&service).await;
    sqlx::query("update tenants set paused = true")
        .execute(&pool)
        .await
        .unwrap();
    let newer = long_job(&service, &file, 1).await;
    let ours = long_job(&service, &file, 1).await;
    sqlx::query("update jobs set spec_version = $1 where id = $2::uuid")
        .bind(SPEC_VERSION.cast_signed() + 1)
        .bind(uuid(&newer))
        .execute(&pool)
        .await
        .unwrap();
    let row = || {
        sqlx::query_scalar::<_, Value>("select to_jsonb(jobs) from jobs where id = $1::uuid")
            .bind(uuid(&newer))
            .fetch_one(&pool)
    };
    let before = row().await.unwrap();
    sqlx::query("update tenants set paused = false")
        .execute(&pool)
        .await
        .unwrap();
    // Though it is younger.
    let ended = service.ended(&ours).await;
    assert_eq!(outcomes(&ended), ["succeeded"], "{ended}\n{}", old.log());
    // The worker has nothing else to do, and looks some more times.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        (&before["status"], &before["token"]),
        (&"queued".into(), &0.into())
    );
    assert_eq!(row().await.unwrap(), before);
    let waits = service.get(&service.path(&newer)).await.ok();
    assert_eq!(waits["queue"]["reason"], "no_worker", "{waits}");
    let shown = said(&service, &["jobs"]);
    assert!(
        shown.contains("the workers run an older version"),
        "{shown}"
    );

    let cancelled = service.ask(&newer, "cancel").await.ok();
    assert_eq!(cancelled["status"], "cancelled", "{cancelled}");
    assert!(outcomes(&cancelled).is_empty(), "{cancelled}");
    invariants(&pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f11_a_worker_with_a_failed_self_test_claims_nothing() {
    let service = Service::start().await;
    let pool = service.pool().await;
    let mut arguments = QUICK.to_vec();
    // No machine has as many.
    arguments.extend(["--device", "cuda:63"]);
    let _unfit = service.worker("unfit", &arguments);
    let file = material(&service).await;
    let job = long_job(&service, &file, 1).await;
    let unfit = worker_in(&pool, "unfit").await;
    let reason = unfit.reason.unwrap();
    assert!(
        reason.contains("self-test") && reason.contains("cuda:63"),
        "{reason}"
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(status(&service, &job).await, "queued");
    let _fit = service.worker("fit", &QUICK);
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["succeeded"], "{ended}");
    let fit = worker_in(&pool, "active").await;
    assert!(
        fit.free_mb > Some(0) && fit.capacity_mb >= fit.free_mb,
        "{fit:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn f11_a_worker_on_which_job_after_job_fails_is_quarantined() {
    let service = Service::start().await;
    let pool = service.pool().await;
    let full = service.dir.path().join("full");
    let Some(_small) = Tmpfs::mount(&full, 8) else {
        eprintln!("not run: this user may not mount a tmpfs");
        return;
    };
    let roomy = service.worker("roomy", &QUICK);
    let file = material(&service).await;
    drop(roomy);
    let mut arguments = QUICK.to_vec();
    arguments.extend(["--quarantine-after", "3"]);
    // Not even the base weights fit into its folder.
    let _cramped = service.worker("full/worker", &arguments);
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(long_job(&service, &file, 1).await);
    }
    let quarantined = worker_in(&pool, "quarantined").await;
    let reason = quarantined.reason.unwrap();
    assert!(reason.contains("3 different jobs"), "{reason}");
    let _roomy = service.worker("roomy", &QUICK);
    let mut ends = Vec::new();
    for job in &jobs {
        let ended = service.ended(job).await;
        ends.push(outcomes(&ended).join(" "));
    }
    let expected = [
        "failed succeeded",
        "failed succeeded",
        "yielded succeeded",
        "succeeded",
    ];
    assert_eq!(ends, expected, "the third is released at no cost");
    invariants(&pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f25_memory_is_measured_before_a_claim_and_slots_share_it() {
    let service = Service::start().await;
    let pool = service.pool().await;
    let mut arguments = QUICK.to_vec();
    arguments.extend(["--slots", "2"]);
    let worker = service.worker("worker", &arguments);
    let file = material(&service).await;
    let set = async |mb: i32| {
        sqlx::query("update jobs set device_mb = $1 where status = 'queued'")
            .bind(mb)
            .execute(&pool)
            .await
            .unwrap();
    };
    sqlx::query("update tenants set paused = true")
        .execute(&pool)
        .await
        .unwrap();
    let first = long_job(&service, &file, 40).await;
    let second = long_job(&service, &file, 40).await;
    let estimated: i32 = sqlx::query_scalar("select min(device_mb) from jobs")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(estimated > 100, "{estimated} MiB");
    // More than this machine has.
    set(i32::MAX).await;
    sqlx::query("update tenants set paused = false")
        .execute(&pool)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let waits = service.get(&service.path(&first)).await.ok();
    assert_eq!(waits["queue"]["reason"], "too_large", "{waits}");
    set(estimated).await;
    service.has_checkpoint(&first).await;
    service.has_checkpoint(&second).await;
    let leases: i64 = sqlx::query_scalar("select count(*) from work where kind = 'train'")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(leases, 2, "{}", worker.log());
    for job in [&first, &second] {
        let ended = service.ended(job).await;
        assert_eq!(outcomes(&ended), ["succeeded"], "{ended}");
    }
    let peaks: Vec<i32> =
        sqlx::query_scalar("select (peak_bytes >> 20)::int from attempts order by started_at")
            .fetch_all(&pool)
            .await
            .unwrap();
    println!("estimated {estimated} MiB, measured {peaks:?} MiB");
    assert!(peaks.iter().all(|&peak| peak > 50), "{peaks:?}");
    invariants(&pool).await;
}
