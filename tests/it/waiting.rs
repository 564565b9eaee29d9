//! The queue as users see it: wait reasons, estimated starts, workers.

use std::{process::Command, time::Duration};

use rehead::{
    db::{
        controls,
        queue_position::{self, QueuePosition},
        workers::{self, NewWorker, State},
    },
    domain::{
        id::{JobId, WorkerId},
        job::{Control, Outcome, WaitReason},
    },
};
use serde_json::Value;
use sqlx::PgPool;

use crate::{
    events::queued_job,
    support::{
        queue::{HOUR, Queue, claim},
        service::Service,
    },
};

async fn register(pool: &PgPool, host: &str) -> WorkerId {
    let id = WorkerId::new();
    let worker = NewWorker {
        id,
        host: host.to_owned(),
        pid: 1,
        version: "0.0.0".to_owned(),
        device: "cpu".to_owned(),
        slots: 1,
    };
    workers::register(pool, &worker).await.unwrap();
    id
}

async fn position(queue: &Queue, job: JobId) -> QueuePosition {
    queue_position::get(queue.pool(), queue.tenant, job)
        .await
        .unwrap()
        .unwrap()
}

/// Ahead are the turns that others have before, not all that they wait with.
#[tokio::test]
async fn queue_position_counts_turns_of_tenants() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    queue.job().await;
    let other = queue.tenant("other").await;
    let mut jobs = Vec::new();
    for _ in 0..4 {
        queue.job().await;
        jobs.push(queue.job_of(other.0, other.1, 2).await);
    }
    let ahead = async || {
        let mut ahead = Vec::new();
        for &job in &jobs {
            let position = queue_position::get(pool, other.0, job)
                .await
                .unwrap()
                .unwrap();
            ahead.push(position.ahead);
        }
        ahead
    };
    // One each, the older tenant first.
    assert_eq!(ahead().await, [1, 3, 5, 7]);
    // Two for one; no more than there are; none.
    queue
        .run("update tenants set weight = 2 where name <> 'other'")
        .await;
    assert_eq!(ahead().await, [1, 4, 7, 8]);
    queue
        .run("update tenants set weight = 1000 where name <> 'other'")
        .await;
    assert_eq!(ahead().await, [1, 6, 7, 8]);
    queue
        .run("update tenants set max_running = 0 where name <> 'other'")
        .await;
    assert_eq!(ahead().await, [0, 1, 2, 3]);
    queue
        .run("update tenants set max_running = 100, paused = true where name <> 'other'")
        .await;
    assert_eq!(ahead().await, [0, 1, 2, 3]);

    // What is said is what is done.
    queue
        .run("update tenants set weight = 2, paused = false where name <> 'other'")
        .await;
    let said = ahead().await;
    for turn in 0..9 {
        let claimed = queue.claim().await.unwrap();
        let position = jobs.iter().position(|&job| job == claimed.job);
        assert_eq!(
            position,
            said.iter().position(|&ahead| ahead == turn),
            "{turn}"
        );
    }
}

#[tokio::test]
async fn workers_without_heartbeat_for_a_month_are_deleted() {
    let queue = Queue::start().await;
    for host in ["gone", "silent"] {
        register(queue.pool(), host).await;
    }
    for statement in [
        "update workers set last_seen_at = now() - interval '30 days 1 second' where host = 'gone'",
        "update workers set last_seen_at = now() - interval '29 days 23 hours' where host = 'silent'",
    ] {
        queue.run(statement).await;
    }
    assert_eq!(workers::forget(queue.pool()).await.unwrap(), 1);
    let hosts: Vec<String> = sqlx::query_scalar("select host from workers")
        .fetch_all(queue.pool())
        .await
        .unwrap();
    assert_eq!(hosts, ["silent"]);
}

#[tokio::test]
async fn a_waiting_job_has_reason_and_estimate() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let (first, second) = (queue.job().await, queue.job().await);
    let seen = position(&queue, second).await;
    assert_eq!(
        (seen.ahead, seen.reason, seen.estimate),
        (1, WaitReason::NoWorker, None)
    );

    let worker = register(pool, "a").await;
    assert_eq!(position(&queue, first).await.reason, WaitReason::Starting);
    let claimed = claim(pool, worker, HOUR).await.unwrap();
    assert_eq!(claimed.job, first);
    let seen = position(&queue, second).await;
    // Nothing was measured: nothing is claimed to be known.
    assert_eq!(
        (seen.ahead, seen.reason, seen.estimate),
        (0, WaitReason::SlotsBusy, None)
    );
    assert!(
        queue_position::get(pool, queue.tenant, first)
            .await
            .unwrap()
            .is_none()
    );

    tokio::time::sleep(Duration::from_millis(400)).await;
    queue.end(&claimed, &Outcome::Succeeded).await.unwrap();
    let third = queue.job().await;
    claim(pool, worker, HOUR).await.unwrap();
    let fourth = queue.job().await;
    let estimate = position(&queue, fourth).await.estimate.unwrap();
    // What is left of the second job, and the third.
    assert!(
        (0.3..5.0).contains(&estimate.p50.as_secs_f64()) && estimate.p90 >= estimate.p50,
        "{estimate:?}"
    );
    assert!(position(&queue, third).await.estimate.unwrap().p50 < estimate.p50);

    register(pool, "b").await;
    assert_eq!(position(&queue, third).await.reason, WaitReason::Starting);
    queue.run("update tenants set max_running = 1").await;
    let seen = position(&queue, third).await;
    assert_eq!(
        (seen.reason, seen.estimate),
        (WaitReason::TenantAtCap, None)
    );
    queue
        .run("update jobs set run_at = now() + interval '1 minute' where status = 'queued'")
        .await;
    let seen = position(&queue, third).await;
    assert_eq!(seen.reason, WaitReason::Backoff);
    assert!(seen.until.is_some() && seen.estimate.unwrap().p50 > Duration::from_secs(50));
    queue.run("update tenants set paused = true").await;
    assert_eq!(
        position(&queue, third).await.reason,
        WaitReason::TenantPaused
    );
    queue
        .run("update workers set last_seen_at = now() - interval '2 minutes'")
        .await;
    queue.run("update tenants set paused = false").await;
    queue
        .run("update jobs set run_at = now() where status = 'queued'")
        .await;
    assert_eq!(position(&queue, third).await.reason, WaitReason::NoWorker);
    controls::ask(pool, queue.tenant, third, Control::Pause)
        .await
        .unwrap();
    assert!(
        queue_position::get(pool, queue.tenant, third)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn workers_are_seen_with_own_jobs_only() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let (other, _) = queue.tenant("other").await;
    let job = queue.job().await;
    let (busy, idle) = (register(pool, "a").await, register(pool, "b").await);
    claim(pool, busy, HOUR).await.unwrap();
    workers::drain(pool, idle).await.unwrap();
    let seen = workers::list(pool, queue.tenant).await.unwrap();
    let one = |id| seen.iter().find(|worker| worker.id == id).unwrap();
    assert_eq!(
        (one(busy).busy, one(busy).slots, &one(busy).jobs),
        (1, 1, &vec![job])
    );
    assert_eq!((one(idle).busy, one(idle).state.as_str()), (0, "draining"));
    queue
        .run("update workers set last_seen_at = now() - interval '2 minutes'")
        .await;
    let seen = workers::list(pool, other).await.unwrap();
    assert!(
        seen.iter()
            .all(|worker| worker.jobs.is_empty() && worker.state == "lost")
    );
    assert_eq!(seen.iter().map(|worker| worker.busy).sum::<u32>(), 1);
    workers::stop(pool, idle).await.unwrap();
    let seen = workers::list(pool, other).await.unwrap();
    assert!(
        seen.iter()
            .any(|worker| worker.id == idle && worker.state == "stopped")
    );
}

#[tokio::test]
async fn a_job_that_does_not_fit_has_reason_memory() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let (small, large) = (register(pool, "small").await, register(pool, "large").await);
    for (worker, free_mb) in [(small, 500), (large, 1_000)] {
        workers::offer(pool, worker, "cpu", (free_mb, free_mb), HOUR)
            .await
            .unwrap();
    }
    let other = queue.job().await;
    let job = queue.job().await;
    sqlx::query("update jobs set device_mb = 600 where id = $1")
        .bind(job.0)
        .execute(pool)
        .await
        .unwrap();
    assert_eq!(position(&queue, job).await.reason, WaitReason::Starting);
    assert_eq!(claim(pool, large, HOUR).await.unwrap().job, other);
    let seen = position(&queue, job).await;
    assert_eq!((seen.reason, seen.estimate), (WaitReason::Memory, None));
    queue
        .run("update jobs set device_mb = 500 where status = 'queued'")
        .await;
    assert_eq!(position(&queue, job).await.reason, WaitReason::Starting);
    // Nobody here understands it.
    queue
        .run("update jobs set spec_version = 1000 where status = 'queued'")
        .await;
    assert_eq!(position(&queue, job).await.reason, WaitReason::NoWorker);
}

#[tokio::test]
async fn a_job_behind_a_reservation_has_reason_reserved() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let worker = register(pool, "shared").await;
    workers::offer(pool, worker, "cpu", (1_000, 4_000), HOUR / 2)
        .await
        .unwrap();
    let (large, small) = (queue.job().await, queue.job().await);
    queue
        .run("update jobs set device_mb = 3000 where seq = (select min(seq) from jobs)")
        .await;
    assert_eq!(position(&queue, small).await.reason, WaitReason::Starting);
    queue
        .run("update jobs set run_at = now() - interval '31 minutes' where device_mb = 3000")
        .await;
    assert_eq!(position(&queue, small).await.reason, WaitReason::Reserved);
    assert_eq!(position(&queue, large).await.reason, WaitReason::Memory);
    // Where the large one could never run, nothing is kept for it.
    let other = register(pool, "other").await;
    workers::offer(pool, other, "cpu", (1_000, 2_999), HOUR / 2)
        .await
        .unwrap();
    assert_eq!(position(&queue, small).await.reason, WaitReason::Starting);
}

/// Output of a command of the client.
pub(crate) fn said(service: &Service, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rehead"));
    command.args(arguments).args(["--url", &service.url]);
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_jobs_and_workers() {
    let service = Service::start().await;
    let job = queued_job(&service).await;
    let id = job["id"].as_str().unwrap();
    assert_eq!(job["queue"]["reason"], "no_worker");
    let shown = said(&service, &["jobs"]);
    let row = shown
        .lines()
        .find(|line| line.starts_with(id))
        .unwrap_or_else(|| panic!("{shown}"));
    assert!(
        row.contains("queued") && row.contains("net") && row.contains("there are no workers"),
        "{shown}"
    );
    assert_eq!(
        said(&service, &["workers"]).trim(),
        "no worker has sent a heartbeat for a day"
    );

    // A worker without a folder of base weights would only fail: its presence is enough.
    service.ask(&job, "pause").await.ok();
    let mut worker = service.worker("worker", &[]);
    worker.wait_for("worker started");
    let workers: Vec<Value> =
        serde_json::from_str(&said(&service, &["workers", "--json"])).unwrap();
    assert_eq!(
        (workers.len(), &workers[0]["state"], &workers[0]["slots"]),
        (1, &"active".into(), &1.into())
    );
    let path = "/v1/workers";
    let listed = service
        .until(path, "measured worker", |listed| {
            listed["data"][0]["free_mb"].as_u64() > Some(0)
        })
        .await;
    assert_eq!(listed["data"][0]["id"], workers[0]["id"]);
    // What it found, not what it was asked for.
    assert_eq!(listed["data"][0]["device"], "cpu");
    assert!(said(&service, &["workers"]).contains("GiB free"));
    let jobs: Vec<Value> = serde_json::from_str(&said(&service, &["jobs", "--json"])).unwrap();
    assert_eq!((jobs.len(), &jobs[0]["status"]), (1, &"paused".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_show_workers_and_wait_reasons() {
    let service = Service::start().await;
    queued_job(&service).await;
    let pool = service.pool().await;
    sqlx::query("update jobs set device_mb = 1")
        .execute(&pool)
        .await
        .unwrap();
    let (worker, other) = (register(&pool, "a").await, register(&pool, "a").await);
    let reason = "three jobs failed";
    for id in [worker, other] {
        workers::tell(&pool, id, (State::Quarantined, 1), Some(reason))
            .await
            .unwrap();
    }
    let shown = said(&service, &["jobs"]);
    assert!(
        shown.contains("no worker accepts jobs (2 quarantined)"),
        "{shown}"
    );

    claim(&pool, worker, HOUR).await.unwrap();
    let name = format!("a/{}", &worker.0.simple().to_string()[24..]);
    for command in ["jobs", "workers"] {
        let shown = said(&service, &[command]);
        assert_eq!(shown.matches(&name).count(), 1, "{shown}");
    }
}
