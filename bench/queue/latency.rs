//! How long a user waits: from submission to a claim and to the training phase, from a cancellation
//! to a free device, from a kill to the next attempt; and what saving costs. By the database's
//! clock.

use nix::sys::signal::Signal;
use sqlx::PgPool;

use crate::{
    process::Process,
    stack::{Stack, pause, quantiles},
};

const JOBS: usize = 60;
const CANCELS: usize = 15;
const KILLS: usize = 5;
/// Epochs of a measured job: four steps each, with a save every second.
const SAVE_EPOCHS: u32 = 400;
/// Short enough to wait for; recovery is measured against it.
const LEASE: [&str; 6] = [
    "--lease-ms",
    "6000",
    "--heartbeat-ms",
    "1000",
    "--reap-ms",
    "500",
];

pub(crate) async fn measure(stack: &mut Stack) {
    let worker = stack.worker(&[]);
    // The first trainer loads its code from disk; not what is asked.
    let first = stack.job(1).await;
    stack.ended(&first).await;
    submit(stack).await;
    cancel(stack).await;
    drop(worker);
    kill(stack).await;
    save(stack).await;
}

/// On an idle worker with a warm trainer.
async fn submit(stack: &Stack) {
    let (mut claimed, mut training) = (Vec::new(), Vec::new());
    for _ in 0..JOBS {
        // The next trainer warms up.
        pause(1_500).await;
        let job = stack.job(1).await;
        stack.ended(&job).await;
        claimed.push(between(&stack.pool, &job, "select j.created_at, a.started_at from jobs j join attempts a on a.job_id = j.id where j.id = $1::uuid order by a.token limit 1").await);
        training.push(between(&stack.pool, &job, "select j.created_at, e.created_at from jobs j join job_events e on e.job_id = j.id where j.id = $1::uuid and e.kind = 'phase' and e.data ->> 'phase' = 'training' order by e.seq limit 1").await);
    }
    println!(
        "submit to claimed, idle warm worker: {}",
        quantiles(claimed)
    );
    println!(
        "submit to the training phase, idle warm worker: {}",
        quantiles(training)
    );
}

async fn cancel(stack: &Stack) {
    let mut freed = Vec::new();
    for _ in 0..CANCELS {
        let job = stack.job(10_000).await;
        has_trained(&stack.pool, &job).await;
        stack
            .post(
                &format!("/fine_tuning/jobs/{job}/cancel"),
                &serde_json::json!({}),
            )
            .await;
        stack.ended(&job).await;
        freed.push(between(&stack.pool, &job, "select j.cancel_requested_at, a.ended_at from jobs j join attempts a on a.job_id = j.id where j.id = $1::uuid order by a.token desc limit 1").await);
    }
    println!(
        "cancel to device free, while training: {}",
        quantiles(freed)
    );
}

/// SIGKILL to a worker; another one stands by.
async fn kill(stack: &mut Stack) {
    let (mut recovered, mut lost) = (Vec::new(), Vec::new());
    let mut workers: Vec<Process> = (0..2).map(|_| stack.worker(&LEASE)).collect();
    pause(8_000).await;
    for _ in 0..KILLS {
        let job = stack.job(400).await;
        saved(&stack.pool, &job).await;
        pause(700).await;
        let now: f64 =
            sqlx::query_scalar("select extract(epoch from clock_timestamp())::double precision")
                .fetch_one(&stack.pool)
                .await
                .unwrap();
        let pid: i64 = sqlx::query_scalar("select w.pid from work l join workers w on w.id = l.worker_id where l.job_id = $1::uuid")
            .bind(bare(&job))
            .fetch_one(&stack.pool)
            .await
            .unwrap();
        let place = workers
            .iter()
            .position(|worker| i64::from(worker.pid()) == pid)
            .unwrap();
        workers[place].signal(Signal::SIGKILL);
        let reached: i64 = sqlx::query_scalar(
            "select coalesce(max(step), 0) from job_steps where job_id = $1::uuid",
        )
        .bind(bare(&job))
        .fetch_one(&stack.pool)
        .await
        .unwrap();
        workers[place] = stack.worker(&LEASE);
        let (started, resumed): (f64, i64) = loop {
            let second: Option<(f64, Option<i64>)> = sqlx::query_as("select extract(epoch from started_at)::double precision, resumed_step from attempts where job_id = $1::uuid and token = 2")
                .bind(bare(&job))
                .fetch_optional(&stack.pool)
                .await
                .unwrap();
            if let Some((started, resumed)) = second {
                break (started, resumed.unwrap_or(0));
            }
            pause(50).await;
        };
        recovered.push((started - now) * 1e3);
        lost.push(format!("{}", reached - resumed));
        stack
            .post(
                &format!("/fine_tuning/jobs/{job}/cancel"),
                &serde_json::json!({}),
            )
            .await;
        stack.ended(&job).await;
    }
    println!(
        "SIGKILL of a worker to the next attempt, lease of 6 s: {}",
        quantiles(recovered)
    );
    println!(
        "steps trained again after it, a checkpoint each second: {}",
        lost.join(", ")
    );
}

/// How long training stands still for a save of the last stage, its moments and the head: what the
/// trainer itself measures.
async fn save(stack: &mut Stack) {
    let _worker = stack.worker(&[]);
    let job = stack.job(SAVE_EPOCHS).await;
    stack.ended(&job).await;
    let stalls: Vec<f64> = sqlx::query_scalar(
        "select (data ->> 'stall_ms')::double precision from job_events where job_id = $1::uuid and kind = 'checkpoint'",
    )
    .bind(bare(&job))
    .fetch_all(&stack.pool)
    .await
    .unwrap();
    let bytes: i64 =
        sqlx::query_scalar("select max(bytes) from checkpoints where job_id = $1::uuid")
            .bind(bare(&job))
            .fetch_one(&stack.pool)
            .await
            .unwrap();
    println!(
        "training held up by a save of up to {:.1} MB: {}",
        bytes as f64 / 1e6,
        quantiles(stalls)
    );
}

/// Milliseconds between the two times of the one row.
async fn between(pool: &PgPool, job: &str, query: &'static str) -> f64 {
    let (from, to): (time::OffsetDateTime, time::OffsetDateTime) = sqlx::query_as(query)
        .bind(bare(job))
        .fetch_one(pool)
        .await
        .unwrap();
    (to - from).as_seconds_f64() * 1e3
}

async fn has_trained(pool: &PgPool, job: &str) {
    while !exists(
        pool,
        job,
        "select exists (select from job_steps where job_id = $1::uuid)",
    )
    .await
    {
        pause(20).await;
    }
}

async fn saved(pool: &PgPool, job: &str) {
    while !exists(
        pool,
        job,
        "select exists (select from checkpoints where job_id = $1::uuid)",
    )
    .await
    {
        pause(20).await;
    }
}

async fn exists(pool: &PgPool, job: &str, query: &'static str) -> bool {
    sqlx::query_scalar(query)
        .bind(bare(job))
        .fetch_one(pool)
        .await
        .unwrap()
}

fn bare(job: &str) -> &str {
    job.trim_start_matches("ftjob-")
}
