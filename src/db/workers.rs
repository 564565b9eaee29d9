//! Worker processes, for display and for wait reasons: no lease depends on these rows.

use std::time::Duration;

use serde::Serialize;
use sqlx::PgPool;
use time::{OffsetDateTime, serde::timestamp};
use utoipa::ToSchema;

use super::{convert, tenants::TenantId};
use crate::domain::{
    id::{JobId, WorkerId},
    recipe::SPEC_VERSION,
    words,
};

/// A worker process that is starting.
#[derive(Debug, Clone)]
pub struct NewWorker {
    /// New at each start of the process.
    pub id: WorkerId,
    pub host: String,
    pub pid: u32,
    pub version: String,
    pub device: String,
    /// Number of jobs that it runs at the same time.
    pub slots: u32,
}

/// Silence after which a worker counts as lost; several times the interval of `beat`.
pub(super) const SILENT: Duration = Duration::from_secs(60);
/// Silence after which the row of a worker is deleted. Its attempts keep the name of its host.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Maximum number of workers listed.
const MAX_LISTED: i64 = 500;

/// A worker process. A restarted process is another worker.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Worker {
    pub id: WorkerId,
    /// `worker`.
    pub object: &'static str,
    pub host: String,
    /// Process id on that host.
    pub pid: u32,
    pub version: String,
    /// Its devices: `cpu`, or GPUs such as `cuda:0,cuda:1`.
    pub device: String,
    /// `active`: at least one device is; `unfit`: no device passes its self-test; `quarantined`:
    /// several jobs in a row failed on its devices; `draining`: it claims nothing more; `stopped`;
    /// `lost`: it was silent for a minute.
    pub state: String,
    /// Why it, or one of its devices, is unfit or quarantined.
    pub reason: Option<String>,
    /// Memory available to a further job on the device that has most, in MiB, as last measured.
    pub free_mb: Option<u32>,
    /// Memory available to one job on the largest device if it ran no other, in MiB.
    pub capacity_mb: Option<u32>,
    /// Unix seconds, as all times here.
    #[serde(with = "timestamp")]
    #[schema(value_type = i64)]
    pub started_at: OffsetDateTime,
    #[serde(with = "timestamp")]
    #[schema(value_type = i64)]
    pub last_seen_at: OffsetDateTime,
    /// Number of jobs that it runs at the same time.
    pub slots: u32,
    /// Number of jobs that it runs now, of all tenants.
    pub busy: u32,
    /// Those of them that are yours.
    pub jobs: Vec<JobId>,
}

words! {
    /// Health of a running worker.
    pub enum State {
        Active = "active",
        /// Its device fails the self-test.
        Unfit = "unfit",
        /// Several jobs in a row failed on it.
        Quarantined = "quarantined",
    }
}

/// Adds a worker that has started; repeating it changes nothing.
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

/// Sets the state of a worker, the number of its slots that work, and why the others do not.
pub async fn tell(
    pool: &PgPool,
    worker: WorkerId,
    (state, slots): (State, u32),
    reason: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update workers set state = $2, reason = $3, slots = $4, last_seen_at = now()
        where id = $1 and state not in ('draining', 'stopped')",
        worker.0,
        state.as_str(),
        reason,
        convert::from_small(slots)
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Sets the device of a worker, its free memory and its capacity in MiB, and the queue age after
/// which it keeps memory free for a large job.
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
        reserve.as_secs_f64()
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Records that a worker is alive.
pub async fn beat(pool: &PgPool, worker: WorkerId) -> sqlx::Result<()> {
    sqlx::query!(
        "update workers set last_seen_at = now() where id = $1",
        worker.0
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Deletes workers that were silent for a month. Returns how many.
pub async fn forget(pool: &PgPool) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from workers where last_seen_at < now() - make_interval(secs => $1)",
        REMEMBERED.as_secs_f64()
    );
    Ok(gone.execute(pool).await?.rows_affected())
}

/// Records that a worker claims no more work.
pub async fn drain(pool: &PgPool, worker: WorkerId) -> sqlx::Result<()> {
    leave(pool, worker, "draining").await
}

/// Records that a worker has ended.
pub async fn stop(pool: &PgPool, worker: WorkerId) -> sqlx::Result<()> {
    leave(pool, worker, "stopped").await
}

async fn leave(pool: &PgPool, worker: WorkerId, state: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "update workers set state = $2, last_seen_at = now() where id = $1",
        worker.0,
        state
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Device memory of the largest active worker that a job can have, in MiB; `None` while there is no
/// such worker, or one has not measured its own.
///
/// # Errors
/// Those of the database.
pub async fn largest_capacity(pool: &PgPool) -> sqlx::Result<Option<u32>> {
    let capacity = sqlx::query_scalar!(
        r#"select case when bool_and(capacity_mb is not null) then max(capacity_mb) end
        from workers where state = 'active' and last_seen_at > now() - make_interval(secs => $1)"#,
        SILENT.as_secs_f64()
    );
    Ok(capacity.fetch_one(pool).await?.map(convert::to_small))
}

/// Workers seen in the last day, newest first. Jobs of tenants other than `tenant` are only
/// counted.
pub async fn list(pool: &PgPool, tenant: TenantId) -> sqlx::Result<Vec<Worker>> {
    let workers = sqlx::query!(
        r#"select w.id, w.host, w.pid, w.version, w.device, w.reason, w.slots, w.free_mb, w.capacity_mb, w.started_at, w.last_seen_at,
            case when w.state <> 'stopped' and w.last_seen_at <= now() - make_interval(secs => $2) then 'lost'
                else w.state end as "state!",
            count(l.job_id) as "busy!",
            coalesce(array_agg(l.job_id) filter (where l.tenant_id = $1), '{}') as "jobs!"
        from workers w left join work l on l.worker_id = w.id and l.kind = 'train'
        where w.last_seen_at > now() - interval '1 day'
        group by w.id order by w.started_at desc, w.id limit $3"#,
        tenant.0,
        SILENT.as_secs_f64(),
        MAX_LISTED
    )
    .map(|row| Worker {
        id: WorkerId(row.id),
        object: "worker",
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
    workers.fetch_all(pool).await
}
