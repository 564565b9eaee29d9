//! Why a job does not run, in words.

use serde_json::Value;

use super::table::duration;

/// Characters shown of an attempt's message.
const MESSAGE: usize = 60;

/// Why a job, in short, does not run or will stop soon. `workers` are those that the service lists,
/// to admins only.
pub(super) fn wait_reason(job: &Value, workers: Option<&[Value]>, now: i64) -> String {
    if !job["cancel_requested_at"].is_null() {
        return "being cancelled".to_owned();
    }
    let queue = &job["queue"];
    let Some(reason) = queue["reason"].as_str() else {
        let is_stopping = !job["stop_requested_at"].is_null();
        let reason = match job["status"].as_str() {
            Some("validating_files") if workers.is_none_or(can_validate) => "validating files",
            Some("validating_files") => "files wait for a worker",
            Some("pausing") => "saving state",
            Some("paused") => "paused until resumed",
            _ if is_stopping => "being stopped",
            _ => "",
        };
        return reason.to_owned();
    };
    let mut text = match reason {
        "tenant_paused" => "the tenant is paused".to_owned(),
        "backoff" => {
            let left = queue["until"].as_i64().unwrap_or(now) - now;
            let ended = last_end(job);
            format!("{ended}retry in {}", duration(left))
        }
        "no_worker" => workers.map_or("no worker accepts jobs".to_owned(), no_worker),
        "tenant_at_cap" => "the tenant runs as many jobs as it may".to_owned(),
        "slots_busy" => "all workers are busy".to_owned(),
        "memory" => "no free worker has enough memory".to_owned(),
        "too_large" => "needs more memory than any worker has".to_owned(),
        "reserved" => "memory is reserved for a larger job that has waited longer".to_owned(),
        "starting" => "about to start".to_owned(),
        other => other.replace('_', " "),
    };
    if let Some(ahead) = queue["ahead"].as_u64().filter(|&ahead| ahead > 0) {
        text.push_str(&format!(", {ahead} ahead"));
    }
    if let Some(start) = queue["estimated_start"]["p50"].as_i64() {
        text.push_str(&format!(", starts in about {}", duration(start - now)));
    }
    text
}

/// Number of workers in a state.
fn count(workers: &[Value], state: &str) -> usize {
    let in_state = |worker: &&Value| worker["state"] == state;
    workers.iter().filter(in_state).count()
}

/// True when some worker validates files, which workers that get no jobs do as well.
fn can_validate(workers: &[Value]) -> bool {
    ["active", "unfit", "quarantined"]
        .iter()
        .any(|state| count(workers, state) > 0)
}

/// Which workers there are, when none takes the job.
fn no_worker(workers: &[Value]) -> String {
    if count(workers, "active") > 0 {
        return "the workers run an older version, or have just started".to_owned();
    }
    let others: Vec<String> = ["unfit", "quarantined", "draining"]
        .iter()
        .map(|state| (count(workers, state), state))
        .filter(|&(n, _)| n > 0)
        .map(|(n, state)| format!("{n} {state}"))
        .collect();
    if others.is_empty() {
        "there are no workers".to_owned()
    } else {
        format!("no worker accepts jobs ({})", others.join(", "))
    }
}

/// How the last attempt ended, followed by `; `.
fn last_end(job: &Value) -> String {
    let said = |name: &str| job["last_attempt"][name].as_str();
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
    fn a_job_without_a_worker_shows_which_workers_there_are() {
        let validating = json!({"status": "validating_files"});
        let queued = json!({"status": "queued", "queue": {"reason": "no_worker"}});
        let (waits, validating_now) = ("files wait for a worker", "validating files");
        let cases = [
            ("", waits, "there are no workers"),
            ("stopped lost", waits, "there are no workers"),
            (
                "draining lost",
                waits,
                "no worker accepts jobs (1 draining)",
            ),
            (
                "quarantined draining unfit quarantined",
                validating_now,
                "no worker accepts jobs (1 unfit, 2 quarantined, 1 draining)",
            ),
            (
                "active unfit",
                validating_now,
                "the workers run an older version, or have just started",
            ),
        ];
        for (states, of_files, of_workers) in cases {
            let workers = states.split_whitespace();
            let workers: Vec<Value> = workers.map(|state| json!({"state": state})).collect();
            let workers = Some(workers.as_slice());
            assert_eq!(wait_reason(&validating, workers, 0), of_files, "{states}");
            assert_eq!(wait_reason(&queued, workers, 0), of_workers, "{states}");
        }
        assert_eq!(wait_reason(&validating, None, 0), validating_now);
        assert_eq!(wait_reason(&queued, None, 0), "no worker accepts jobs");
    }
}
