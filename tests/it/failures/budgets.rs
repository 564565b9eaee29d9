//! Three budgets: transient errors, crashes, and preemptions, which cost nothing.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use sqlx::PgPool;

use crate::support::{
    attempts::{QUICK, long_job, material, outcomes, signal_all},
    postgres::invariants,
    service::Service,
};

/// Jobs made from now on bear so many crashes, and one at a time runs.
async fn bear_crashes(pool: &PgPool, max_crashes: u32) {
    let statement = format!("alter table jobs alter max_crashes set default {max_crashes}");
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .execute(pool)
        .await
        .unwrap();
    sqlx::query("update tenants set max_running = 1")
        .execute(pool)
        .await
        .unwrap();
}

/// Waits for attempt `n`, and does not wait for the pause before it.
async fn runs_attempt(service: &Service, pool: &PgPool, job: &Value, n: usize) {
    let path = service.path(job);
    let attempts = |job: &Value| job["attempts"].as_array().unwrap().len();
    for _ in 0..1_200 {
        sqlx::query("update jobs set run_at = now() where status = 'queued' and run_at > now()")
            .execute(pool)
            .await
            .unwrap();
        let job = service.get(&path).await.ok();
        assert_ne!(job["is_terminal"], true, "{job}");
        if attempts(&job) >= n {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no attempt {n}");
}

#[tokio::test(flavor = "multi_thread")]
async fn f08_f28_a_last_crash_fails_the_job_and_frees_the_tenant() {
    let service = Service::start().await;
    let pool = service.pool().await;
    let first = service.worker("first", &QUICK);
    let file = material(&service).await;
    bear_crashes(&pool, 1).await;
    let job = long_job(&service, &file, 1_000).await;
    let next = long_job(&service, &file, 1).await;
    service.runs_attempt(&job, 1).await;
    first.signal(Signal::SIGKILL);
    drop(first);
    let second = service.worker("second", &QUICK);
    // Nothing else may run in the meantime: the tenant's one place is the dead worker's until it is
    // reaped.
    runs_attempt(&service, &pool, &job, 2).await;
    second.signal(Signal::SIGKILL);
    drop(second);

    let third = service.worker("third", &QUICK);
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["lost", "lost"], "{ended}");
    assert_eq!(ended["error"]["code"], "worker_crash_loop", "{ended}");
    assert_eq!(ended["error"]["permanent"], false);
    assert_eq!(
        (&ended["budgets"]["crashes"], &ended["budgets"]["failures"]),
        (&2.into(), &0.into())
    );
    let next = service.ended(&next).await;
    assert_eq!(next["status"], "succeeded", "{next}\n{}", third.log());
    let places: i32 = sqlx::query_scalar("select running from tenants")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(places, 0);
    invariants(&pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f09_a_job_that_crashes_each_time_fails() {
    let service = Service::start().await;
    let pool = service.pool().await;
    let worker = service.worker("worker", &QUICK);
    let file = material(&service).await;
    bear_crashes(&pool, 2).await;
    let poison = long_job(&service, &file, 1_000).await;
    let healthy = long_job(&service, &file, 1).await;
    // It does so again and again: the test is the defect in its C++.
    for attempt in 1..=3 {
        runs_attempt(&service, &pool, &poison, attempt).await;
        let path = service.path(&poison);
        service
            .until(&path, "end of the attempt", |job| {
                signal_all(&worker.descendants(), Signal::SIGABRT);
                job["attempts"][attempt - 1]["outcome"].is_string()
            })
            .await;
    }
    let ended = service.ended(&poison).await;
    assert_eq!(
        outcomes(&ended),
        ["crashed", "crashed", "crashed"],
        "{ended}"
    );
    assert_eq!(ended["error"]["code"], "worker_crash_loop", "{ended}");
    assert_eq!(ended["budgets"]["crashes"], 3);
    let message = ended["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("3 attempts ended without a result"),
        "{message}"
    );
    // The worker lives, and serves others.
    let healthy = service.ended(&healthy).await;
    assert_eq!(
        healthy["status"],
        "succeeded",
        "{healthy}\n{}",
        worker.log()
    );
    invariants(&pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f26_a_job_that_is_released_twenty_times_succeeds() {
    let service = Service::start().await;
    let mut worker = service.worker("0", &QUICK);
    let file = material(&service).await;
    let job = long_job(&service, &file, 8).await;
    let path = service.path(&job);
    for n in 1..=20 {
        service.runs_attempt(&job, n).await;
        if n % 7 == 1 {
            // Now and then it gets as far as a step; elsewhere it is stopped while it starts.
            service
                .until(&path, "training", |job| job["phase"] == "training")
                .await;
        }
        worker.signal(Signal::SIGTERM);
        assert!(
            worker.wait(Duration::from_secs(30)).success(),
            "{}",
            worker.log()
        );
        worker = service.worker(&n.to_string(), &QUICK);
    }
    let ended = service.ended(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let budgets = &ended["budgets"];
    assert_eq!(
        (
            &budgets["preemptions"],
            &budgets["failures"],
            &budgets["crashes"]
        ),
        (&20.into(), &0.into(), &0.into())
    );
    assert_eq!(outcomes(&ended).len(), 21);
    invariants(&service.pool().await).await;
}
