//! `rehead logs`: prints the events of a job, and behind each attempt the end of its trainer's log.

use std::{collections::BTreeSet, time::Duration};

use clap::Args;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    api::{self, Api},
    sse::Stream,
};
use crate::{config::ClientArgs, domain::job::JobStatus};

/// Events per request.
const PAGE: u32 = 100;
/// Pause before a stream that ended is opened again.
const PAUSE: Duration = Duration::from_millis(500);
/// Streams that may fail in a row: enough for a service to restart.
const MAX_FAILURES: u32 = 60;

/// `rehead logs`
#[derive(Debug, Args)]
pub struct LogsArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// Job id
    pub job: String,
    /// Wait for further events, until the job ends
    #[arg(long, short)]
    pub follow: bool,
}

/// Prints events and trainers' logs, oldest first; with `--json` each as one JSON object a line.
///
/// # Errors
/// There is no such job; the service is away for long.
pub async fn run(args: &LogsArgs) -> anyhow::Result<()> {
    let api = Api::new(&args.client);
    let path = api::job_path(&args.job);
    let mut log = Log {
        api: &api,
        path: &path,
        json: args.client.json,
        last: None,
        ended: false,
        attempts: BTreeSet::new(),
    };
    log.history().await?;
    if args.follow {
        log.follow().await?;
    }
    Ok(())
}

/// The state of printing one job.
struct Log<'a> {
    api: &'a Api,
    path: &'a str,
    json: bool,
    /// Id of the last event printed.
    last: Option<String>,
    /// The last event of the job is printed.
    ended: bool,
    /// Attempts whose log is printed.
    attempts: BTreeSet<i64>,
}

impl Log<'_> {
    /// Prints the events so far.
    async fn history(&mut self) -> anyhow::Result<()> {
        loop {
            let after = self.last.as_ref();
            let after = after.map_or_else(String::new, |id| format!("&after={id}"));
            let path = format!("{}/events?order=asc&limit={PAGE}{after}", self.path);
            let page = self.api.get(&path).await?;
            for event in page["data"].as_array().into_iter().flatten() {
                self.show(event).await?;
            }
            if page["has_more"] != true {
                return Ok(());
            }
        }
    }

    /// Prints events as they happen, until the job's last one.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let mut failures = 0;
        while !self.ended {
            let path = format!("{}/events", self.path);
            let streamed = match self.api.events(&path, self.last.as_deref()).await {
                Ok(mut stream) => self.copy(&mut stream, &mut failures).await,
                Err(error) => Err(error),
            };
            if let Err(error) = streamed {
                failures += 1;
                if failures > MAX_FAILURES {
                    return Err(error);
                }
            }
            if !self.ended {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    async fn copy(&mut self, stream: &mut Stream, failures: &mut u32) -> anyhow::Result<()> {
        while let Some(event) = stream.next().await? {
            *failures = 0;
            self.show(&event).await?;
        }
        Ok(())
    }

    /// Prints an event, and behind the end of an attempt the log of its trainer.
    async fn show(&mut self, event: &Value) -> anyhow::Result<()> {
        self.last = event["id"].as_str().map(str::to_owned);
        if self.json {
            api::print(&event.to_string())?;
        } else {
            api::print(&line(event))?;
        }
        let kind = event["kind"].as_str().unwrap_or_default();
        self.ended |= kind.parse().is_ok_and(JobStatus::is_terminal);
        if self.ended || matches!(kind, "requeued" | "paused") {
            // In a job's history, later attempts have ended as well.
            let last = event["attempt"].as_i64().unwrap_or(i64::MAX);
            self.trainers(last).await?;
        }
        Ok(())
    }

    /// Prints the logs of ended attempts up to `last` that were not printed yet.
    async fn trainers(&mut self, last: i64) -> anyhow::Result<()> {
        let job = self.api.get(self.path).await?;
        for attempt in job["attempts"].as_array().into_iter().flatten() {
            let number = attempt["number"].as_i64().unwrap_or(0);
            let lines: Vec<&str> = attempt["log"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let has_ended = !attempt["ended_at"].is_null() && number <= last;
            if !has_ended || lines.is_empty() || !self.attempts.insert(number) {
                continue;
            }
            if self.json {
                let object = "fine_tuning.job.attempt.log";
                api::print(
                    &json!({"object": object, "attempt": number, "log": lines}).to_string(),
                )?;
                continue;
            }
            for line in lines {
                api::print(&format!("  trainer {number}: {}", plain(line)))?;
            }
        }
        Ok(())
    }
}

/// An event in one line.
fn line(event: &Value) -> String {
    let seconds = event["created_at"].as_i64().unwrap_or(0);
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    let time = time.and_then(|time| time.format(&Rfc3339).ok());
    let level = event["level"].as_str().unwrap_or_default();
    let message = event["message"].as_str().unwrap_or_default();
    format!("{} {level:<5} {}", time.unwrap_or_default(), plain(message))
}

/// Text without control characters: those of a data set's names must not reach the terminal.
fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.replace(['\n', '\t'], " ").chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_without_control_characters() {
        let event = json!({"created_at": 0, "level": "warn", "message": "a\n\u{1b}[2Jb"});
        assert_eq!(line(&event), "1970-01-01T00:00:00Z warn  a \u{fffd}[2Jb");
    }
}
