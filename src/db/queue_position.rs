//! Queue position, wait reason and estimated start of a queued job, in the order of claims.

use std::time::Duration;

use sqlx::PgExecutor;
use time::OffsetDateTime;

use super::{convert, tenants::TenantId, workers::SILENT};
use crate::domain::{id::JobId, job::WaitReason};

/// Number of recent successful jobs that estimates are based on.
const MEASURED: i64 = 50;

/// Queue position of a job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueuePosition {
    /// Number of jobs that would be claimed before it: older jobs of its tenant or with a higher
    /// priority, and jobs of other tenants whose turn is earlier.
    pub ahead: u64,
    pub reason: WaitReason,
    /// End of a backoff.
    pub until: Option<OffsetDateTime>,
    /// Time until it starts; `None` if there are no measurements, or other reasons decide.
    pub estimate: Option<Estimate>,
}

/// Estimates that take every job to last as long as the median of the last successful ones (`p50`),
/// and as their ninth decile (`p90`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    pub p50: Duration,
    pub p90: Duration,
}

/// Counts that Postgres makes.
struct Row {
    /// Jobs of its tenant ahead of it.
    own_ahead: i64,
    /// Jobs of other tenants ahead of it.
    others_ahead: i64,
    /// Cap of its tenant.
    max_running: i32,
    run_at: OffsetDateTime,
    now: OffsetDateTime,
    tenant_paused: bool,
    at_cap: bool,
    slots: i64,
    busy: i64,
    /// True if a worker with a free slot has the memory that it needs, not reserved for another
    /// job.
    fits: bool,
    /// True if a worker with a free slot has the memory that it needs, but reserved for another
    /// job.
    reserved: bool,
    /// True if some worker would have the memory if it ran nothing else.
    possible: bool,
    /// Median and ninth decile of job durations, in seconds.
    durations: Option<Vec<f64>>,
    /// Remaining seconds of running jobs, for each of these durations. 0 without measurements.
    left: Vec<f64>,
}

/// Returns the queue position of a job; `None` if it is not queued.
pub async fn get(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    id: JobId,
) -> sqlx::Result<Option<QueuePosition>> {
    let row = sqlx::query_file_as!(
        Row,
        "src/db/queue_position.sql",
        id.0,
        tenant.0,
        MEASURED,
        SILENT.as_secs_f64()
    );
    Ok(row
        .fetch_optional(executor)
        .await?
        .map(|row| row.position()))
}

impl Row {
    fn position(&self) -> QueuePosition {
        let reason = self.reason();
        QueuePosition {
            ahead: convert::to_count(self.own_ahead + self.others_ahead),
            reason,
            until: (reason == WaitReason::Backoff).then_some(self.run_at),
            estimate: self.estimate(reason),
        }
    }

    fn reason(&self) -> WaitReason {
        if self.tenant_paused {
            WaitReason::TenantPaused
        } else if self.run_at > self.now {
            WaitReason::Backoff
        } else if self.slots == 0 {
            WaitReason::NoWorker
        } else if !self.possible {
            WaitReason::TooLarge
        } else if self.at_cap {
            WaitReason::TenantAtCap
        } else if self.busy >= self.slots {
            WaitReason::SlotsBusy
        } else if !self.fits && self.reserved {
            WaitReason::Reserved
        } else if !self.fits {
            WaitReason::Memory
        } else {
            WaitReason::Starting
        }
    }

    /// Spreads the work ahead over the slots, and the tenant's own over as many as its cap allows.
    /// `None` if something other than work ahead decides, or there are no measurements.
    fn estimate(&self, reason: WaitReason) -> Option<Estimate> {
        let decides = matches!(
            reason,
            WaitReason::SlotsBusy | WaitReason::Starting | WaitReason::Backoff
        );
        let durations = self
            .durations
            .as_ref()
            .filter(|_| decides && self.slots > 0)?;
        let backoff = (self.run_at - self.now).as_seconds_f64().max(0.0);
        let wait = |quantile: usize| {
            let duration = durations.get(quantile)?;
            let ahead = self.own_ahead + self.others_ahead;
            let work = self.left.get(quantile)? + ahead as f64 * duration;
            let own_slots = i64::from(self.max_running).min(self.slots).max(1);
            let own = self.own_ahead as f64 * duration / own_slots as f64;
            let seconds = if self.busy + ahead < self.slots && self.own_ahead < own_slots {
                0.0
            } else {
                own.max(work / self.slots as f64)
            };
            Duration::try_from_secs_f64(seconds.max(backoff)).ok()
        };
        Some(Estimate {
            p50: wait(0)?,
            p90: wait(1)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            own_ahead: 1,
            others_ahead: 2,
            max_running: 100,
            run_at: OffsetDateTime::UNIX_EPOCH,
            now: OffsetDateTime::UNIX_EPOCH,
            tenant_paused: false,
            at_cap: false,
            slots: 2,
            busy: 2,
            fits: true,
            reserved: false,
            possible: true,
            durations: Some(vec![10.0, 20.0]),
            left: vec![4.0, 24.0],
        }
    }

    #[test]
    fn wait_reason_is_the_first_that_applies() {
        let reasons = [
            (row(), WaitReason::SlotsBusy),
            (Row { busy: 1, ..row() }, WaitReason::Starting),
            (
                Row {
                    busy: 1,
                    fits: false,
                    ..row()
                },
                WaitReason::Memory,
            ),
            (
                Row {
                    busy: 1,
                    fits: false,
                    reserved: true,
                    ..row()
                },
                WaitReason::Reserved,
            ),
            (
                Row {
                    at_cap: true,
                    ..row()
                },
                WaitReason::TenantAtCap,
            ),
            (
                Row {
                    at_cap: true,
                    possible: false,
                    ..row()
                },
                WaitReason::TooLarge,
            ),
            (
                Row {
                    at_cap: true,
                    slots: 0,
                    ..row()
                },
                WaitReason::NoWorker,
            ),
            (
                Row {
                    tenant_paused: true,
                    slots: 0,
                    ..row()
                },
                WaitReason::TenantPaused,
            ),
        ];
        for (row, reason) in reasons {
            assert_eq!(row.reason(), reason);
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        let later = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(60);
        let position = Row {
            run_at: later,
            ..row()
        }
        .position();
        assert_eq!(
            (position.reason, position.until),
            (WaitReason::Backoff, Some(later))
        );
        assert_eq!(position.estimate.unwrap().p50, Duration::from_secs(60));
    }

    #[test]
    fn estimate_spreads_the_work_ahead_over_the_slots() {
        let seconds = |row: Row| {
            let estimate = row.position().estimate?;
            Some((estimate.p50.as_secs(), estimate.p90.as_secs()))
        };
        assert_eq!(seconds(row()), Some((17, 42)));
        assert_eq!(
            seconds(Row {
                own_ahead: 0,
                others_ahead: 0,
                busy: 1,
                ..row()
            }),
            Some((0, 0))
        );
        // A tenant that may use one of ten slots waits for its own jobs.
        let capped = Row {
            own_ahead: 3,
            others_ahead: 0,
            slots: 10,
            max_running: 1,
            ..row()
        };
        assert_eq!(seconds(capped), Some((30, 60)));
        assert_eq!(
            seconds(Row {
                durations: None,
                left: vec![0.0, 0.0],
                ..row()
            }),
            None
        );
        assert_eq!(seconds(Row { slots: 0, ..row() }), None);
        assert_eq!(
            seconds(Row {
                at_cap: true,
                ..row()
            }),
            None
        );
    }
}
