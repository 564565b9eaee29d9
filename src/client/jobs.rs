//! `rehead jobs`: lists jobs that have not ended, with what each waits for.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::Value;
use time::OffsetDateTime;

use super::{
    api::{self, Api},
    table::{self, duration, render},
    wait_reason::wait_reason,
};
use crate::{config::ClientArgs, domain::job::JobStatus};

/// The order of requests follows a job's life, so that a job that changes status in between is read
/// twice rather than missed, unless it is queued again at that moment.
const REQUESTED: [JobStatus; 5] = [
    JobStatus::ValidatingFiles,
    JobStatus::Queued,
    JobStatus::Running,
    JobStatus::Pausing,
    JobStatus::Paused,
];

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
    let mut seen = Vec::new();
    for status in REQUESTED {
        seen.extend(list(&api, status).await?);
    }
    let jobs = latest(seen);
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

async fn list(api: &Api, status: JobStatus) -> anyhow::Result<Vec<Value>> {
    let mut jobs = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/v1/fine_tuning/jobs?status={status}&order=asc&limit=100{after}");
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

/// Each job once, in its latest version; oldest first within each status.
fn latest(seen: Vec<Value>) -> Vec<Value> {
    // Ids sort by creation time.
    let mut by_id = BTreeMap::new();
    for job in seen {
        let id = job["id"].as_str().unwrap_or_default().to_owned();
        by_id.insert(id, job);
    }
    let mut jobs: Vec<Value> = by_id.into_values().collect();
    jobs.sort_by_key(|job| {
        SHOWN
            .iter()
            .position(|status| job["status"] == status.as_str())
    });
    jobs
}

fn row(job: &Value, workers: Option<&[Value]>, now: i64) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let attempts = job["attempts"].as_array().map_or(&[][..], Vec::as_slice);
    let last = attempts.last();
    let running = last.filter(|attempt| attempt["ended_at"].is_null());
    vec![
        text(&job["id"]),
        text(&job["status"]),
        text(&job["model"]),
        duration(now - job["created_at"].as_i64().unwrap_or(now)),
        progress(job),
        match attempts.len() {
            0 => String::new(),
            count => count.to_string(),
        },
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
    let progress = &job["progress"];
    let phase = job["phase"].as_str().unwrap_or_default().replace('_', " ");
    let share = progress["fraction"].as_f64().unwrap_or(0.0) * 100.0;
    match (
        job["status"].as_str(),
        progress["step"].as_u64(),
        progress["n_steps"].as_u64(),
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
    fn a_job_that_changed_status_is_shown_once() {
        let job = |id: &str, status: &str| json!({"id": id, "status": status});
        let seen = vec![
            job("ftjob-1", "queued"),
            job("ftjob-2", "queued"),
            job("ftjob-3", "queued"),
            job("ftjob-0", "running"),
            job("ftjob-2", "running"),
            job("ftjob-3", "paused"),
        ];
        let expected = [
            job("ftjob-0", "running"),
            job("ftjob-2", "running"),
            job("ftjob-1", "queued"),
            job("ftjob-3", "paused"),
        ];
        assert_eq!(latest(seen), expected);
    }

    #[test]
    fn a_row_shows_why_a_job_waits() {
        let mut job = json!({
            "id": "ftjob-1", "status": "queued", "model": "lite0", "created_at": 0, "phase": "waiting",
            "progress": {"fraction": 0.0, "step": 4, "n_steps": 8},
            "attempts": [{
                "host": "a", "worker": "worker_0193a5c0000070008000123456789abc", "started_at": 2, "ended_at": 5,
                "outcome": "crashed", "message": "SIGKILL",
            }],
            "cancel_requested_at": null, "stop_requested_at": null,
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
        job["progress"]["fraction"] = json!(0.43);
        job["attempts"][0]["ended_at"] = Value::Null;
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
