//! Reads a job with everything that its object contains.

use sqlx::{PgConnection, PgPool};

use crate::{
    db::{
        self, Page, Slice,
        attempts::Attempt,
        jobs::{Filter, Job},
        phases::PhaseSpan,
        queue_position::QueuePosition,
        tenants::TenantId,
    },
    domain::{id::JobId, job::JobStatus, role::Role},
    http::api::{error::ApiError, state::AppState},
};

/// A job with the rows of other tables that its object contains, read in one transaction.
pub(crate) struct JobSnapshot {
    pub job: Job,
    pub position: Option<QueuePosition>,
    pub attempts: Vec<Attempt>,
    pub phases: Vec<PhaseSpan>,
}

impl JobSnapshot {
    /// Reads a job.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) async fn get(
        pool: &PgPool,
        tenant: TenantId,
        id: JobId,
    ) -> sqlx::Result<Option<Self>> {
        let mut transaction = db::snapshot(pool).await?;
        match db::jobs::get(&mut *transaction, tenant, id).await? {
            Some(job) => Self::of(&mut transaction, tenant, job).await.map(Some),
            None => Ok(None),
        }
    }

    /// Reads a page of jobs.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) async fn list(
        pool: &PgPool,
        tenant: TenantId,
        page: Page<JobId>,
        filter: &Filter,
    ) -> sqlx::Result<Slice<Self>> {
        let mut transaction = db::snapshot(pool).await?;
        let slice = db::jobs::list(&mut *transaction, tenant, page, filter).await?;
        let mut rows = Vec::with_capacity(slice.rows.len());
        for job in slice.rows {
            rows.push(Self::of(&mut transaction, tenant, job).await?);
        }
        let has_more = slice.has_more;
        Ok(Slice { rows, has_more })
    }

    /// Adds the other rows to a job that was read in `transaction`.
    async fn of(transaction: &mut PgConnection, tenant: TenantId, job: Job) -> sqlx::Result<Self> {
        let position = match job.status {
            JobStatus::Queued => db::queue_position::get(&mut *transaction, tenant, job.id).await?,
            _ => None,
        };
        let attempts = match job.attempts {
            0 => Vec::new(),
            _ => db::attempts::list(&mut *transaction, tenant, job.id).await?,
        };
        let phases = db::phases::list(&mut *transaction, tenant, job.id).await?;
        Ok(Self {
            job,
            position,
            attempts,
            phases,
        })
    }

    /// The part that a key of this role sees: hosts and logs of trainers are the operator's.
    pub(crate) fn seen_by(mut self, role: Role) -> Self {
        if role != Role::Admin {
            for attempt in &mut self.attempts {
                attempt.host = None;
                attempt.log.clear();
            }
        }
        self
    }

    /// Changes whenever the object does, apart from its estimates.
    pub(crate) fn etag(&self) -> String {
        let version = self.job.version;
        match &self.position {
            Some(QueuePosition { ahead, reason, .. }) => {
                format!("W/\"{version}.{ahead}.{reason}\"")
            }
            None => format!("W/\"{version}\""),
        }
    }
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
