//! Queue position, wait reason and estimated start of queued jobs, in the order of claims.
//!
//! One reading of the queue has what the positions of all jobs follow from, so that a page of jobs,
//! or many clients that poll, cost the database no more than one job.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;

use super::{
    convert,
    jobs::{self, Place},
    tenants::TenantId,
    workers::SILENT,
};
use crate::domain::{
    id::JobId,
    job::{JobStatus, WaitReason},
};

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
    /// Time at which the queue was read.
    pub as_of: OffsetDateTime,
}

/// Estimates that take every job to last as long as the median of the last successful ones (`p50`),
/// and as their ninth decile (`p90`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    pub p50: Duration,
    pub p90: Duration,
}

/// Claimable jobs by resource class and tenant, as (priority, seq) in the order of claims.
type Claimable = HashMap<String, BTreeMap<TenantId, Vec<(i16, i64)>>>;

/// The queue of all tenants at one time.
#[derive(Debug)]
pub struct QueueSnapshot {
    now: OffsetDateTime,
    read_at: Instant,
    tenants: HashMap<TenantId, Turn>,
    claimable: Claimable,
    workers: Vec<Worker>,
    measured: Measured,
}

/// A row of `tenant_turns`, with what else decides whether its tenant may start jobs.
#[derive(Debug)]
struct Turn {
    weight: f64,
    turn: f64,
    open: bool,
    paused: bool,
    at_cap: bool,
    max_running: i32,
}

/// A worker that may claim jobs.
#[derive(Debug)]
struct Worker {
    slots: i32,
    has_free_slot: bool,
    spec_version: i32,
    free_mb: Option<i32>,
    capacity_mb: Option<i32>,
    /// Resource classes in which its free memory is kept for a larger job: the condition
    /// `reserved` of a claim.
    reserved: Vec<String>,
}

/// Durations of jobs.
#[derive(Debug)]
struct Measured {
    /// Number of running jobs.
    busy: i64,
    /// Median and ninth decile of job durations, in seconds.
    durations: Option<Vec<f64>>,
    /// Remaining seconds of running jobs, for each of these durations. 0 without measurements.
    left: Vec<f64>,
}

/// Returns the queue position of a job; `None` if it is not queued.
///
/// # Errors
/// Those of the database.
pub async fn get(
    pool: &PgPool,
    tenant: TenantId,
    id: JobId,
) -> sqlx::Result<Option<QueuePosition>> {
    let queue = QueueSnapshot::read(pool).await?;
    let job = jobs::get(pool, tenant, id).await?;
    let queued = job.filter(|job| job.status == JobStatus::Queued);
    Ok(queued.and_then(|job| queue.position(tenant, &job.place)))
}

impl QueueSnapshot {
    /// Reads the queue.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn read(pool: &PgPool) -> sqlx::Result<Self> {
        let read_at = Instant::now();
        let mut transaction = super::snapshot(pool).await?;
        let (tenants, now) = read_turns(&mut transaction).await?;
        let claimable = read_claimable(&mut transaction).await?;
        let classes: Vec<String> = claimable.keys().cloned().collect();
        Ok(Self {
            now,
            read_at,
            tenants,
            workers: read_workers(&mut transaction, &classes).await?,
            measured: read_measured(&mut transaction).await?,
            claimable,
        })
    }

    /// Position of a queued job of this tenant; `None` if the tenant is unknown. The job may have
    /// come after the reading.
    pub fn position(&self, tenant: TenantId, place: &Place) -> Option<QueuePosition> {
        let turn = self.tenants.get(&tenant)?;
        let none = BTreeMap::new();
        let class = self.claimable.get(&place.resource_class).unwrap_or(&none);
        let own_ahead = class.get(&tenant).map_or(0, |jobs| {
            jobs.partition_point(|other| *other < (place.priority, place.seq))
        });
        // Each start of the jobs before it adds 1 / weight to the tenant's turn.
        let own_turn = turn.turn + own_ahead as f64 / turn.weight;
        let others_ahead = class.iter().map(|(&id, jobs)| {
            let Some(other) = self
                .tenants
                .get(&id)
                .filter(|other| id != tenant && other.open)
            else {
                return 0;
            };
            // The starts of the other tenant before that turn, as far as it has jobs.
            let starts = (own_turn - other.turn) * other.weight;
            let starts = if id < tenant {
                starts.floor() + 1.0
            } else {
                starts.ceil()
            };
            jobs.len().min(starts.max(0.0) as usize)
        });
        let others_ahead: usize = others_ahead.sum();
        let able = || {
            self.workers
                .iter()
                .filter(|worker| worker.spec_version >= place.spec_version)
        };
        let has_room = |worker: &&Worker| {
            worker.has_free_slot && worker.free_mb.is_none_or(|free| free >= place.device_mb)
        };
        let is_reserved = |worker: &Worker| worker.reserved.contains(&place.resource_class);
        let could_hold = |worker: &Worker| {
            worker
                .capacity_mb
                .is_none_or(|capacity| capacity >= place.device_mb)
        };
        let row = Row {
            own_ahead: own_ahead as i64,
            others_ahead: others_ahead as i64,
            max_running: turn.max_running,
            run_at: place.run_at,
            // A job that came after the reading is in no backoff.
            now: self.now + self.read_at.elapsed(),
            as_of: self.now,
            tenant_paused: turn.paused,
            at_cap: turn.at_cap,
            slots: able().map(|worker| i64::from(worker.slots)).sum(),
            busy: self.measured.busy,
            fits: able().filter(has_room).any(|worker| !is_reserved(worker)),
            reserved: able().filter(has_room).any(is_reserved),
            possible: able().any(could_hold),
            durations: self.measured.durations.clone(),
            left: self.measured.left.clone(),
        };
        Some(row.position())
    }

    /// True if this tenant existed at the reading.
    pub fn knows(&self, tenant: TenantId) -> bool {
        self.tenants.contains_key(&tenant)
    }
}

/// All that the position of one job follows from.
struct Row {
    /// Jobs of its tenant ahead of it.
    own_ahead: i64,
    /// Jobs of other tenants ahead of it.
    others_ahead: i64,
    /// Cap of its tenant.
    max_running: i32,
    run_at: OffsetDateTime,
    now: OffsetDateTime,
    /// Time of the reading.
    as_of: OffsetDateTime,
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

async fn read_turns(
    transaction: &mut PgConnection,
) -> sqlx::Result<(HashMap<TenantId, Turn>, OffsetDateTime)> {
    let turns = sqlx::query!(
        r#"select t.id as "id: TenantId", turns.weight as "weight!", turns.turn as "turn!", turns.open as "open!",
            t.paused, t.running >= t.max_running as "at_cap!", t.max_running, now() as "now!"
        from tenant_turns turns join tenants t on t.id = turns.tenant_id"#
    )
    .fetch_all(transaction)
    .await?;
    let now = turns
        .first()
        .map_or_else(OffsetDateTime::now_utc, |row| row.now);
    let tenants = turns.into_iter().map(|row| {
        let turn = Turn {
            weight: row.weight.into(),
            turn: row.turn,
            open: row.open,
            paused: row.paused,
            at_cap: row.at_cap,
            max_running: row.max_running,
        };
        (row.id, turn)
    });
    Ok((tenants.collect(), now))
}

async fn read_claimable(transaction: &mut PgConnection) -> sqlx::Result<Claimable> {
    let rows = sqlx::query!(
        r#"select resource_class as "class!", tenant_id as "tenant!: TenantId", array_agg(priority) as "priorities!",
            array_agg(seq) as "seqs!"
        from claimable_jobs group by resource_class, tenant_id"#
    )
    .fetch_all(transaction)
    .await?;
    let mut claimable = Claimable::new();
    for row in rows {
        let mut jobs: Vec<_> = row.priorities.into_iter().zip(row.seqs).collect();
        jobs.sort_unstable();
        claimable
            .entry(row.class)
            .or_default()
            .insert(row.tenant, jobs);
    }
    Ok(claimable)
}

async fn read_workers(
    transaction: &mut PgConnection,
    classes: &[String],
) -> sqlx::Result<Vec<Worker>> {
    sqlx::query_as!(
        Worker,
        r#"select w.slots, w.spec_version, w.free_mb, w.capacity_mb,
            w.slots > (select count(*) from work l where l.worker_id = w.id and l.kind = 'train') as "has_free_slot!",
            array(
                select class from unnest($2::text[]) class where exists (
                    select from claimable_jobs large
                    join tenant_turns owner on owner.tenant_id = large.tenant_id and owner.open
                    where large.resource_class = class
                        and large.device_mb > w.free_mb and large.device_mb <= w.capacity_mb
                        and large.run_at < now() - w.reserve and large.spec_version <= w.spec_version
                )
            ) as "reserved!"
        from workers w where w.state = 'active' and w.last_seen_at > now() - make_interval(secs => $1)"#,
        SILENT.as_secs_f64(),
        classes
    )
    .fetch_all(transaction)
    .await
}

async fn read_measured(transaction: &mut PgConnection) -> sqlx::Result<Measured> {
    sqlx::query_as!(
        Measured,
        r#"with measured as (
            select percentile_cont(array[0.5, 0.9]) within group (order by (
                select sum(extract(epoch from a.ended_at - a.started_at)) from attempts a where a.job_id = recent.id
            )) as durations
            from (select id from jobs where status = 'succeeded' order by finished_at desc limit $1) recent
        ), held as (
            select extract(epoch from now() - a.started_at) as seconds
            from work l join attempts a on a.job_id = l.job_id and a.token = l.token
        )
        select measured.durations, count(held.seconds) as "busy!", array[
            coalesce(sum(greatest(measured.durations[1] - held.seconds, 0)), 0),
            coalesce(sum(greatest(measured.durations[2] - held.seconds, 0)), 0)]::double precision[] as "left!"
        from measured left join held on true group by measured.durations"#,
        MEASURED
    )
    .fetch_one(transaction)
    .await
}

impl Row {
    fn position(&self) -> QueuePosition {
        let reason = self.reason();
        QueuePosition {
            ahead: convert::to_count(self.own_ahead + self.others_ahead),
            reason,
            until: (reason == WaitReason::Backoff).then_some(self.run_at),
            estimate: self.estimate(reason),
            as_of: self.as_of,
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
            as_of: OffsetDateTime::UNIX_EPOCH,
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
