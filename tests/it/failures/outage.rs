//! Postgres and the way to it fail while jobs run: nothing is stolen from a worker that lives,
//! nothing is run twice, and nothing stays behind.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rehead::domain::{id::WorkerId, job::Outcome};
use serde_json::Value;
use sqlx::{PgPool, postgres::PgConnectOptions};

use crate::{
    chaos::setting,
    support::{
        attempts::{QUICK, endless_job, long_job, material, outcomes},
        postgres::invariants,
        process::Process,
        queue::{HOUR, Queue, claim, reap},
        service::Service,
    },
};

/// Ends all connections but the asker's; says how many.
async fn terminate(pool: &PgPool, which: &str) -> i64 {
    let query = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where pid <> pg_backend_pid() and backend_type = 'client backend' and {which}"
    );
    sqlx::query_scalar(sqlx::AssertSqlSafe(query))
        .fetch_one(pool)
        .await
        .unwrap()
}

async fn one_connection(service: &Service) -> PgPool {
    rehead::db::connect(&service.database_url, 1).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn f12_connections_that_end_every_second_end_no_attempt() {
    let seconds = setting("REHEAD_F12_SECONDS", 8);
    let service = Service::start().await;
    let worker = service.worker("worker", &QUICK);
    let file = material(&service).await;
    let job = endless_job(&service, &file).await;
    service.has_checkpoint(&job).await;
    let pool = one_connection(&service).await;
    let mut ended = 0;
    for _ in 0..seconds {
        ended += terminate(&pool, "true").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    service.ask(&job, "stop").await.ok();
    let done = service.ended(&job).await;
    assert_eq!(outcomes(&done), ["succeeded"], "{}", worker.log());
    assert_eq!(done["attempts"][0]["number"], 1, "{done}");
    println!("{ended} connections ended under one attempt in {seconds} s");
    assert!(ended >= 2 * seconds as i64, "only {ended}");
    invariants(&pool).await;
}

/// Waits until the job has a first attempt, and says how long that took.
async fn picked_up(service: &Service, job: &Value) -> Duration {
    let asked = Instant::now();
    service.runs_attempt(job, 1).await;
    asked.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_starts_while_postgres_is_away_waits_for_it() {
    let mut service = Service::start().await;
    let first = service.worker("first", &QUICK);
    let file = material(&service).await;
    drop(first);
    service.kill_postgres();
    let options: PgConnectOptions = service.database_url.parse().unwrap();
    for entry in std::fs::read_dir(options.get_socket().unwrap()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with(".s.PGSQL") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let mut patient = service.worker("patient", &QUICK);
    let mut stopped = service.worker("stopped", &QUICK);
    patient.wait_for("trying again");
    stopped.wait_for("trying again");
    // Who is told to stop does not wait on.
    stopped.signal(Signal::SIGTERM);
    let ended = stopped.wait(Duration::from_secs(10));
    assert!(ended.success(), "{}", stopped.log());
    service.restart_postgres();
    patient.wait_for("worker started");
    let job = service.ended(&long_job(&service, &file, 1).await).await;
    assert_eq!(outcomes(&job), ["succeeded"], "{job}");

    // There is an end to it.
    service.kill_postgres();
    let mut arguments = QUICK.to_vec();
    arguments.extend(["--database-wait-ms", "100"]);
    let mut brief = service.worker("brief", &arguments);
    assert!(!brief.wait(Duration::from_secs(30)).success());
    assert!(
        brief.log().contains("error: cannot reach Postgres at"),
        "{}",
        brief.log()
    );
    service.restart_postgres();
}

#[tokio::test(flavor = "multi_thread")]
async fn f13_a_lost_notification_is_found_by_poll_and_reconnect() {
    let service = Service::start().await;
    let quick = service.worker("quick", &QUICK);
    let file = material(&service).await;
    let pool = one_connection(&service).await;
    sqlx::query("alter table jobs disable trigger notify_job_insert")
        .execute(&pool)
        .await
        .unwrap();
    assert!(terminate(&pool, "query ilike 'listen%'").await >= 1);
    let job = long_job(&service, &file, 1).await;
    let polled = picked_up(&service, &job).await;
    assert!(polled < Duration::from_secs(5), "{polled:?}");
    service.ended(&job).await;
    drop(quick);

    // One that polls every ten minutes hears nothing, until its listener has been away.
    let mut arguments = QUICK.to_vec();
    arguments.extend(["--poll-ms", "600000"]);
    let mut lazy = service.worker("lazy", &arguments);
    lazy.wait_for("worker started");
    tokio::time::sleep(Duration::from_secs(4)).await;
    let job = long_job(&service, &file, 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let waiting = service.get(&service.path(&job)).await.ok();
    assert_eq!(waiting["status"], "queued", "{waiting}");
    assert!(terminate(&pool, "query ilike 'listen%'").await >= 1);
    let heard = picked_up(&service, &job).await;
    assert!(heard < Duration::from_secs(10), "{heard:?}");
    println!("picked up by the poll after {polled:?}, by the reconnect after {heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn f15_a_crash_of_postgres_while_reaping_strands_no_job() {
    const JOBS: usize = 60;
    let mut queue = Queue::start().await;
    sqlx::query("update tenants set max_running = 1000")
        .execute(queue.pool())
        .await
        .unwrap();
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        jobs.push(queue.job().await);
        let lease = Duration::from_millis(1);
        assert!(claim(queue.pool(), WorkerId::new(), lease).await.is_some());
    }
    let mut reaped = 0;
    for _ in 0..4 {
        let pool = queue.pool().clone();
        let reaping = tokio::spawn(async move {
            let mut reaped = 0;
            // Ends with the connection, or when nothing is left.
            while let Ok(Some(_)) = reap(&pool, Duration::ZERO).await {
                reaped += 1;
            }
            reaped
        });
        tokio::time::sleep(Duration::from_millis(rand::random_range(5..60))).await;
        queue.database.kill();
        reaped += reaping.await.unwrap();
        queue.database.restart();
        invariants(queue.pool()).await;
    }
    println!("{reaped} of {JOBS} dead leases were reaped before or between four deaths");
    while reap(queue.pool(), Duration::ZERO).await.unwrap().is_some() {}
    sqlx::query("update jobs set run_at = now() where finished_at is null")
        .execute(queue.pool())
        .await
        .unwrap();
    while let Some(claimed) = claim(queue.pool(), WorkerId::new(), HOUR).await {
        queue.end(&claimed, &Outcome::Succeeded).await.unwrap();
    }
    let ended: i64 = sqlx::query_scalar("select count(*) from jobs where status = 'succeeded'")
        .fetch_one(queue.pool())
        .await
        .unwrap();
    assert_eq!(ended, JOBS as i64);
    invariants(queue.pool()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f16_an_outage_of_three_leases_costs_no_attempt() {
    let mut service = Service::start().await;
    let quick = [
        "--lease-ms",
        "3000",
        "--heartbeat-ms",
        "500",
        "--reap-ms",
        "200",
    ];
    let first = service.worker("first", &quick);
    let file = material(&service).await;
    let job = long_job(&service, &file, 60).await;
    service.has_checkpoint(&job).await;
    // It would take the job as soon as it may.
    let mut second = service.worker("second", &quick);
    second.wait_for("worker started");
    let trainers = first.descendants();

    service.kill_postgres();
    tokio::time::sleep(Duration::from_secs(9)).await;
    // Whoever owns the job is heard of later than whoever would take it.
    first.signal(Signal::SIGSTOP);
    service.restart_postgres();
    let pool = service.pool().await;
    let back = "select exists (select from workers where pid = $1 and last_seen_at > pg_postmaster_start_time())";
    let back = || {
        sqlx::query_scalar::<_, bool>(back)
            .bind(i64::from(second.pid()))
            .fetch_one(&pool)
    };
    while !back().await.unwrap() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Some looks of its reaper, and less than a lease.
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.signal(Signal::SIGCONT);
    let ended = service.ended(&job).await;
    assert_eq!(
        outcomes(&ended),
        ["succeeded"],
        "{}\n{}",
        first.log(),
        second.log()
    );
    assert!(!trainers.is_empty());
    invariants(&service.pool().await).await;
}

/// A worker whose clocks (those that a process can have of its own) are an hour ahead.
fn worker_ahead(service: &Service, arguments: &[&str]) -> Option<Process> {
    let ahead = ["--time", "--boottime", "3600", "--monotonic", "3600"];
    let may = std::process::Command::new("unshare")
        .args(ahead)
        .arg("true")
        .status();
    if !may.is_ok_and(|status| status.success()) {
        return None;
    }
    let (objects, work_dir) = (service.objects(), service.dir.path().join("ahead"));
    let mut all = ahead.to_vec();
    all.extend([env!("CARGO_BIN_EXE_rehead"), "work"]);
    all.extend(["--database-url", &service.database_url]);
    all.extend(["--objects", objects.to_str().unwrap()]);
    all.extend(["--work-dir", work_dir.to_str().unwrap()]);
    all.extend(["--poll-ms", "200", "--threads", "1"]);
    all.extend(arguments);
    let executable = std::path::Path::new("unshare");
    Some(Process::start(
        "ahead",
        service.dir.path(),
        executable,
        &all,
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn f31_a_worker_whose_clock_is_ahead_steals_nothing() {
    let service = Service::start().await;
    let first = service.worker("first", &QUICK);
    let file = material(&service).await;
    let job = long_job(&service, &file, 40).await;
    service.has_checkpoint(&job).await;
    let Some(mut ahead) = worker_ahead(&service, &QUICK) else {
        eprintln!("not run: this user may not make a namespace");
        return;
    };
    ahead.wait_for("worker started");
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["succeeded"], "{}", ahead.log());
    // And it keeps its own leases.
    drop(first);
    let job = long_job(&service, &file, 2).await;
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["succeeded"], "{}", ahead.log());
    invariants(&service.pool().await).await;
}
