//! Phases of a job with their times, derived from its events: each transition or phase ends the one
//! before it.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::PgExecutor;
use time::{OffsetDateTime, serde::timestamp};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{convert, tenants::TenantId};
use crate::domain::{id::JobId, job::Phase};

/// Maximum number of spans listed; the latest ones.
const MAX_SPANS: i64 = 100;

/// A period that a job spent in one phase. Between two of them it was paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = JobPhase)]
pub struct PhaseSpan {
    pub phase: Phase,
    /// The attempt that it was part of; `null` while the job waited.
    pub attempt: Option<i64>,
    #[serde(with = "timestamp")]
    #[schema(value_type = i64)]
    pub started_at: OffsetDateTime,
    /// `null` for the current phase.
    #[serde(with = "timestamp::option")]
    #[schema(value_type = Option<i64>)]
    pub ended_at: Option<OffsetDateTime>,
}

/// Phases of these jobs, oldest first. A paused job is in none.
pub async fn list(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    jobs: &[Uuid],
) -> sqlx::Result<HashMap<JobId, Vec<PhaseSpan>>> {
    let rows = sqlx::query!(
        r#"select job_id, token, created_at as "created_at!", ended_at, phase from (
            select e.job_id, e.seq, e.token, e.created_at, lead(e.created_at) over job as ended_at,
                row_number() over (partition by e.job_id order by e.seq desc) as from_last,
                case e.kind when 'phase' then e.data ->> 'phase' when 'started' then 'preparing'
                    when 'created' then 'waiting' when 'resumed' then 'waiting' when 'requeued' then 'waiting'
                    when 'stop_requested' then 'waiting' end as phase
            from job_events e join jobs j on j.id = e.job_id
            where e.job_id = any($1) and j.tenant_id = $2
                and e.kind in ('created', 'started', 'phase', 'paused', 'resumed', 'stop_requested', 'requeued',
                    'succeeded', 'failed', 'cancelled')
                -- Neither changes the phase of a running job.
                and (e.kind not in ('resumed', 'stop_requested') or e.data ->> 'status' <> 'running')
            window job as (partition by e.job_id order by e.seq)
        ) numbered where from_last <= $3 order by job_id, seq"#,
        jobs,
        tenant.0,
        MAX_SPANS
    )
    .fetch_all(executor)
    .await?;
    let mut by_job: HashMap<JobId, Vec<PhaseSpan>> = HashMap::new();
    for row in rows {
        // A paused or ended job is in no phase.
        let Some(word) = row.phase else { continue };
        let phase = convert::parse("jobs.phase", &word)?;
        let attempt = row.token.filter(|_| phase != Phase::Waiting);
        let spans = by_job.entry(JobId(row.job_id)).or_default();
        match spans.last_mut() {
            // The trainer reports the phase that the claim has started.
            Some(last) if last.phase == phase && last.attempt == attempt => {
                last.ended_at = row.ended_at
            }
            _ => spans.push(PhaseSpan {
                phase,
                attempt,
                started_at: row.created_at,
                ended_at: row.ended_at,
            }),
        }
    }
    Ok(by_job)
}
