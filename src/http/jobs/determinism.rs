//! Whether a second run of a job gives the same bits, and why.

use std::collections::BTreeSet;

use serde::Serialize;
use utoipa::ToSchema;

use crate::db::{attempts::Attempt, jobs::Job};

/// What makes a second run give the same bits.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Determinism {
    /// What a second run of this request gives; unknown before the first attempt.
    pub guarantee: Option<Guarantee>,
    /// Why.
    pub reason: Option<String>,
    pub seed: u64,
    /// Of the last attempt.
    pub device: Option<String>,
    /// Of the last attempt.
    pub threads: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Guarantee {
    /// The same weights and metrics, bit for bit, stopped and resumed or not.
    Exact,
    /// The same up to rounding.
    BestEffort,
}

impl Determinism {
    /// Of a job with all its attempts.
    pub(crate) fn of(job: &Job, attempts: &[Attempt]) -> Self {
        let said = job.device.as_deref().map(|device| {
            let loose = job
                .nondeterminism_reason
                .clone()
                .or_else(|| loose(device, job.threads, attempts));
            match loose {
                Some(why) => (Guarantee::BestEffort, why),
                None => (Guarantee::Exact, exact(job.threads)),
            }
        });
        let (guarantee, reason) = said.unzip();
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
    format!("every random choice follows from the seed, and sums on a CPU{threads} have one order")
}

/// Why the attempts that did steps do not add in one order, if so.
fn loose(device: &str, threads: Option<u32>, attempts: &[Attempt]) -> Option<String> {
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
        format!(
            "attempts ran with {counts} threads, and sums are in another order with another number"
        )
    })
}
