//! `rehead jobs`: lists jobs that have not ended, with what each waits for.

use clap::Args;
use serde_json::Value;
use time::OffsetDateTime;

use super::{
    api::{self, Api},
    table::{self, duration, render},
    wait_reason::wait_reason,
};
use crate::{config::ClientArgs, domain::job::JobStatus};

/// The order of rows.
const SHOWN: [JobStatus; 5] = [
    JobStatus::Running,
    JobStatus::Pausing,
    JobStatus::Queued,
    JobStatus::ValidatingFiles,
    JobStatus::Paused,
];

/// `rehead jobs`
#[derive(Debug, Args)]
pub struct JobsArgs {
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Prints the jobs that have not ended, oldest first within each status.
///
/// # Errors
/// The service refuses.
pub async fn run(args: &JobsArgs) -> anyhow::Result<()> {
    let api = Api::new(&args.client);
    let jobs = by_status(list(&api).await?);
    if args.client.json {
        return api::print_json(&jobs);
    }
    if jobs.is_empty() {
        return api::print("no jobs are running or waiting");
    }
    // Only admins see workers; without them, the reasons have fewer details.
    let answer = api.get_if_allowed("/v1/workers").await?;
    let workers = answer.map(|answer| answer["data"].as_array().cloned().unwrap_or_default());
    let now = OffsetDateTime::now_utc().unix_timestamp();
    api::print(&render(
        &[
            "ID", "STATUS", "MODEL", "AGE", "PROGRESS", "ATTEMPT", "WORKER", "RUNNING", "REASON",
        ],
        jobs.iter().map(|job| row(job, workers.as_deref(), now)),
    ))
}

/// All jobs that have not ended, oldest first, from as few requests as the service allows.
async fn list(api: &Api) -> anyhow::Result<Vec<Value>> {
    let limits = api.get("/v1/meta/limits").await?;
    let limit = limits["long_page"].as_u64().unwrap_or(20);
    let mut jobs = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!(
            "/v1/fine_tuning/job_summaries?is_terminal=false&order=asc&limit={limit}{after}"
        );
        let mut page = api.get(&path).await?;
        let Value::Array(data) = page["data"].take() else {
            anyhow::bail!("the response has no `data`; use a client of the service's version");
        };
        jobs.extend(data);
        match page["last_id"].as_str() {
            Some(last) if page["has_more"] == true => after = format!("&after={last}"),
            _ => return Ok(jobs),
        }
    }
}

/// Jobs by status, each status in the order that they came in.
fn by_status(mut jobs: Vec<Value>) -> Vec<Value> {
    jobs.sort_by_key(|job| {
        SHOWN
            .iter()
            .position(|status| job["status"] == status.as_str())
    });
    jobs
}

fn row(job: &Value, workers: Option<&[Value]>, now: i64) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let last = &job["last_attempt"];
    let running = (last.is_object() && last["ended_at"].is_null()).then_some(last);
    vec![
        text(&job["id"]),
        text(&job["status"]),
        text(&job["model"]),
        duration(now - job["created_at"].as_i64().unwrap_or(now)),
        progress(job),
        last["number"]
            .as_u64()
            .map(|number| number.to_string())
            .unwrap_or_default(),
        running
            .map(|attempt| table::worker(&attempt["host"], &attempt["worker"]))
            .unwrap_or_default(),
        running
            .and_then(|attempt| attempt["started_at"].as_i64())
            .map(|since| duration(now - since))
            .unwrap_or_default(),
        wait_reason(job, workers, now),
    ]
}

fn progress(job: &Value) -> String {
    let phase = job["phase"].as_str().unwrap_or_default().replace('_', " ");
    let share = job["fraction"].as_f64().unwrap_or(0.0) * 100.0;
    match (
        job["status"].as_str(),
        job["step"].as_u64(),
        job["n_steps"].as_u64(),
    ) {
        (Some("running" | "pausing"), Some(step), Some(steps)) if phase == "training" => {
            format!("training {step}/{steps}")
        }
        (Some("running" | "pausing"), ..) => format!("{phase} {share:.0} %"),
        (_, Some(step), Some(steps)) if step > 0 => format!("step {step}/{steps}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn jobs_are_shown_by_status_oldest_first() {
        let job = |id: &str, status: &str| json!({"id": id, "status": status});
        let seen = vec![
            job("ftjob-1", "queued"),
            job("ftjob-2", "running"),
            job("ftjob-3", "paused"),
            job("ftjob-4", "queued"),
            job("ftjob-5", "running"),
        ];
        let expected = [
            job("ftjob-2", "running"),
            job("ftjob-5", "running"),
            job("ftjob-1", "queued"),
            job("ftjob-4", "queued"),
            job("ftjob-3", "paused"),
        ];
        assert_eq!(by_status(seen), expected);
    }

    #[test]
    fn a_row_shows_why_a_job_waits() {
        let mut job = json!({
            "id": "ftjob-1", "status": "queued", "model": "lite0", "created_at": 0, "phase": "waiting",
            "fraction": 0.0, "step": 4, "n_steps": 8,
            "last_attempt": {
                "number": 1, "host": "a", "worker": "worker_0193a5c0000070008000123456789abc", "started_at": 2,
                "ended_at": 5, "outcome": "crashed", "message": "SIGKILL",
            },
            "queue": {"ahead": 2, "reason": "slots_busy", "until": null, "estimated_start": {"p50": 400, "p90": 900}},
        });
        let expected = [
            "ftjob-1",
            "queued",
            "lite0",
            "100 s",
            "step 4/8",
            "1",
            "",
            "",
            "all workers are busy, 2 ahead, starts in about 5 min",
        ];
        assert_eq!(row(&job, Some(&[]), 100), expected);
        job["queue"] =
            json!({"ahead": 0, "reason": "backoff", "until": 107, "estimated_start": null});
        assert_eq!(
            wait_reason(&job, Some(&[]), 100),
            "crashed: SIGKILL; retry in 7 s"
        );
        job["status"] = json!("running");
        job["phase"] = json!("caching_features");
        job["fraction"] = json!(0.43);
        job["last_attempt"]["ended_at"] = Value::Null;
        job["queue"] = Value::Null;
        let shown = ["caching features 43 %", "1", "a/56789abc", "98 s", ""];
        assert_eq!(row(&job, Some(&[]), 100)[4..], shown);
        job["phase"] = json!("training");
        assert_eq!(row(&job, Some(&[]), 100)[4], "training 4/8");
        job["status"] = json!("paused");
        assert_eq!(
            row(&job, Some(&[]), 100)[4..],
            [
                "step 4/8",
                "1",
                "a/56789abc",
                "98 s",
                "paused until resumed"
            ]
        );
    }
}
