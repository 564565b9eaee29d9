//! `rehead workers`: lists workers.

use clap::Args;
use serde_json::Value;
use time::OffsetDateTime;

use super::{
    api::{self, Api},
    table::{self, duration, render},
};
use crate::config::ClientArgs;

/// `rehead workers`
#[derive(Debug, Args)]
pub struct WorkersArgs {
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Prints the workers of the last day, the newest first.
///
/// # Errors
/// The service refuses.
pub async fn run(args: &WorkersArgs) -> anyhow::Result<()> {
    let answer = Api::new(&args.client).get("/v1/workers").await?;
    let workers = answer["data"].as_array().cloned().unwrap_or_default();
    if args.client.json {
        return api::print_json(&workers);
    }
    if workers.is_empty() {
        return api::print("no worker has sent a heartbeat for a day");
    }
    let now = OffsetDateTime::now_utc().unix_timestamp();
    api::print(&render(
        &[
            "WORKER", "PID", "DEVICE", "STATE", "UP", "SEEN", "SLOTS", "MEMORY", "JOBS", "REASON",
        ],
        workers.iter().map(|worker| row(worker, now)),
    ))
}

fn row(worker: &Value, now: i64) -> Vec<String> {
    let text = |name: &str| worker[name].as_str().unwrap_or_default().to_owned();
    let ago = |name: &str| duration(now - worker[name].as_i64().unwrap_or(now));
    let number = |name: &str| worker[name].as_u64().unwrap_or(0);
    let mut jobs: Vec<String> = worker["jobs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|job| job.as_str().map(str::to_owned))
        .collect();
    let others = number("busy").saturating_sub(jobs.len() as u64);
    if others > 0 {
        jobs.push(format!("{others} of other tenants"));
    }
    vec![
        table::worker(&worker["host"], &worker["id"]),
        number("pid").to_string(),
        text("device"),
        text("state"),
        ago("started_at"),
        format!("{} ago", ago("last_seen_at")),
        format!("{}/{}", number("busy"), number("slots")),
        worker["free_mb"]
            .as_f64()
            .map(|mb| format!("{:.1} GiB free", mb / 1024.0))
            .unwrap_or_default(),
        jobs.join(", "),
        reason(worker),
    ]
}

/// Why it accepts no jobs.
fn reason(worker: &Value) -> String {
    match (worker["reason"].as_str(), worker["state"].as_str()) {
        (Some(reason), _) => reason.to_owned(),
        (None, Some("draining")) => "shutting down: running jobs save their state".to_owned(),
        (None, Some("lost")) => "no heartbeat: it crashed, or cannot reach the database".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_names_own_jobs_and_counts_others() {
        let worker = json!({
            "id": "worker_0193a5c0000070008000123456789abc", "host": "a", "device": "cpu", "state": "active",
            "started_at": 0, "last_seen_at": 297, "slots": 2, "busy": 2, "jobs": ["ftjob-1"], "pid": 7,
            "reason": "two jobs failed", "free_mb": 1536,
        });
        let expected = [
            "a/56789abc",
            "7",
            "cpu",
            "active",
            "5 min",
            "3 s ago",
            "2/2",
            "1.5 GiB free",
            "ftjob-1, 1 of other tenants",
            "two jobs failed",
        ];
        assert_eq!(row(&worker, 300), expected);
    }
}
