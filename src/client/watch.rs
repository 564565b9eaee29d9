//! `rehead watch`: shows a job's progress until it ends, as a bar on a terminal and as lines
//! elsewhere.

use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::api::{self, Api};
use crate::config::ClientArgs;

/// Interval between requests.
const POLL: Duration = Duration::from_millis(300);
/// Resolution of the bar.
const BAR_STEPS: u64 = 1_000;
/// Requests that may fail in a row: enough for a service to restart.
const MAX_FAILURES: u32 = 100;

/// `rehead watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// Job id
    pub job: String,
}

/// Watches a job and prints the id of its model, or the job as JSON.
///
/// # Errors
/// The job failed or was cancelled; there is no such job.
pub async fn run(args: &WatchArgs) -> anyhow::Result<()> {
    until_terminal(&Api::new(&args.client), &args.job, args.client.json).await
}

pub(super) async fn until_terminal(api: &Api, id: &str, json: bool) -> anyhow::Result<()> {
    let path = api::job_path(id);
    let mut job = api.get(&path).await?;
    let bar = bar();
    let mut failures = 0;
    let mut last_line = String::new();
    while job["is_terminal"] != true {
        let line = describe(&job);
        let fraction = job["progress"]["fraction"].as_f64().unwrap_or(0.0);
        bar.set_position((fraction * BAR_STEPS as f64) as u64);
        bar.set_message(line.clone());
        if bar.is_hidden() && line != last_line {
            api::report(&line);
        }
        last_line = line;
        tokio::time::sleep(POLL).await;
        match api.get(&path).await {
            Ok(now) => {
                job = now;
                failures = 0;
            }
            Err(_) if failures < MAX_FAILURES => failures += 1,
            Err(error) => return Err(error),
        }
    }
    bar.finish_and_clear();
    if json {
        api::print_json(&job)?;
    }
    let model = conclude(id, &job)?;
    if json { Ok(()) } else { api::print(&model) }
}

/// The bar; hidden where standard error is no terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new(BAR_STEPS);
    let style =
        ProgressStyle::with_template("{elapsed_precise} [{bar:40.cyan/blue}] {percent:>3}%  {msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// One line about what a job is doing.
fn describe(job: &Value) -> String {
    let status = job["status"].as_str().unwrap_or("?");
    if status != "running" {
        return status.replace('_', " ");
    }
    let progress = &job["progress"];
    let mut parts = vec![
        job["phase"]
            .as_str()
            .unwrap_or("starting")
            .replace('_', " "),
    ];
    if let (Some(epoch), Some(epochs)) = (progress["epoch"].as_u64(), progress["n_epochs"].as_u64())
        && epoch > 0
    {
        parts.push(format!("epoch {epoch}/{epochs}"));
    }
    let of_tasks = [
        ("valid_accuracy", "accuracy"),
        ("valid_mean_average_precision", "mean average precision"),
        ("valid_rmse", "RMSE"),
    ];
    let measured = of_tasks
        .iter()
        .find_map(|(metric, name)| Some((name, job["metrics"][metric].as_f64()?)));
    if let Some((name, value)) = measured {
        parts.push(format!("best {name} {value:.3}"));
    }
    parts.join(", ")
}

/// The model of a job that succeeded; any other end is an error.
fn conclude(id: &str, job: &Value) -> anyhow::Result<String> {
    match job["status"].as_str() {
        Some("succeeded") => {
            api::report(&format!("{id} succeeded"));
            let model = job["fine_tuned_model"].as_str();
            Ok(model.unwrap_or_default().to_owned())
        }
        Some("failed") => {
            let error = &job["error"];
            let message = error["message"].as_str().unwrap_or("no message");
            let code = error["code"].as_str().unwrap_or("no code");
            anyhow::bail!("{id} failed: {message} ({code})")
        }
        other => anyhow::bail!("{id} was {}", other.unwrap_or("deleted")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_shows_phase_epoch_and_best_metric() {
        let queued = json!({"status": "validating_files"});
        assert_eq!(describe(&queued), "validating files");
        let job = json!({
            "status": "running", "phase": "training", "progress": {"epoch": 3, "n_epochs": 50},
            "metrics": {"valid_accuracy": 0.71234},
        });
        assert_eq!(describe(&job), "training, epoch 3/50, best accuracy 0.712");
        let early = json!({"status": "running", "phase": "caching_features", "progress": {"epoch": 0, "n_epochs": 50}, "metrics": null});
        assert_eq!(describe(&early), "caching features");
    }

    #[test]
    fn only_a_job_with_a_model_is_a_success() {
        let failed = json!({"status": "failed", "error": {"code": "diverged", "message": "the loss is not finite"}});
        let error = conclude("ftjob-1", &failed).unwrap_err().to_string();
        assert_eq!(error, "ftjob-1 failed: the loss is not finite (diverged)");
        assert!(conclude("ftjob-1", &json!({"status": "cancelled"})).is_err());
    }
}
