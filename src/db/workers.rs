//! Worker processes, for people to look at: no lease depends on these rows.

use sqlx::PgPool;
use time::OffsetDateTime;

use crate::domain::id::WorkerId;

/// A worker process that starts.
#[derive(Debug, Clone)]
pub struct NewWorker {
    /// New at each start of the process.
    pub id: WorkerId,
    pub host: String,
    pub pid: u32,
    pub version: String,
    pub device: String,
}

/// A worker process.
#[derive(Debug, Clone)]
pub struct Worker {
    pub id: WorkerId,
    pub host: String,
    pub pid: u32,
    pub version: String,
    pub device: String,
    /// `active`, `draining` or `stopped`.
    pub state: String,
    pub started_at: OffsetDateTime,
    pub last_seen_at: OffsetDateTime,
}

/// Says that a worker has started.
pub async fn register(pool: &PgPool, worker: &NewWorker) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into workers (id, host, pid, version, device) values ($1, $2, $3, $4, $5)",
        worker.id.0,
        worker.host,
        i64::from(worker.pid),
        worker.version,
        worker.device
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

/// Those seen in the last day, newest first.
pub async fn list(pool: &PgPool) -> sqlx::Result<Vec<Worker>> {
    let rows = sqlx::query!(
        "select id, host, pid, version, device, state, started_at, last_seen_at from workers
        where last_seen_at > now() - interval '1 day' order by started_at desc, id"
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
        started_at: row.started_at,
        last_seen_at: row.last_seen_at,
    });
    Ok(workers.collect())
}
