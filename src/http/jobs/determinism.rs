//! Determinism of a job: how exactly a second run of it would repeat its result.

use std::collections::BTreeSet;

use serde::Serialize;
use utoipa::ToSchema;

use crate::db::{attempts::Attempt, jobs::Job};

/// How exactly a second run repeats the result.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Determinism {
    /// `null` before the first attempt.
    pub guarantee: Option<Guarantee>,
    /// Why it is so.
    pub reason: Option<String>,
    pub seed: u64,
    /// Device of the last attempt.
    pub device: Option<String>,
    /// Threads of the last attempt.
    pub threads: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Guarantee {
    /// The same weights and metrics, bit for bit, even across interruptions.
    Exact,
    /// The same up to rounding.
    BestEffort,
}

impl Determinism {
    /// The guarantee for a job with these attempts.
    pub(crate) fn of(job: &Job, attempts: &[Attempt]) -> Self {
        let guarantee = job.device.as_deref().map(|device| {
            let reason = job
                .nondeterminism_reason
                .clone()
                .or_else(|| nondeterminism(device, job.threads, attempts));
            match reason {
                Some(why) => (Guarantee::BestEffort, why),
                None => (Guarantee::Exact, exact(job.threads)),
            }
        });
        let (guarantee, reason) = guarantee.unzip();
        Self {
            guarantee,
            reason,
            seed: job.seed,
            device: job.device.clone(),
            threads: job.threads,
        }
    }
}

fn exact(threads: Option<u32>) -> String {
    let threads = match threads {
        None => String::new(),
        Some(1) => " with 1 thread".to_owned(),
        Some(n) => format!(" with {n} threads"),
    };
    format!(
        "all random numbers derive from the seed, and sums on a CPU{threads} have a fixed order"
    )
}

/// Why the attempts did not add numbers in one fixed order, if so.
fn nondeterminism(device: &str, threads: Option<u32>, attempts: &[Attempt]) -> Option<String> {
    if device != "cpu" {
        return Some(format!("sums on `{device}` have no fixed order"));
    }
    let worked = attempts
        .iter()
        .filter(|attempt| attempt.reached_step.is_some());
    let (mut devices, mut counts) = (BTreeSet::from([device]), BTreeSet::new());
    counts.extend(threads);
    for attempt in worked {
        devices.extend(attempt.device.as_deref());
        counts.extend(attempt.threads);
    }
    if devices.len() > 1 {
        let devices: Vec<_> = devices.into_iter().collect();
        return Some(format!("attempts ran on {}", devices.join(" and ")));
    }
    (counts.len() > 1).then(|| {
        let counts: Vec<_> = counts.iter().map(u32::to_string).collect();
        let counts = counts.join(" and ");
        format!("attempts ran with {counts} threads, and the order of sums depends on their number")
    })
}
