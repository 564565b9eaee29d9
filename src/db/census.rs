//! Counts of everything that waits or runs, of all tenants: for operators (`telemetry`).

use sqlx::PgPool;

use super::{convert, work::Kind, workers::SILENT};
use crate::domain::job::JobStatus;

/// Jobs of one status that has not ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jobs {
    pub status: JobStatus,
    pub count: u64,
    /// Age of the oldest: since it could be claimed, since its first start, or since its creation.
    pub oldest_seconds: f64,
}

/// Work of one kind other than training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    pub kind: Kind,
    pub waiting: u64,
    pub leased: u64,
    /// Time that the oldest waiting one has waited.
    pub oldest_seconds: f64,
}

/// Counts the jobs that have not ended, by status. Statuses without jobs are left out.
///
/// # Errors
/// Those of the database.
pub async fn jobs(pool: &PgPool) -> sqlx::Result<Vec<Jobs>> {
    sqlx::query!(
        r#"select status, count(*) as "count!", greatest(0, extract(epoch from now() - min(
            case when status = 'queued' then run_at when status in ('running', 'pausing') then started_at
                else created_at end)))::double precision as "oldest!"
        from jobs where finished_at is null group by status"#
    )
    .try_map(|row| {
        Ok(Jobs {
            status: convert::status(&row.status)?,
            count: convert::to_count(row.count),
            oldest_seconds: row.oldest,
        })
    })
    .fetch_all(pool)
    .await
}

/// Counts waiting and leased work, by kind. Kinds without any are left out.
///
/// # Errors
/// Those of the database.
pub async fn work(pool: &PgPool) -> sqlx::Result<Vec<Work>> {
    sqlx::query!(
        r#"select kind as "kind: Kind", count(*) filter (where worker_id is null) as "waiting!",
            count(worker_id) as "leased!",
            coalesce(greatest(0, extract(epoch from now() - min(run_at) filter (where worker_id is null))), 0)::double precision
                as "oldest!"
        from work where kind <> 'train' group by kind"#
    )
    .map(|row| Work {
        kind: row.kind,
        waiting: convert::to_count(row.waiting),
        leased: convert::to_count(row.leased),
        oldest_seconds: row.oldest,
    })
    .fetch_all(pool)
    .await
}

/// States that `workers` answers.
pub const WORKER_STATES: [&str; 6] = [
    "active",
    "unfit",
    "quarantined",
    "draining",
    "stopped",
    "lost",
];

/// Counts the workers of the last day, by state.
///
/// # Errors
/// Those of the database.
pub async fn workers(pool: &PgPool) -> sqlx::Result<Vec<(String, u64)>> {
    sqlx::query!(
        r#"select case when state <> 'stopped' and last_seen_at <= now() - make_interval(secs => $1) then 'lost'
                else state end as "state!", count(*) as "count!"
        from workers where last_seen_at > now() - interval '1 day' group by 1"#,
        SILENT.as_secs_f64()
    )
    .map(|row| (row.state, convert::to_count(row.count)))
    .fetch_all(pool)
    .await
}
