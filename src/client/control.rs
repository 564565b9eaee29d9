//! `rehead cancel`, `pause`, `resume`, `stop`: sends a control request for a job.

use clap::Args;
use serde_json::{Value, json};

use super::api::{self, Api};
use crate::{config::ClientArgs, domain::job::Control};

/// `rehead cancel`, `pause`, `resume`, `stop`
#[derive(Debug, Args)]
pub struct ControlArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// Job id
    pub job: String,
}

/// Prints the job's id and its status once the request is stored.
///
/// # Errors
/// There is no such job, or its status forbids the request.
pub async fn run(args: &ControlArgs, control: Control) -> anyhow::Result<()> {
    let path = format!("{}/{control}", api::job_path(&args.job));
    let job = Api::new(&args.client).post(&path, &json!({})).await?;
    if args.client.json {
        return api::print_json(&job);
    }
    api::print(&line(&args.job, &job))
}

/// The status of a running job changes once its worker has read the request.
fn line(id: &str, job: &Value) -> String {
    let status = job["status"].as_str().unwrap_or("?");
    let is_pending = |when: &str| job["is_terminal"] != true && !job[when].is_null();
    let pending = if is_pending("cancel_requested_at") {
        ", being cancelled"
    } else if is_pending("stop_requested_at") {
        ", being stopped"
    } else {
        ""
    };
    format!("{id} {status}{pending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_a_pending_request() {
        let mut job = json!({
            "status": "running", "is_terminal": false, "cancel_requested_at": null, "stop_requested_at": null,
        });
        assert_eq!(line("ftjob-1", &job), "ftjob-1 running");
        job["stop_requested_at"] = json!(1);
        assert_eq!(line("ftjob-1", &job), "ftjob-1 running, being stopped");
        job["cancel_requested_at"] = json!(2);
        assert_eq!(line("ftjob-1", &job), "ftjob-1 running, being cancelled");
        job["status"] = json!("cancelled");
        job["is_terminal"] = json!(true);
        assert_eq!(line("ftjob-1", &job), "ftjob-1 cancelled");
    }
}
