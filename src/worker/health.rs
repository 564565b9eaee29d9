//! Whether this worker should be given jobs: its device has to compute, and jobs must not fail on it one after the other.
//! A broken worker is always free, so it would drain the queue by failing fast.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Worker;
use crate::{
    config::AdmissionArgs,
    db::{self, workers::State},
    domain::{id::JobId, job::Outcome},
};

/// What this worker's last attempts and self-tests say of it.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Record>);

#[derive(Debug, Default)]
struct Record {
    /// Jobs whose attempts failed fast here, with no other attempt in between.
    streak: HashSet<JobId>,
    /// Until when, and why.
    quarantine: Option<(Instant, String)>,
    /// What `workers` was told last.
    told: Option<(State, Option<String>)>,
}

impl Health {
    /// Hears how an attempt ended that lasted so long. The failure that is one too many is this worker's, not the job's: its
    /// job is to be handed back at no cost, and this says why.
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
            // One sample was too much: that is the job.
            Outcome::Failed { code, .. } if code == "out_of_memory" => None,
            Outcome::Failed {
                message, retryable, ..
            } => retryable.then_some(message),
            _ => None,
        };
        let Some(how) = how.filter(|_| lasted < args.fast_failure()) else {
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
            "{} different jobs failed here one after the other, each within {} s, the last: {how}; \
             it claims again after {} s, or a restart",
            args.quarantine_after,
            args.fast_failure().as_secs_f64(),
            args.quarantine().as_secs_f64()
        );
        record.quarantine = Some((Instant::now() + args.quarantine(), reason));
        Some(format!(
            "the worker takes the blame and no more jobs: {how}"
        ))
    }

    /// Why this worker claims nothing for now, if it does.
    pub(super) fn quarantine(&self) -> Option<String> {
        let record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, reason) = record.quarantine.as_ref()?;
        (*until > Instant::now()).then(|| reason.clone())
    }

    /// Whether this is news; it is not told twice.
    fn is_news(&self, state: State, reason: Option<&str>) -> bool {
        let mut record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Some((state, reason.map(str::to_owned)));
        std::mem::replace(&mut record.told, now.clone()) != now
    }

    /// What was told did not arrive: it is news again.
    fn forget(&self) {
        let mut record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        record.told = None;
    }
}

impl Worker {
    /// Says in `workers` how this one is.
    pub(super) async fn tell(&self, state: State, reason: Option<&str>) {
        if !self.health.is_news(state, reason) {
            return;
        }
        match reason {
            Some(reason) => tracing::error!(
                "this worker is {} and claims no jobs: {reason}",
                state.as_str()
            ),
            None => tracing::info!("this worker is {}", state.as_str()),
        }
        if let Err(error) = db::workers::tell(&self.pool, self.id, state, reason).await {
            tracing::warn!("cannot say how this worker is: {error}");
            self.health.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> AdmissionArgs {
        AdmissionArgs {
            slots: 1,
            memory_margin_mb: 0,
            reserve_ms: 0,
            quarantine_after: 3,
            quarantine_ms: 60_000,
            fast_failure_ms: 1_000,
        }
    }

    fn crashed() -> Outcome {
        Outcome::Crashed {
            message: "tripped over a cable".to_owned(),
        }
    }

    #[test]
    fn three_different_jobs_that_fail_fast_quarantine_a_worker() {
        let (health, args) = (Health::default(), args());
        let fast = Duration::from_millis(10);
        let poison = JobId::new();
        // One bad job, however often, says nothing of the worker.
        for _ in 0..9 {
            assert_eq!(health.judge(&args, poison, &crashed(), fast), None);
        }
        assert_eq!(health.judge(&args, JobId::new(), &crashed(), fast), None);
        assert_eq!(health.quarantine(), None);
        let third = health.judge(&args, JobId::new(), &crashed(), fast);
        let (job, worker) = (third.unwrap(), health.quarantine().unwrap());
        assert!(job.ends_with("tripped over a cable"), "{job}");
        assert!(
            worker.contains("the last: tripped over a cable;"),
            "{worker}"
        );
    }

    #[test]
    fn what_is_not_the_workers_fault_breaks_the_streak() {
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
            let jobs = Outcome::Failed {
                code: code.to_owned(),
                message: "x".to_owned(),
                retryable,
            };
            health.judge(&args, JobId::new(), &crashed(), fast);
            health.judge(&args, JobId::new(), &jobs, fast);
        }
        assert_eq!(health.quarantine(), None);
    }
}
