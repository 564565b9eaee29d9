//! How fast the API answers who polls and who lists, beside an endpoint that does nothing, while
//! many jobs wait.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    lifecycles::{empty, fill, hidden_job},
    stack::{Stack, quantiles},
};

/// Jobs of one tenant that wait meanwhile.
const WAITING: i64 = 10_000;
const CONNECTIONS: &str = "8";
const SECONDS: &str = "2";
const ROUNDS: usize = 5;

pub(crate) async fn measure(stack: &mut Stack) {
    let worker = stack.worker(&[]);
    let finished = stack.job(1).await;
    let ended = stack.ended(&finished).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    drop(worker);
    let template = hidden_job(stack).await;
    fill(&stack.pool, &template, WAITING, 1).await;
    let queued: String = sqlx::query_scalar(
        "select 'ftjob-' || replace(id::text, '-', '') from claimable_jobs order by seq desc limit 1",
    )
    .fetch_one(&stack.pool)
    .await
    .unwrap();

    let job = |id: &str| format!("/fine_tuning/jobs/{id}");
    let mut reads = vec![("`/healthz`", "/../healthz".to_owned(), None)];
    for (name, unchanged, id) in [
        ("a finished job", "the same, unchanged (304)", &finished),
        ("a queued job", "the same, unchanged (304)", &queued),
    ] {
        let path = job(id);
        let tag = stack.etag(&path).await;
        reads.push((name, path.clone(), None));
        reads.push((unchanged, path, Some(tag)));
    }
    reads.push(("a list of 20", "/fine_tuning/jobs".to_owned(), None));
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); reads.len()];
    for _ in 0..ROUNDS {
        for (rates, (_, path, tag)) in rates.iter_mut().zip(&reads) {
            rates.push(wrk(stack, path, tag.as_deref()));
        }
    }
    println!(
        "\n| read with {WAITING} jobs waiting | per second | of `/healthz`: median, range |\n|---|---|---|"
    );
    for ((name, ..), of_read) in reads.iter().zip(&rates) {
        let ratios: Vec<f64> = of_read.iter().zip(&rates[0]).map(|(a, b)| a / b).collect();
        let (low, mid, high) = spread(ratios);
        let (_, rate, _) = spread(of_read.clone());
        println!("| {name} | {rate:.0} | {mid:.3}, {low:.3} to {high:.3} |");
    }

    println!("\n| with {WAITING} jobs waiting | time |\n|---|---|");
    let (mut lists, mut creates) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        let since = Instant::now();
        stack.get("/fine_tuning/jobs?limit=100").await;
        lists.push(millis(since.elapsed()));
        let since = Instant::now();
        stack.job(3).await;
        creates.push(millis(since.elapsed()));
    }
    println!("| a list of 100 | {} |", quantiles(lists));
    println!("| create a job | {} |", quantiles(creates));
    let since = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rehead"));
    command.args(["jobs", "--json", "--url", stack.url.trim_end_matches("/v1")]);
    let output = command.env("REHEAD_API_KEY", &stack.key).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    println!("| `rehead jobs` | {:.0} ms |", millis(since.elapsed()));
    empty(&stack.pool, &template).await;
}

/// Requests per second of one thread of wrk.
fn wrk(stack: &Stack, path: &str, tag: Option<&str>) -> f64 {
    let mut command = Command::new("wrk");
    command.args(["-t1", "-c", CONNECTIONS, "-d", SECONDS]);
    command.args(["-H", &format!("authorization: Bearer {}", stack.key)]);
    if let Some(tag) = tag {
        command.args(["-H", &format!("if-none-match: {tag}")]);
    }
    let url = reqwest::Url::parse(&format!("{}{path}", stack.url)).unwrap();
    let output = command
        .arg(url.as_str())
        .output()
        .expect("wrk is missing: Debian's package wrk");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!said.contains("Non-2xx"), "{path}: {said}");
    let rate = said
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"));
    rate.and_then(|rate| rate.trim().parse().ok())
        .unwrap_or_else(|| panic!("{path}: {said}"))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Lowest, median and highest.
fn spread(mut all: Vec<f64>) -> (f64, f64, f64) {
    all.sort_by(f64::total_cmp);
    (all[0], all[all.len() / 2], all[all.len() - 1])
}
