//! Worker processes, for people to look at: no lease depends on these rows.

use std::time::Duration;

use sqlx::PgPool;
use time::OffsetDateTime;

use super::{convert, tenants::TenantId};
use crate::domain::{
    id::{JobId, WorkerId},
    recipe::SPEC_VERSION,
};

/// A worker process that starts.
#[derive(Debug, Clone)]
pub struct NewWorker {
    /// New at each start of the process.
    pub id: WorkerId,
    pub host: String,
    pub pid: u32,
    pub version: String,
    pub device: String,
    /// Trainings at once.
    pub slots: u32,
}

/// After so long without a word a worker counts as lost: some times the interval at which it says that it is there.
pub(super) const SILENT: Duration = Duration::from_secs(60);
/// After so long their rows go: each start of a process has one of its own. What ran where stays with the attempts.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Those listed, the newest.
const MOST: i64 = 500;

/// A worker process.
#[derive(Debug, Clone)]
pub struct Worker {
    pub id: WorkerId,
    pub host: String,
    pub pid: u32,
    pub version: String,
    pub device: String,
    /// As in `State`, or `draining`, or `stopped`; `lost` when it ended without a word.
    pub state: String,
    /// Why it is unfit or quarantined.
    pub reason: Option<String>,
    pub slots: u32,
    /// Device memory that a further job may take, in MiB, and that one job could have here at the most; as last measured.
    pub free_mb: Option<u32>,
    pub capacity_mb: Option<u32>,
    pub started_at: OffsetDateTime,
    pub last_seen_at: OffsetDateTime,
    /// Jobs that it has now, of all tenants.
    pub busy: u32,
    /// Those of the tenant who asks.
    pub jobs: Vec<JobId>,
}

/// How a worker is that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Active,
    /// Its device fails the self-test.
    Unfit,
    /// Jobs failed on it one after the other.
    Quarantined,
}

impl State {
    /// The word in SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Unfit => "unfit",
            Self::Quarantined => "quarantined",
        }
    }
}

/// Says that a worker has started; may be said again.
pub async fn register(pool: &PgPool, worker: &NewWorker) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into workers (id, host, pid, version, device, slots, spec_version) values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (id) do nothing",
        worker.id.0,
        worker.host,
        i64::from(worker.pid),
        worker.version,
        worker.device,
        convert::from_small(worker.slots),
        convert::from_small(SPEC_VERSION)
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Says how a worker is, and why it claims nothing.
pub async fn tell(
    pool: &PgPool,
    worker: WorkerId,
    state: State,
    reason: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update workers set state = $2, reason = $3, last_seen_at = now()
        where id = $1 and state not in ('draining', 'stopped')",
        worker.0,
        state.as_str(),
        reason
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Says which device a worker has found, how much of its memory it has to offer, in MiB, and for how long a job must have waited
/// for more than that until the room is kept for it.
pub async fn offer(
    pool: &PgPool,
    worker: WorkerId,
    device: &str,
    (free_mb, capacity_mb): (u32, u32),
    reserve: Duration,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update workers set device = $4, free_mb = $2, capacity_mb = $3, reserve = make_interval(secs => $5), last_seen_at = now()
        where id = $1",
        worker.0,
        convert::from_small(free_mb),
        convert::from_small(capacity_mb),
        device,
        convert::seconds(reserve)
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Says that a worker is there.
pub async fn beat(pool: &PgPool, worker: WorkerId) -> sqlx::Result<()> {
    sqlx::query!(
        "update workers set last_seen_at = now() where id = $1",
        worker.0
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Forgets workers that nobody has heard of for a month, and says how many.
pub async fn forget(pool: &PgPool) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from workers where last_seen_at < now() - make_interval(secs => $1)",
        convert::seconds(REMEMBERED)
    );
    Ok(gone.execute(pool).await?.rows_affected())
}

/// Says that a worker takes no more work.
pub async fn drain(pool: &PgPool, worker: WorkerId) -> sqlx::Result<()> {
    sqlx::query!(
        "update workers set state = 'draining', last_seen_at = now() where id = $1",
        worker.0
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Says that a worker has ended.
pub async fn stop(pool: &PgPool, worker: WorkerId) -> sqlx::Result<()> {
    sqlx::query!(
        "update workers set state = 'stopped', last_seen_at = now() where id = $1",
        worker.0
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Those seen in the last day, the newest first, as `tenant` may see them: of others' jobs only the count.
pub async fn list(pool: &PgPool, tenant: TenantId) -> sqlx::Result<Vec<Worker>> {
    let rows = sqlx::query!(
        r#"select w.id, w.host, w.pid, w.version, w.device, w.reason, w.slots, w.free_mb, w.capacity_mb, w.started_at, w.last_seen_at,
            case when w.state <> 'stopped' and w.last_seen_at <= now() - make_interval(secs => $2) then 'lost'
                else w.state end as "state!",
            count(l.job_id) as "busy!",
            coalesce(array_agg(l.job_id) filter (where l.tenant_id = $1), '{}') as "jobs!"
        from workers w left join work l on l.worker_id = w.id and l.kind = 'train'
        where w.last_seen_at > now() - interval '1 day'
        group by w.id order by w.started_at desc, w.id limit $3"#,
        tenant.0,
        convert::seconds(SILENT),
        MOST
    )
    .fetch_all(pool)
    .await?;
    let workers = rows.into_iter().map(|row| Worker {
        id: WorkerId(row.id),
        host: row.host,
        pid: u32::try_from(row.pid).unwrap_or(0),
        version: row.version,
        device: row.device,
        state: row.state,
        reason: row.reason,
        slots: convert::to_small(row.slots),
        free_mb: row.free_mb.map(convert::to_small),
        capacity_mb: row.capacity_mb.map(convert::to_small),
        started_at: row.started_at,
        last_seen_at: row.last_seen_at,
        busy: u32::try_from(row.busy).unwrap_or(u32::MAX),
        jobs: row.jobs.into_iter().map(JobId).collect(),
    });
    Ok(workers.collect())
}
