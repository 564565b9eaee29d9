//! Models as files of other formats: work of kind `export`, whose subject is a row of `exports`.

use std::{collections::BTreeMap, time::Duration};

use sqlx::{PgPool, types::Json};
use uuid::Uuid;

use super::{
    convert, models,
    work::{Lease, MAX_CRASHES, end_work},
};
use crate::domain::{
    checkpoint::ManifestEntry,
    export::NetworkFormat,
    id::JobId,
    object::{Bundle, Descriptor},
    progress::Failure,
};

/// Time to write and check one export, and time that a request waits for it.
pub const TIMEOUT: Duration = Duration::from_secs(300);
/// Code of an export whose process never gave an answer.
pub const UNFINISHED: &str = "export_unfinished";

/// The state of a model's export in one format.
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

/// A model to export.
#[derive(Debug, Clone)]
pub struct ToExport {
    /// The job that made it.
    pub job: JobId,
    pub format: NetworkFormat,
    pub bundle: Bundle,
}

/// Prefix of a model's exports in the object store.
pub fn prefix(job: JobId) -> String {
    format!("scripts/{}/", job.0.simple())
}

/// Key of a model's export in the object store.
pub fn key(job: JobId, format: NetworkFormat) -> String {
    prefix(job) + &format.file_name()
}

/// Adds an export of the model that `job` made to the queue of work, unless it is there.
pub async fn request(pool: &PgPool, job: JobId, format: NetworkFormat) -> sqlx::Result<()> {
    // The lock keeps the model until its work is there to be deleted with it. Where another request
    // has just added the export, it adds the work, too.
    sqlx::query!(
        "with model as (
            select tenant_id, id from models where job_id = $1 for key share
        ), added as (
            insert into exports (tenant_id, model, format) select tenant_id, id, $2 from model
            on conflict do nothing returning id, tenant_id
        )
        insert into work (kind, subject, tenant_id)
        select 'export', id, tenant_id from added
        union all select 'export', e.id, e.tenant_id from model m
            join exports e on (e.tenant_id, e.model, e.format) = (m.tenant_id, m.id, $2)
        on conflict do nothing",
        job.0,
        format.as_str()
    )
    .execute(pool)
    .await?;
    Ok(())
}

pub async fn state(pool: &PgPool, job: JobId, format: NetworkFormat) -> sqlx::Result<Export> {
    let row = sqlx::query!(
        r#"select m.id, e.failure as "failure: Json<Failure>", e.object as "object: Json<ManifestEntry>",
            exists (select from work w where w.kind = 'export' and w.subject = e.id) as "pending!"
        from models m left join exports e on (e.tenant_id, e.model, e.format) = (m.tenant_id, m.id, $2)
        where m.job_id = $1"#,
        job.0,
        format.as_str()
    );
    Ok(match row.fetch_optional(pool).await? {
        None => Export::NoModel,
        Some(row) if row.pending => Export::Pending,
        Some(row) => match (row.failure, row.object) {
            (Some(failure), _) => Export::Failed(failure.0),
            (None, Some(object)) => {
                let (owner, name) = (format!("model `{}`", row.id), format.file_name());
                Export::Stored(Descriptor::new(owner, &prefix(job), &name, &object.0))
            }
            (None, None) => Export::None,
        },
    })
}

/// The model of an export; `None` when it was deleted meanwhile.
pub async fn to_export(pool: &PgPool, export: Uuid) -> sqlx::Result<Option<ToExport>> {
    let row = sqlx::query!(
        r#"select m.id, e.format, m.job_id as "job_id!", m.objects as "objects!",
            m.weights_sha256 as "weights_sha256!", m.files as "files: Json<BTreeMap<String, ManifestEntry>>"
        from exports e join models m on (m.tenant_id, m.id) = (e.tenant_id, e.model) where e.id = $1"#,
        export
    );
    let Some(row) = row.fetch_optional(pool).await? else {
        return Ok(None);
    };
    let files = row.files.map(|files| files.0);
    Ok(Some(ToExport {
        job: JobId(row.job_id),
        format: convert::parse("exports.format", &row.format)?,
        bundle: models::bundle(&row.id, &row.objects, &row.weights_sha256, files),
    }))
}

/// Ends an export: its object is stored, or it failed. `false`: the lease is lost.
pub async fn end(
    pool: &PgPool,
    lease: &Lease,
    outcome: Result<&ManifestEntry, &Failure>,
) -> sqlx::Result<bool> {
    let (object, failure) = (outcome.ok().map(Json), outcome.err().map(Json));
    end_work!(
        pool,
        lease,
        "export",
        " update exports e set object = $4, failure = $5 from lease where e.id = lease.subject",
        object as Option<Json<&ManifestEntry>>,
        failure as Option<Json<&Failure>>
    )
    .await
}

/// Ends an export that crashed too often.
pub async fn give_up(pool: &PgPool, lease: &Lease) -> sqlx::Result<bool> {
    let message = format!("the export process ended early {MAX_CRASHES} times");
    end(pool, lease, Err(&Failure::permanent(UNFINISHED, message))).await
}
