//! Decides if a device should be given jobs: jobs must not fail on it one after the other. A broken
//! worker is always free, so it would drain the queue by failing fast.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    config::AdmissionArgs,
    domain::{id::JobId, job::Outcome},
};

/// The record of a device's last attempts.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Record>);

#[derive(Debug, Default)]
struct Record {
    /// Jobs whose attempts failed fast here, with no other attempt in between.
    streak: HashSet<JobId>,
    /// The end of the quarantine, and its reason.
    quarantine: Option<(Instant, String)>,
}

impl Health {
    /// Records the outcome of an attempt. If this failure starts a quarantine, it is blamed on this
    /// worker: the answer says why, and the job is to be released at no cost.
    pub(super) fn judge(
        &self,
        args: &AdmissionArgs,
        job: JobId,
        outcome: &Outcome,
        lasted: Duration,
    ) -> Option<String> {
        let mut record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let how = match outcome {
            Outcome::Crashed { message } => Some(message),
            // One sample alone was too large: the job's fault, not the device's.
            Outcome::Failed(failure) if failure.code == "out_of_memory" => None,
            Outcome::Failed(failure) => failure.retryable.then_some(&failure.message),
            _ => None,
        };
        let Some(how) = how.filter(|_| lasted < args.fast_failure) else {
            if !matches!(outcome, Outcome::Yielded) {
                record.streak.clear();
            }
            return None;
        };
        record.streak.insert(job);
        if record.streak.len() < args.quarantine_after as usize {
            return None;
        }
        record.streak.clear();
        let reason = format!(
            "{} different jobs in a row failed within {} s each, the last one: {how}; check the worker's \
             disk, memory and device; it claims jobs again after {} s or a restart",
            args.quarantine_after,
            args.fast_failure.as_secs_f64(),
            args.quarantine.as_secs_f64()
        );
        record.quarantine = Some((Instant::now() + args.quarantine, reason));
        Some(format!(
            "the worker is quarantined, and the job released: {how}"
        ))
    }

    /// The reason of the quarantine, while there is one.
    pub(super) fn quarantine(&self) -> Option<String> {
        let record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, reason) = record.quarantine.as_ref()?;
        (*until > Instant::now()).then(|| reason.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::Failure;

    fn args() -> AdmissionArgs {
        AdmissionArgs {
            slots: 1,
            memory_margin_mb: 0,
            reserve: Duration::ZERO,
            quarantine_after: 3,
            quarantine: Duration::from_secs(60),
            fast_failure: Duration::from_secs(1),
        }
    }

    fn crashed() -> Outcome {
        Outcome::Crashed {
            message: "tripped over a cable".to_owned(),
        }
    }

    #[test]
    fn three_jobs_that_fail_fast_start_a_quarantine() {
        let (health, args) = (Health::default(), args());
        let fast = Duration::from_millis(10);
        let poison = JobId::new();
        // One bad job proves nothing about the worker, however often it fails.
        for _ in 0..9 {
            assert_eq!(health.judge(&args, poison, &crashed(), fast), None);
        }
        assert_eq!(health.judge(&args, JobId::new(), &crashed(), fast), None);
        assert_eq!(health.quarantine(), None);
        let third = health.judge(&args, JobId::new(), &crashed(), fast);
        let (job, worker) = (third.unwrap(), health.quarantine().unwrap());
        assert!(job.ends_with("tripped over a cable"), "{job}");
        assert!(
            worker.contains("the last one: tripped over a cable;"),
            "{worker}"
        );
    }

    #[test]
    fn failures_of_the_job_itself_break_the_streak() {
        let (health, args) = (Health::default(), args());
        let fast = Duration::from_millis(10);
        for _ in 0..9 {
            health.judge(&args, JobId::new(), &crashed(), fast);
            health.judge(&args, JobId::new(), &crashed(), fast);
            health.judge(&args, JobId::new(), &Outcome::Yielded, fast);
            let slow = Duration::from_secs(2);
            health.judge(&args, JobId::new(), &crashed(), slow);
        }
        for (code, retryable) in [("diverged", false), ("out_of_memory", true)].repeat(5) {
            let jobs = Outcome::Failed(Failure {
                retryable,
                ..Failure::permanent(code, "x")
            });
            health.judge(&args, JobId::new(), &crashed(), fast);
            health.judge(&args, JobId::new(), &jobs, fast);
        }
        assert_eq!(health.quarantine(), None);
    }
}
