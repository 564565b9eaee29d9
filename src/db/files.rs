//! Uploaded files: what the API does with them, and their validation by a worker under a lease of its own.

use std::time::Duration;

use sqlx::{PgConnection, PgPool, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Page, Slice, convert, tenants::TenantId};
use crate::domain::{
    file::{Dataset, FileReport, FileStatus, Purpose},
    id::{FileId, JobId, WorkerId},
    problem::Problem,
};

/// Claims of one file that may end without a word before it is given up.
pub const MAX_ATTEMPTS: i32 = 3;

/// A file whose bytes are in the object store.
#[derive(Debug, Clone)]
pub struct NewFile {
    pub id: FileId,
    pub tenant: TenantId,
    pub filename: String,
    pub purpose: Purpose,
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// A file, as the API shows it.
#[derive(Debug, Clone)]
pub struct File {
    pub id: FileId,
    pub filename: String,
    pub purpose: Purpose,
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
    pub status: FileStatus,
    /// One sentence, where it is in error.
    pub status_details: Option<String>,
    pub dataset: Option<Dataset>,
    pub created_at: OffsetDateTime,
}

/// What became of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// The row is gone; its objects are the caller's to delete.
    Yes,
    NotFound,
    /// This job, not ended yet, needs it.
    InUseByJob(JobId),
    /// An import that has not ended reads it.
    InUseByImport,
}

/// A data set to validate.
#[derive(Debug, Clone)]
pub struct ClaimedFile {
    pub id: FileId,
    pub token: i64,
    pub bytes: u64,
    pub sha256: String,
}

/// Adds a file: `uploaded` when it is a data set, which a worker then validates; `processed` when it is weights.
pub async fn insert(pool: &PgPool, file: &NewFile) -> sqlx::Result<File> {
    let status = match file.purpose {
        Purpose::FineTune => "uploaded",
        Purpose::Weights => "processed",
    };
    let row = sqlx::query_as!(
        FileRow,
        r#"insert into files (id, tenant_id, filename, purpose, bytes, sha256, status)
        values ($1, $2, $3, $4, $5, $6, $7)
        returning id, filename, purpose, bytes, sha256, status, status_details,
            dataset as "dataset: Json<Dataset>", created_at"#,
        file.id.0,
        file.tenant.0,
        file.filename,
        purpose_word(file.purpose),
        convert::from_count(file.bytes),
        file.sha256,
        status
    )
    .fetch_one(pool)
    .await?;
    row.try_into()
}

pub async fn get(pool: &PgPool, tenant: TenantId, id: FileId) -> sqlx::Result<Option<File>> {
    let row = sqlx::query_as!(
        FileRow,
        r#"select id, filename, purpose, bytes, sha256, status, status_details,
            dataset as "dataset: Json<Dataset>", created_at
        from files where id = $1 and tenant_id = $2"#,
        id.0,
        tenant.0
    )
    .fetch_optional(pool)
    .await?;
    row.map(File::try_from).transpose()
}

pub async fn list(
    pool: &PgPool,
    tenant: TenantId,
    page: Page<FileId>,
    purpose: Option<Purpose>,
) -> sqlx::Result<Slice<File>> {
    let rows = sqlx::query_as!(
        FileRow,
        r#"select id, filename, purpose, bytes, sha256, status, status_details,
            dataset as "dataset: Json<Dataset>", created_at
        from files
        where tenant_id = $1 and ($2::text is null or purpose = $2)
            and ($3::uuid is null or case when $4 then id < $3 else id > $3 end)
        order by case when $4 then id end desc, case when not $4 then id end limit $5"#,
        tenant.0,
        purpose.map(purpose_word),
        page.after.map(|id| id.0),
        page.descending,
        i64::from(page.limit) + 1
    )
    .fetch_all(pool)
    .await?;
    let files: sqlx::Result<Vec<File>> = rows.into_iter().map(File::try_from).collect();
    Ok(Slice::of(files?, page.limit))
}

/// What validation found; `None` when there is no such file, `Some(None)` when its validation has not ended.
pub async fn report(
    pool: &PgPool,
    tenant: TenantId,
    id: FileId,
) -> sqlx::Result<Option<Option<FileReport>>> {
    let row = sqlx::query_scalar!(
        r#"select report as "report: Json<FileReport>" from files where id = $1 and tenant_id = $2"#,
        id.0,
        tenant.0
    );
    let row = row.fetch_optional(pool).await?;
    Ok(row.map(|report| report.map(|report| report.0)))
}

/// Deletes the row, unless a live job or import needs it.
pub async fn delete(pool: &PgPool, tenant: TenantId, id: FileId) -> sqlx::Result<Deleted> {
    // The row is locked first: `jobs::create` and `models::insert_importing` lock it too, so neither can slip in between.
    let mut transaction = pool.begin().await?;
    let deleted = delete_locked(&mut transaction, tenant, id).await?;
    // Ended here in any case: one that is dropped keeps its locks until its connection is used again.
    transaction.commit().await?;
    Ok(deleted)
}

async fn delete_locked(
    transaction: &mut PgConnection,
    tenant: TenantId,
    id: FileId,
) -> sqlx::Result<Deleted> {
    let file = sqlx::query_scalar!(
        "select id from files where id = $1 and tenant_id = $2 for update",
        id.0,
        tenant.0
    );
    if file.fetch_optional(&mut *transaction).await?.is_none() {
        return Ok(Deleted::NotFound);
    }
    let job = sqlx::query_scalar!(
        "select id from jobs
        where tenant_id = $1 and finished_at is null and (training_file = $2 or validation_file = $2) limit 1",
        tenant.0,
        id.0
    );
    if let Some(job) = job.fetch_optional(&mut *transaction).await? {
        return Ok(Deleted::InUseByJob(JobId(job)));
    }
    let import = sqlx::query_scalar!(
        "select id from models where tenant_id = $1 and status = 'importing' and weights_file = $2 limit 1",
        tenant.0,
        id.0
    );
    if import.fetch_optional(&mut *transaction).await?.is_some() {
        return Ok(Deleted::InUseByImport);
    }
    sqlx::query!("delete from files where id = $1", id.0)
        .execute(&mut *transaction)
        .await?;
    Ok(Deleted::Yes)
}

/// Takes the oldest data set that waits for validation. The lease ends after `ttl` unless renewed.
pub async fn claim(
    pool: &PgPool,
    worker: WorkerId,
    ttl: Duration,
) -> sqlx::Result<Option<ClaimedFile>> {
    let row = sqlx::query!(
        "with next as (
            select id from files
            where status = 'uploaded' and purpose = 'fine-tune' and attempts < $3 and lease_expires_at is null
            order by created_at limit 1 for update skip locked
        )
        update files f set token = f.token + 1, attempts = f.attempts + 1, worker_id = $1,
            lease_expires_at = now() + make_interval(secs => $2)
        from next where f.id = next.id
        returning f.id, f.token, f.bytes, f.sha256",
        worker.0,
        convert::seconds(ttl),
        MAX_ATTEMPTS
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| ClaimedFile {
        id: FileId(row.id),
        token: row.token,
        bytes: convert::to_count(row.bytes),
        sha256: row.sha256,
    }))
}

/// Keeps a claim for another `ttl`; `false`: it is lost.
pub async fn renew(pool: &PgPool, id: FileId, token: i64, ttl: Duration) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update files set lease_expires_at = now() + make_interval(secs => $3)
        where id = $1 and token = $2 and lease_expires_at is not null",
        id.0,
        token,
        convert::seconds(ttl)
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Hands a claim back. One whose validation process crashed counts against `MAX_ATTEMPTS`; one that was stopped does not.
pub async fn release(pool: &PgPool, id: FileId, token: i64, crashed: bool) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update files set lease_expires_at = null, worker_id = null, attempts = attempts - case when $3 then 0 else 1 end
        where id = $1 and token = $2 and lease_expires_at is not null",
        id.0,
        token,
        crashed
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The data set can be used (`report.dataset` is there); its pack is in the object store. `false`: the claim is lost.
pub async fn accept(
    pool: &PgPool,
    id: FileId,
    token: i64,
    report: &FileReport,
    pack_sha256: &str,
    pack_bytes: u64,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update files set status = 'processed', status_details = null, dataset = $3, report = $4, pack_sha256 = $5,
            pack_bytes = $6, lease_expires_at = null, worker_id = null
        where id = $1 and token = $2 and lease_expires_at is not null",
        id.0,
        token,
        report.dataset.as_ref().map(Json) as Option<Json<&Dataset>>,
        Json(report) as Json<&FileReport>,
        pack_sha256,
        convert::from_count(pack_bytes)
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The data set cannot be used: `report.errors` says why, `details` in a sentence. `false`: the claim is lost.
pub async fn refuse(
    pool: &PgPool,
    id: FileId,
    token: i64,
    report: &FileReport,
    details: &str,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update files set status = 'error', status_details = $4, report = $3, lease_expires_at = null, worker_id = null
        where id = $1 and token = $2 and lease_expires_at is not null",
        id.0,
        token,
        Json(report) as Json<&FileReport>,
        details
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Frees files whose lease ran out, and gives up on those whose validation came to no end `MAX_ATTEMPTS` times. Called beside
/// `queue::reap`.
pub async fn reap(pool: &PgPool) -> sqlx::Result<Vec<FileId>> {
    sqlx::query!(
        "update files set lease_expires_at = null, worker_id = null
        where status = 'uploaded' and lease_expires_at < now()"
    )
    .execute(pool)
    .await?;
    let details = "the validation of this file came to no end each time it was tried; check that its images open elsewhere";
    let errors = vec![Problem::new("", "validation_crashed", details)];
    let report = FileReport {
        dataset: None,
        errors,
        warnings: Vec::new(),
        warnings_omitted: 0,
    };
    let ids = sqlx::query_scalar!(
        "update files set status = 'error', status_details = $1, report = $2
        where status = 'uploaded' and attempts >= $3 and lease_expires_at is null
        returning id",
        details,
        Json(&report) as Json<&FileReport>,
        MAX_ATTEMPTS
    )
    .fetch_all(pool)
    .await?;
    Ok(ids.into_iter().map(FileId).collect())
}

fn purpose_word(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::FineTune => "fine-tune",
        Purpose::Weights => "weights",
    }
}

/// A row as Postgres has it.
struct FileRow {
    id: Uuid,
    filename: String,
    purpose: String,
    bytes: i64,
    sha256: String,
    status: String,
    status_details: Option<String>,
    dataset: Option<Json<Dataset>>,
    created_at: OffsetDateTime,
}

impl TryFrom<FileRow> for File {
    type Error = sqlx::Error;

    fn try_from(row: FileRow) -> sqlx::Result<Self> {
        let purpose = match row.purpose.as_str() {
            "fine-tune" => Purpose::FineTune,
            "weights" => Purpose::Weights,
            other => return Err(convert::unknown("files.purpose", other)),
        };
        let status = match row.status.as_str() {
            "uploaded" => FileStatus::Uploaded,
            "processed" => FileStatus::Processed,
            "error" => FileStatus::Error,
            other => return Err(convert::unknown("files.status", other)),
        };
        Ok(Self {
            id: FileId(row.id),
            filename: row.filename,
            purpose,
            bytes: convert::to_count(row.bytes),
            sha256: row.sha256,
            status,
            status_details: row.status_details,
            dataset: row.dataset.map(|dataset| dataset.0),
            created_at: row.created_at,
        })
    }
}
