//! What holds a job up, in words.

use serde_json::Value;

use super::table::span;

/// Characters of an attempt's message.
const MESSAGE: usize = 60;

/// Why a job does not run, or not for long. `workers` are those that the service knows.
pub(super) fn why(job: &Value, workers: &[Value], now: i64) -> String {
    if !job["cancel_requested_at"].is_null() {
        return "being cancelled".to_owned();
    }
    let queue = &job["queue"];
    let Some(reason) = queue["reason"].as_str() else {
        let is_stopping = !job["stop_requested_at"].is_null();
        let why = match job["status"].as_str() {
            Some("validating_files") if can_validate(workers) => "its files are being validated",
            Some("validating_files") => "its files wait for a worker",
            Some("pausing") => "its state is being saved",
            Some("paused") => "until it is resumed",
            _ if is_stopping => "being stopped",
            _ => "",
        };
        return why.to_owned();
    };
    let mut why = match reason {
        "tenant_paused" => "its tenant's jobs are held back".to_owned(),
        "backoff" => {
            let left = queue["until"].as_i64().unwrap_or(now) - now;
            let ended = last_end(job);
            format!("{ended}tried again in {}", span(left))
        }
        "no_worker" => no_worker(workers),
        "tenant_at_cap" => "as many of its tenant's jobs run as may".to_owned(),
        "slots_busy" => "every worker is busy".to_owned(),
        "memory" => "no free worker has the memory that it needs".to_owned(),
        "too_large" => {
            "no worker has the memory that it needs, even if it ran nothing else".to_owned()
        }
        "reserved" => {
            "room is kept for a job that needs more memory and has waited longer".to_owned()
        }
        "starting" => "about to start".to_owned(),
        other => other.replace('_', " "),
    };
    if let Some(ahead) = queue["ahead"].as_u64().filter(|&ahead| ahead > 0) {
        why.push_str(&format!(", {ahead} ahead"));
    }
    if let Some(start) = queue["estimated_start"]["p50"].as_i64() {
        why.push_str(&format!(", in about {}", span(start - now)));
    }
    why
}

/// Workers in a state.
fn count(workers: &[Value], state: &str) -> usize {
    let in_state = |worker: &&Value| worker["state"] == state;
    workers.iter().filter(in_state).count()
}

/// Whether anybody validates files: also those do that are given no jobs.
fn can_validate(workers: &[Value]) -> bool {
    ["active", "unfit", "quarantined"]
        .iter()
        .any(|state| count(workers, state) > 0)
}

/// Who is there, where nobody takes a job.
fn no_worker(workers: &[Value]) -> String {
    if count(workers, "active") > 0 {
        return "the workers are too old for it, or came just now".to_owned();
    }
    let there: Vec<String> = ["unfit", "quarantined", "draining"]
        .iter()
        .map(|state| (count(workers, state), state))
        .filter(|&(n, _)| n > 0)
        .map(|(n, state)| format!("{n} {state}"))
        .collect();
    if there.is_empty() {
        "no worker is there".to_owned()
    } else {
        format!("no worker takes jobs ({})", there.join(", "))
    }
}

/// How the last attempt ended, with `; ` behind it.
fn last_end(job: &Value) -> String {
    let last = job["attempts"].as_array().and_then(|all| all.last());
    let said = |name: &str| last.and_then(|attempt| attempt[name].as_str());
    match (said("outcome"), said("message")) {
        (Some(outcome), Some(message)) => {
            let short: String = message.chars().take(MESSAGE).collect();
            let dots = if short.len() < message.len() {
                "…"
            } else {
                ""
            };
            format!("{outcome}: {short}{dots}; ")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn without_a_worker_for_it_a_job_says_who_is_there() {
        let validating = json!({"status": "validating_files"});
        let queued = json!({"status": "queued", "queue": {"reason": "no_worker"}});
        let (waits, is_validated) = (
            "its files wait for a worker",
            "its files are being validated",
        );
        let cases = [
            ("", waits, "no worker is there"),
            ("stopped lost", waits, "no worker is there"),
            ("draining lost", waits, "no worker takes jobs (1 draining)"),
            (
                "quarantined draining unfit quarantined",
                is_validated,
                "no worker takes jobs (1 unfit, 2 quarantined, 1 draining)",
            ),
            (
                "active unfit",
                is_validated,
                "the workers are too old for it, or came just now",
            ),
        ];
        for (states, of_files, of_workers) in cases {
            let workers = states.split_whitespace();
            let workers: Vec<Value> = workers.map(|state| json!({"state": state})).collect();
            assert_eq!(why(&validating, &workers, 0), of_files, "{states}");
            assert_eq!(why(&queued, &workers, 0), of_workers, "{states}");
        }
    }
}
