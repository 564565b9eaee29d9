//! Reads a job with everything that its object contains.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    db::{
        self, Page, Slice,
        jobs::{Filter, Job, Place},
        queue_position::{QueuePosition, QueueSnapshot},
        tenants::TenantId,
    },
    domain::{id::JobId, job::JobStatus},
    http::{
        api::{error::ApiError, state::AppState},
        jobs::rows::JobRows,
    },
};

/// Age of the queue that positions are told from: ten times as long as reading it took, so that
/// readings take a tenth of one connection's time, but a second at most.
const QUEUE_AGE: u32 = 10;
const MAX_QUEUE_AGE: Duration = Duration::from_secs(1);

/// A job with its queue position, which is a little older.
pub(crate) struct JobSnapshot {
    pub rows: Arc<JobRows>,
    pub position: Option<QueuePosition>,
}

impl JobSnapshot {
    /// Reads a job.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) async fn read(
        state: &AppState,
        tenant: TenantId,
        id: JobId,
    ) -> sqlx::Result<Option<Self>> {
        let read_at = Instant::now();
        let mut transaction = db::snapshot(&state.pool).await?;
        let job = db::jobs::get(&mut *transaction, tenant, id).await?;
        let rows = JobRows::complete(&mut transaction, tenant, job.into_iter().collect()).await?;
        drop(transaction);
        let Some(rows) = rows.into_iter().next().map(Arc::new) else {
            return Ok(None);
        };
        state.recent_jobs.put(tenant, &rows, read_at);
        Self::placed(state, tenant, rows).await.map(Some)
    }

    /// A job as it was a moment ago, without a query where it was asked for lately.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) async fn recent(
        state: &AppState,
        tenant: TenantId,
        id: JobId,
    ) -> sqlx::Result<Option<Self>> {
        match state.recent_jobs.get(tenant, id) {
            Some(rows) => Self::placed(state, tenant, rows).await.map(Some),
            None => Self::read(state, tenant, id).await,
        }
    }

    /// Reads a page of jobs.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) async fn list(
        state: &AppState,
        tenant: TenantId,
        page: Page<JobId>,
        filter: &Filter,
    ) -> sqlx::Result<Slice<Self>> {
        let mut transaction = db::snapshot(&state.pool).await?;
        let slice = db::jobs::list(&mut *transaction, tenant, page, filter).await?;
        let has_more = slice.has_more;
        let jobs = JobRows::complete(&mut transaction, tenant, slice.rows).await?;
        drop(transaction);
        let mut rows = Vec::with_capacity(jobs.len());
        for job in jobs {
            rows.push(Self::placed(state, tenant, Arc::new(job)).await?);
        }
        Ok(Slice { rows, has_more })
    }

    async fn placed(state: &AppState, tenant: TenantId, rows: Arc<JobRows>) -> sqlx::Result<Self> {
        let position = position(state, tenant, rows.job.status, &rows.job.place).await?;
        Ok(Self { rows, position })
    }

    /// Changes whenever the object does, apart from its estimates.
    pub(crate) fn etag(&self) -> String {
        let version = self.rows.job.version;
        match &self.position {
            Some(QueuePosition { ahead, reason, .. }) => {
                format!("W/\"{version}.{ahead}.{reason}\"")
            }
            None => format!("W/\"{version}\""),
        }
    }
}

/// The queue position of a job with this status and place; `None` unless it is queued.
///
/// # Errors
/// The database cannot be read.
pub(crate) async fn position(
    state: &AppState,
    tenant: TenantId,
    status: JobStatus,
    place: &Place,
) -> sqlx::Result<Option<QueuePosition>> {
    if status != JobStatus::Queued {
        return Ok(None);
    }
    let read = async || QueueSnapshot::read(&state.pool).await.map(Arc::new);
    let max_age = |took: Duration| (QUEUE_AGE * took).min(MAX_QUEUE_AGE);
    let queue = state.queue.get(max_age, read).await?;
    if queue.knows(tenant) {
        return Ok(queue.position(tenant, place));
    }
    // The tenant is newer than the reading.
    let queue = state.queue.get(|_| Duration::ZERO, read).await?;
    Ok(queue.position(tenant, place))
}

/// The job with this id.
///
/// # Errors
/// There is no such job.
pub(crate) async fn find(state: &AppState, tenant: TenantId, id: JobId) -> Result<Job, ApiError> {
    db::jobs::get(&state.pool, tenant, id)
        .await?
        .ok_or_else(|| ApiError::unknown(id))
}

/// Why a job that did not succeed, or not yet, has no `result`.
pub(crate) fn without_result(job: &Job, result: &str) -> String {
    let Job { id, status, .. } = job;
    if status.is_terminal() {
        format!("the job is `{status}` and has no {result}; create another job")
    } else {
        format!("the job is `{status}`; `GET /v1/fine_tuning/jobs/{id}?wait=60` waits for its end")
    }
}
