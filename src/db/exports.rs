//! TorchScript exports: work of kind `export`, whose subject is the job that made the model.

use std::time::Duration;

use sqlx::{PgPool, types::Json};
use uuid::Uuid;

use super::work::{Lease, MAX_CRASHES, end_work};
use crate::domain::{id::JobId, progress::Failure};

/// Time to write and check one export, and time that a request waits for it.
pub const TIMEOUT: Duration = Duration::from_secs(300);
/// Code of an export whose process never gave an answer.
pub const UNFINISHED: &str = "export_unfinished";

/// The state of a model's export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Export {
    /// It waits for a worker or runs.
    Pending,
    /// Nothing is under way; the failure is that of the last run.
    Ended(Option<Failure>),
    /// There is no such model.
    NoModel,
}

/// Prefix of a model's export in the object store.
pub fn prefix(job: JobId) -> String {
    format!("scripts/{}/", job.0.simple())
}

/// Key of a model's TorchScript in the object store.
pub fn script_key(job: JobId) -> String {
    prefix(job) + "model.pt"
}

/// Adds the export of the model that `job` made to the queue of work, unless it is there.
pub async fn request(pool: &PgPool, job: JobId) -> sqlx::Result<()> {
    // The lock keeps the model until its work is there to be deleted with it.
    sqlx::query!(
        "with model as (select job_id, tenant_id from models where job_id = $1 for key share)
        insert into work (kind, subject, tenant_id) select 'export', job_id, tenant_id from model
        on conflict do nothing",
        job.0
    )
    .execute(pool)
    .await?;
    Ok(())
}

pub async fn state(pool: &PgPool, job: JobId) -> sqlx::Result<Export> {
    let row = sqlx::query!(
        r#"select export_failure as "failure: Json<Failure>",
            exists (select from work w where w.kind = 'export' and w.subject = models.job_id) as "pending!"
        from models where job_id = $1"#,
        job.0
    );
    Ok(match row.fetch_optional(pool).await? {
        None => Export::NoModel,
        Some(row) if row.pending => Export::Pending,
        Some(row) => Export::Ended(row.failure.map(|failure| failure.0)),
    })
}

/// Prefix of the bundle to export; `None` when the model was deleted meanwhile.
pub async fn bundle(pool: &PgPool, job: Uuid) -> sqlx::Result<Option<String>> {
    let objects = sqlx::query_scalar!("select objects from models where job_id = $1", job);
    Ok(objects.fetch_optional(pool).await?.flatten())
}

/// Ends an export: its object is stored, or it failed. `false`: the lease is lost.
pub async fn end(pool: &PgPool, lease: &Lease, failure: Option<&Failure>) -> sqlx::Result<bool> {
    let failure = failure.map(Json);
    end_work!(
        pool,
        lease,
        "export",
        " update models m set export_failure = $4 from lease where m.job_id = lease.subject",
        failure as Option<Json<&Failure>>
    )
    .await
}

/// Ends an export that crashed too often.
pub async fn give_up(pool: &PgPool, lease: &Lease) -> sqlx::Result<bool> {
    let message = format!("the TorchScript export process ended early {MAX_CRASHES} times");
    end(pool, lease, Some(&Failure::permanent(UNFINISHED, message))).await
}
