//! TorchScript exports: work of kind `export`, whose subject is the job that made the model.

use std::{collections::BTreeMap, time::Duration};

use sqlx::{PgPool, types::Json};
use uuid::Uuid;

use super::{
    models,
    work::{Lease, MAX_CRASHES, end_work},
};
use crate::domain::{
    checkpoint::ManifestEntry,
    id::JobId,
    object::{Bundle, Descriptor},
    progress::Failure,
};

/// Time to write and check one export, and time that a request waits for it.
pub const TIMEOUT: Duration = Duration::from_secs(300);
/// Name of the TorchScript below `prefix`.
const SCRIPT: &str = "model.pt";
/// Code of an export whose process never gave an answer.
pub const UNFINISHED: &str = "export_unfinished";

/// The state of a model's export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Export {
    /// It waits for a worker or runs.
    Pending,
    /// Nothing was exported.
    None,
    /// The object of the last run.
    Stored(Descriptor),
    /// The failure of the last run.
    Failed(Failure),
    /// There is no such model.
    NoModel,
}

/// Prefix of a model's export in the object store.
pub fn prefix(job: JobId) -> String {
    format!("scripts/{}/", job.0.simple())
}

/// Key of a model's TorchScript in the object store.
pub fn script_key(job: JobId) -> String {
    prefix(job) + SCRIPT
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
        r#"select id, export_failure as "failure: Json<Failure>", torchscript as "script: Json<ManifestEntry>",
            exists (select from work w where w.kind = 'export' and w.subject = models.job_id) as "pending!"
        from models where job_id = $1"#,
        job.0
    );
    Ok(match row.fetch_optional(pool).await? {
        None => Export::NoModel,
        Some(row) if row.pending => Export::Pending,
        Some(row) => match (row.failure, row.script) {
            (Some(failure), _) => Export::Failed(failure.0),
            (None, Some(script)) => {
                let owner = format!("model `{}`", row.id);
                Export::Stored(Descriptor::new(owner, &prefix(job), SCRIPT, &script.0))
            }
            (None, None) => Export::None,
        },
    })
}

/// The bundle to export; `None` when the model was deleted meanwhile.
pub async fn bundle(pool: &PgPool, job: Uuid) -> sqlx::Result<Option<Bundle>> {
    let row = sqlx::query!(
        r#"select id, objects as "objects!", weights_sha256 as "weights_sha256!",
            files as "files: Json<BTreeMap<String, ManifestEntry>>"
        from models where job_id = $1"#,
        job
    );
    let row = row.fetch_optional(pool).await?;
    Ok(row.map(|row| {
        let files = row.files.map(|files| files.0);
        models::bundle(&row.id, &row.objects, &row.weights_sha256, files)
    }))
}

/// Ends an export: its object is stored, or it failed. `false`: the lease is lost.
pub async fn end(
    pool: &PgPool,
    lease: &Lease,
    outcome: Result<&ManifestEntry, &Failure>,
) -> sqlx::Result<bool> {
    let (script, failure) = (outcome.ok().map(Json), outcome.err().map(Json));
    end_work!(
        pool,
        lease,
        "export",
        " update models m set torchscript = $4, export_failure = $5 from lease where m.job_id = lease.subject",
        script as Option<Json<&ManifestEntry>>,
        failure as Option<Json<&Failure>>
    )
    .await
}

/// Ends an export that crashed too often.
pub async fn give_up(pool: &PgPool, lease: &Lease) -> sqlx::Result<bool> {
    let message = format!("the TorchScript export process ended early {MAX_CRASHES} times");
    end(pool, lease, Err(&Failure::permanent(UNFINISHED, message))).await
}
