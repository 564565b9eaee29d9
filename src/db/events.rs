//! A job's history: append-only events, numbered from 1 without gaps in the order of their commits.

use serde_json::Value;
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Page, Slice, convert, tenants::TenantId};
use crate::domain::id::{EventId, JobId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Info,
    Warn,
    Error,
}

impl Level {
    /// The word in SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// An event that a worker adds through `queue::record`. Events of the job's own life are added with the change itself.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub level: Level,
    pub message: String,
    pub data: Value,
}

/// One line of a job's history.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: EventId,
    /// From 1, without gaps: a stream resumes by it.
    pub seq: u64,
    pub created_at: OffsetDateTime,
    /// The attempt that it is about.
    pub attempt: Option<i64>,
    /// `created`, `validated`, `queued`, `started`, `phase`, `evaluated`, `checkpoint`, `message`,
    /// `pause_requested`, `paused`, `resumed`, `stop_requested`, `cancel_requested`, `requeued`, and at the end one of `succeeded`, `failed`, `cancelled`.
    pub kind: String,
    /// `info`, `warn` or `error`.
    pub level: String,
    pub message: String,
    pub data: Value,
}

impl Event {
    /// Whether nothing follows it.
    pub fn is_last(&self) -> bool {
        matches!(self.kind.as_str(), "succeeded" | "failed" | "cancelled")
    }
}

/// How many events each of these jobs has. A job's state changes with an event, so this tells whether it has changed.
pub async fn counts(pool: &PgPool, jobs: &[JobId]) -> sqlx::Result<Vec<(JobId, i64)>> {
    let ids: Vec<Uuid> = jobs.iter().map(|job| job.0).collect();
    let rows = sqlx::query!("select id, events from jobs where id = any($1)", &ids)
        .fetch_all(pool)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| (JobId(row.id), row.events))
        .collect())
}

/// A page of a job's events.
pub async fn list(
    pool: &PgPool,
    tenant: TenantId,
    job: JobId,
    page: Page<EventId>,
) -> sqlx::Result<Slice<Event>> {
    let after = match page.after {
        Some(event) => seq_of(pool, tenant, job, event).await?,
        None => None,
    };
    let rows = sqlx::query_as!(
        EventRow,
        "select e.id, e.seq, e.created_at, e.token, e.kind, e.level, e.message, e.data
        from job_events e join jobs j on j.id = e.job_id
        where e.job_id = $1 and j.tenant_id = $2
            and ($3::bigint is null or case when $4 then e.seq < $3 else e.seq > $3 end)
        order by case when $4 then -e.seq else e.seq end limit $5",
        job.0,
        tenant.0,
        after.map(convert::from_count),
        page.descending,
        i64::from(page.limit) + 1
    )
    .fetch_all(pool)
    .await?;
    Ok(Slice::of(
        rows.into_iter().map(Event::from).collect(),
        page.limit,
    ))
}

/// Events behind `seq` (0: from the start), oldest first.
pub async fn after(
    pool: &PgPool,
    tenant: TenantId,
    job: JobId,
    seq: u64,
    limit: u32,
) -> sqlx::Result<Vec<Event>> {
    let rows = sqlx::query_as!(
        EventRow,
        "select e.id, e.seq, e.created_at, e.token, e.kind, e.level, e.message, e.data
        from job_events e join jobs j on j.id = e.job_id
        where e.job_id = $1 and j.tenant_id = $2 and e.seq > $3 order by e.seq limit $4",
        job.0,
        tenant.0,
        convert::from_count(seq),
        i64::from(limit)
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(Event::from).collect())
}

/// The number of an event of this job: what a `Last-Event-ID` stands for.
pub async fn seq_of(
    pool: &PgPool,
    tenant: TenantId,
    job: JobId,
    event: EventId,
) -> sqlx::Result<Option<u64>> {
    let seq = sqlx::query_scalar!(
        "select e.seq from job_events e join jobs j on j.id = e.job_id
        where e.id = $1 and e.job_id = $2 and j.tenant_id = $3",
        event.0,
        job.0,
        tenant.0
    )
    .fetch_optional(pool)
    .await?;
    Ok(seq.map(convert::to_count))
}

struct EventRow {
    id: Uuid,
    seq: i64,
    created_at: OffsetDateTime,
    token: Option<i64>,
    kind: String,
    level: String,
    message: String,
    data: Value,
}

impl From<EventRow> for Event {
    fn from(row: EventRow) -> Self {
        Self {
            id: EventId(row.id),
            seq: convert::to_count(row.seq),
            created_at: row.created_at,
            attempt: row.token,
            kind: row.kind,
            level: row.level,
            message: row.message,
            data: row.data,
        }
    }
}
