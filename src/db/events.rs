//! Events of a job: append-only, numbered from 1 without gaps in the order of their commits.

use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;
use time::{OffsetDateTime, serde::timestamp};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Page, Slice, convert, tenants::TenantId};
use crate::domain::{
    id::{EventId, JobId},
    words,
};

words! {
    /// Severity of an event.
    pub enum Level {
        Info = "info",
        Warn = "warn",
        Error = "error",
    }
}

/// An event that a worker adds through `queue::record`. Transitions of the job add their own event
/// in the same statement.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub level: Level,
    pub message: String,
    pub data: Value,
}

/// An event in a job's history.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = EventObject)]
pub struct Event {
    pub id: EventId,
    /// `fine_tuning.job.event`.
    pub object: &'static str,
    /// Unix seconds.
    #[serde(with = "timestamp")]
    #[schema(value_type = i64)]
    pub created_at: OffsetDateTime,
    /// `info`, `warn` or `error`.
    pub level: String,
    pub message: String,
    /// `metrics` for evaluations, else `message`.
    #[serde(rename = "type")]
    pub event_type: &'static str,
    pub data: Value,
    /// Sequence number, from 1 without gaps.
    pub seq: u64,
    /// `created`, `validated`, `queued`, `started`, `phase`, `evaluated`, `checkpoint`, `message`,
    /// `pause_requested`, `paused`, `resumed`, `stop_requested`, `cancel_requested`, `requeued`,
    /// and at the end one of `succeeded`, `failed`, `cancelled`.
    pub kind: String,
    /// Number of the attempt.
    pub attempt: Option<i64>,
}

impl Event {
    /// True when no event follows.
    pub fn is_last(&self) -> bool {
        matches!(self.kind.as_str(), "succeeded" | "failed" | "cancelled")
    }
}

/// Number of events of each job. A job changes with an event, so a different number means that it
/// has changed.
pub async fn counts(pool: &PgPool, jobs: &[JobId]) -> sqlx::Result<Vec<(JobId, i64)>> {
    let ids: Vec<Uuid> = jobs.iter().map(|job| job.0).collect();
    sqlx::query!("select id, events from jobs where id = any($1)", &ids)
        .map(|row| (JobId(row.id), row.events))
        .fetch_all(pool)
        .await
}

/// A query for events of one job: their columns, read here only, and further conditions with their
/// bindings.
macro_rules! query_events {
    ($tail:literal, $($bindings:tt)+) => {
        sqlx::query!(
            "select e.id, e.seq, e.created_at, e.token, e.kind, e.level, e.message, e.data
            from job_events e join jobs j on j.id = e.job_id where e.job_id = $1 and j.tenant_id = $2" + $tail,
            $($bindings)+
        )
        .map(|row| Event {
            id: EventId(row.id),
            object: "fine_tuning.job.event",
            created_at: row.created_at,
            level: row.level,
            message: row.message,
            event_type: if row.kind == "evaluated" { "metrics" } else { "message" },
            data: row.data,
            seq: convert::to_count(row.seq),
            kind: row.kind,
            attempt: row.token,
        })
    };
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
    let events = query_events!(
        " and ($3::bigint is null or case when $4 then e.seq < $3 else e.seq > $3 end)
        order by case when $4 then -e.seq else e.seq end limit $5",
        job.0,
        tenant.0,
        after.map(convert::from_count),
        page.descending,
        i64::from(page.limit) + 1
    );
    Ok(Slice::of(events.fetch_all(pool).await?, page.limit))
}

/// Events after `seq` (0: all), oldest first, at most `limit`.
pub async fn after(
    pool: &PgPool,
    tenant: TenantId,
    job: JobId,
    seq: u64,
    limit: u32,
) -> sqlx::Result<Vec<Event>> {
    query_events!(
        " and e.seq > $3 order by e.seq limit $4",
        job.0,
        tenant.0,
        convert::from_count(seq),
        i64::from(limit)
    )
    .fetch_all(pool)
    .await
}

/// Number of an event of this job, which a `Last-Event-ID` header refers to by its id.
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
