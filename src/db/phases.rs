//! What a job did and when, told from its events: each move or phase ends the one before it.

use sqlx::PgExecutor;
use time::OffsetDateTime;

use super::{convert, tenants::TenantId};
use crate::domain::{id::JobId, job::Phase};

/// Spans that are told of a job, the last ones.
const MOST: i64 = 100;

/// A stretch of time in one phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseSpan {
    pub phase: Phase,
    /// `None` while it waited.
    pub attempt: Option<i64>,
    pub started_at: OffsetDateTime,
    /// `None` for the present one.
    pub ended_at: Option<OffsetDateTime>,
}

/// A job's phases, oldest first. While it is paused it is in none.
pub async fn list(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    job: JobId,
) -> sqlx::Result<Vec<PhaseSpan>> {
    let rows = sqlx::query!(
        r#"select token, created_at as "created_at!", ended_at, phase from (
            select e.seq, e.token, e.created_at, lead(e.created_at) over (order by e.seq) as ended_at,
                case e.kind when 'phase' then e.data ->> 'phase' when 'started' then 'preparing'
                    when 'created' then 'waiting' when 'resumed' then 'waiting' when 'requeued' then 'waiting'
                    when 'stop_requested' then 'waiting' end as phase
            from job_events e join jobs j on j.id = e.job_id
            where e.job_id = $1 and j.tenant_id = $2
                and e.kind in ('created', 'started', 'phase', 'paused', 'resumed', 'stop_requested', 'requeued',
                    'succeeded', 'failed', 'cancelled')
                -- Asked of a job that a worker has, neither changes what it does.
                and (e.kind not in ('resumed', 'stop_requested') or e.data ->> 'status' <> 'running')
            order by e.seq desc limit $3
        ) last order by seq"#,
        job.0,
        tenant.0,
        MOST
    )
    .fetch_all(executor)
    .await?;
    let mut spans: Vec<PhaseSpan> = Vec::with_capacity(rows.len());
    for row in rows {
        // Being paused, and having ended, are no phases.
        let Some(word) = row.phase else { continue };
        let phase = convert::phase(&word)?;
        let attempt = row.token.filter(|_| phase != Phase::Waiting);
        match spans.last_mut() {
            // The trainer says again what the claim said.
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
    Ok(spans)
}
