//! Lifecycles per second: claim, heartbeat, checkpoint, finish, each as workers do it, by clients
//! that do nothing else.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant},
};

use rehead::{
    db::{
        queue::{self, DEFAULT_CLASS, NewCheckpoint, Offer, Trace},
        work::{self, Lease},
    },
    domain::{
        id::WorkerId,
        job::{Failure, Outcome},
    },
};
use sqlx::PgPool;

use crate::stack::Stack;

const CLIENTS: usize = 16;
const RUN: Duration = Duration::from_secs(12);
/// Waiting jobs and tenants.
const LOADS: [(i64, i64); 12] = [
    (0, 1),
    (0, 20),
    (0, 1_000),
    (1_000, 1),
    (1_000, 20),
    (1_000, 1_000),
    (40_000, 1),
    (40_000, 20),
    (40_000, 1_000),
    (100_000, 1),
    (100_000, 20),
    (100_000, 1_000),
];

pub(crate) async fn measure(stack: &Stack) {
    let template = hidden_job(stack).await;
    println!(
        "\n| waiting jobs | tenants | lifecycles per second, {CLIENTS} clients |\n|---|---|---|"
    );
    let pool = &stack.pool;
    for (backlog, tenants) in LOADS {
        fill(pool, &template, backlog, tenants).await;
        let rate = run(pool, &template, backlog, tenants).await;
        let note = if backlog == 0 {
            ", each is posted first"
        } else {
            ""
        };
        println!("| {backlog}{note} | {tenants} | {rate:.0} |");
        empty(pool, &template).await;
    }
}

/// A job that waits, and is never claimed: others are its copies. No worker runs.
pub(crate) async fn hidden_job(stack: &Stack) -> String {
    let template = stack.job(3).await;
    sqlx::query("update jobs set run_at = now() + interval '1 day' where id = $1::uuid")
        .bind(template.trim_start_matches("ftjob-"))
        .execute(&stack.pool)
        .await
        .unwrap();
    template
}

/// Until time or the waiting jobs are over. Where none waits, every client first adds one that
/// somebody will take.
async fn run(pool: &PgPool, template: &str, backlog: i64, tenants: i64) -> f64 {
    let (begun, done) = (AtomicI64::new(0), AtomicI64::new(0));
    let since = Instant::now();
    let clients = (0..CLIENTS).map(|_| async {
        while since.elapsed() < RUN {
            if backlog == 0 {
                copy(pool, template, 1, tenants).await;
            } else if begun.fetch_add(1, Ordering::Relaxed) >= backlog {
                return;
            }
            while !lifecycle(pool).await {}
            done.fetch_add(1, Ordering::Relaxed);
        }
    });
    futures_util::future::join_all(clients).await;
    done.load(Ordering::Relaxed) as f64 / since.elapsed().as_secs_f64()
}

/// One job from claim to end. `false` where there was none to be had.
async fn lifecycle(pool: &PgPool) -> bool {
    let ttl = Duration::from_secs(60);
    let offer = Offer {
        worker: WorkerId::new(),
        class: DEFAULT_CLASS,
        device_mb: 1 << 20,
        capacity_mb: 1 << 20,
        reserve: Duration::from_secs(600),
        ttl,
    };
    let Some(claimed) = queue::claim(pool, offer).await.unwrap() else {
        return false;
    };
    let (job, token) = (claimed.job, claimed.token);
    assert!(
        work::renew(pool, &Lease::of_job(job, token), ttl)
            .await
            .unwrap()
            .is_some()
    );
    let checkpoint = NewCheckpoint {
        step: 1,
        epoch: 1,
        objects: format!("checkpoints/{}/1-{token}/", job.0.simple()),
        bytes: 1,
        manifest_sha256: "0".repeat(64),
        metrics: None,
        best: false,
        stall_ms: 0,
    };
    queue::commit_checkpoint(pool, job, token, &checkpoint)
        .await
        .unwrap()
        .unwrap();
    let outcome = Outcome::Failed(Failure::permanent("benchmark", "no trainer ran"));
    queue::finish(pool, job, token, &outcome, None, &Trace::default())
        .await
        .unwrap()
        .unwrap();
    true
}

/// Copies of the waiting job, spread over so many tenants whose caps do not bind.
pub(crate) async fn fill(pool: &PgPool, template: &str, jobs: i64, tenants: i64) {
    sqlx::query("insert into tenants (name) select 'tenant ' || i from generate_series(2, $1) i on conflict do nothing")
        .bind(tenants)
        .execute(pool)
        .await
        .unwrap();
    sqlx::query("update tenants set max_running = 1000000, max_queued = 1000000")
        .execute(pool)
        .await
        .unwrap();
    sqlx::query(
        "insert into models select m.* from tenants t, models o,
            lateral jsonb_populate_record(o, jsonb_build_object('tenant_id', t.id)) m
        where o.id = 'small' on conflict do nothing",
    )
    .execute(pool)
    .await
    .unwrap();
    copy(pool, template, jobs, tenants).await;
    for table in ["jobs", "tenants", "work"] {
        sqlx::query(sqlx::AssertSqlSafe(format!("vacuum analyze {table}")))
            .execute(pool)
            .await
            .unwrap();
    }
}

async fn copy(pool: &PgPool, template: &str, jobs: i64, tenants: i64) {
    sqlx::query(
        "insert into jobs overriding user value select copy.* from jobs j, generate_series(1, $2) i,
            lateral (select id from tenants order by id limit 1 offset (i + floor(random() * $3::bigint))::bigint % $3::bigint) t,
            lateral jsonb_populate_record(j, jsonb_build_object(
                'id', gen_random_uuid(), 'tenant_id', t.id, 'result_model', gen_random_uuid(), 'events', 0,
                'run_at', now())) copy
        where j.id = $1::uuid",
    )
    .bind(template.trim_start_matches("ftjob-"))
    .bind(jobs)
    .bind(tenants)
    .execute(pool)
    .await
    .unwrap();
}

/// Removes all jobs but the template, and what hangs on them.
pub(crate) async fn empty(pool: &PgPool, template: &str) {
    let hanging: Vec<String> = sqlx::query_scalar(
        "select conrelid::regclass::text from pg_constraint
        where confrelid = 'jobs'::regclass and contype = 'f' and conparentid = 0",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    for table in hanging {
        let statement = format!("truncate {table} cascade");
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(pool)
            .await
            .unwrap();
    }
    // Some still wait, and a trigger keeps those.
    let statements = format!(
        "set local session_replication_role = replica; delete from jobs where id <> '{}'",
        template.trim_start_matches("ftjob-")
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
        .execute(pool)
        .await
        .unwrap();
    sqlx::query("delete from models where tenant_id > 1")
        .execute(pool)
        .await
        .unwrap();
    sqlx::query("delete from tenants where id > 1")
        .execute(pool)
        .await
        .unwrap();
}
