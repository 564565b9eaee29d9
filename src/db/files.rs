//! Uploaded files: what the API does with them, and the results of their validation.

use std::time::Duration;

use serde::Serialize;
use sqlx::{PgConnection, PgExecutor, PgPool, types::Json};
use time::{OffsetDateTime, serde::timestamp};
use utoipa::ToSchema;

use super::{
    Page, Slice, convert,
    idempotency::{self, Idempotency, Keyed},
    tenants::TenantId,
    work::{Lease, MAX_CRASHES, end_work},
};
use crate::domain::{
    checkpoint::ManifestEntry,
    file::{Dataset, FileReport, FileStatus, Purpose},
    id::{FileId, JobId},
    object::Descriptor,
    problem::Problem,
    words,
};

/// Prefix of a file's objects in the object store.
pub fn prefix(id: FileId) -> String {
    format!("files/{}/", id.0.simple())
}

/// Name of the uploaded bytes below `prefix`.
const CONTENT: &str = "content";
/// Name of the packed data set below `prefix`.
pub const PACK: &str = "pack.safetensors";

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
    /// Time after which garbage collection deletes it; `None` keeps it.
    pub lifetime: Option<Duration>,
    pub idempotency: Option<Idempotency>,
}

/// An uploaded file.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct File {
    pub id: FileId,
    /// `file`.
    pub object: &'static str,
    pub bytes: u64,
    /// Unix seconds.
    #[serde(with = "timestamp")]
    #[schema(value_type = i64)]
    pub created_at: OffsetDateTime,
    /// Time after which it is deleted, unless a job that has not ended needs it; `null` for never.
    #[serde(with = "timestamp::option")]
    #[schema(value_type = Option<i64>)]
    pub expires_at: Option<OffsetDateTime>,
    pub filename: String,
    pub purpose: Purpose,
    pub status: FileStatus,
    /// Why it cannot be used, in one sentence; the report lists everything.
    pub status_details: Option<String>,
    /// SHA-256 of the content, lower-case hex; `null` while there is none.
    pub sha256: Option<String>,
    /// Summary of a validated data set.
    pub dataset: Option<Dataset>,
    /// State of the thumbnails of its samples.
    pub thumbnails: ThumbnailStatus,
    /// The data set that it was made from by corrections, which may be deleted by now; `null` for
    /// any other file.
    pub corrected_from: Option<FileId>,
}

words! {
    /// The state of a data set's thumbnails.
    pub enum ThumbnailStatus {
        /// There are none: it is not validated yet, or was before there were thumbnails; or it is
        /// no data set. `POST /v1/files/{id}/thumbnails` has a worker make those of a data set.
        None = "none",
        /// A worker makes them.
        Queued = "queued",
        Ready = "ready",
        /// Making them crashed too often.
        Failed = "failed",
    }
}

impl ThumbnailStatus {
    fn of(is_ready: bool, is_queued: bool, has_failed: bool) -> Self {
        match (is_ready, is_queued, has_failed) {
            (true, ..) => Self::Ready,
            (_, true, _) => Self::Queued,
            (.., true) => Self::Failed,
            _ => Self::None,
        }
    }
}

/// Key of a file's bytes in the object store.
pub fn content_key(id: FileId) -> String {
    prefix(id) + CONTENT
}

impl File {
    /// The uploaded bytes; `None` until they are downloaded.
    pub fn content(&self) -> Option<Descriptor> {
        let sha256 = self.sha256.clone()?;
        Some(content(self.id, self.bytes, sha256))
    }
}

fn content(id: FileId, bytes: u64, sha256: String) -> Descriptor {
    let entry = ManifestEntry { bytes, sha256 };
    Descriptor::new(format!("file `{id}`"), &prefix(id), CONTENT, &entry)
}

/// The result of `delete`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// The row is gone; its objects are the caller's to delete.
    Yes,
    NotFound,
    /// This job, not ended yet, needs it.
    InUseByJob(JobId),
    /// An import that has not ended reads it.
    InUseByImport,
    /// This data set is being made from it.
    InUseByFile(FileId),
}

/// A query for files: their columns, read here only, between the two parts of a statement, with its
/// bindings.
macro_rules! query_files {
    ($head:literal, $tail:literal, $($bindings:tt)+) => {
        sqlx::query!(
            $head
                + r#" id, filename, purpose, bytes, sha256, status, status_details, dataset as "dataset: Json<Dataset>",
                created_at, expires_at, corrected_from, thumbnails_failed,
                thumbnails_bytes is not null as "has_thumbnails!",
                exists (select from work w where w.kind = 'thumbnails' and w.subject = id) as "makes_thumbnails!" "# + $tail,
            $($bindings)+
        )
        .try_map(|row| {
            Ok(File {
                id: FileId(row.id),
                object: "file",
                bytes: convert::to_count(row.bytes),
                created_at: row.created_at,
                expires_at: row.expires_at,
                filename: row.filename,
                purpose: convert::parse("files.purpose", &row.purpose)?,
                status: convert::parse("files.status", &row.status)?,
                status_details: row.status_details,
                sha256: row.sha256,
                dataset: row.dataset.map(|dataset| dataset.0),
                thumbnails: ThumbnailStatus::of(
                    row.has_thumbnails,
                    row.makes_thumbnails,
                    row.thumbnails_failed,
                ),
                corrected_from: row.corrected_from.map(FileId),
            })
        })
    };
}

/// Adds a file, or finds the one that its idempotency key made.
pub async fn insert(pool: &PgPool, file: &NewFile) -> sqlx::Result<Keyed<File>> {
    if let Some(inserted) = insert_row(pool, file).await? {
        return Ok(Keyed::New(inserted));
    }
    let (key, body_sha256) = idempotency::columns(file.idempotency.as_ref());
    let same = query_files!(
        "select",
        "from files where tenant_id = $1 and idempotency_key = $2 and body_sha256 = $3",
        file.tenant.0,
        key,
        body_sha256
    );
    let same = same.fetch_optional(pool).await?;
    Ok(same.map_or(Keyed::KeyConflict, Keyed::Replayed))
}

/// Adds a file: `uploaded` when it is a data set, which a worker then validates; `processed` when
/// it is weights. `None`: its idempotency key is taken.
pub(super) async fn insert_row(
    executor: impl PgExecutor<'_>,
    file: &NewFile,
) -> sqlx::Result<Option<File>> {
    let status = match file.purpose {
        Purpose::FineTune => FileStatus::Uploaded,
        Purpose::Weights | Purpose::FineTuneResults => FileStatus::Processed,
    };
    let (key, body_sha256) = idempotency::columns(file.idempotency.as_ref());
    query_files!(
        "with file as (
            insert into files (id, tenant_id, filename, purpose, bytes, sha256, status, expires_at, idempotency_key, body_sha256)
            values ($1, $2, $3, $4, $5, $6, $7, now() + make_interval(secs => $8), $9, $10)
            on conflict (tenant_id, idempotency_key) do nothing returning *
        ), validation as (
            insert into work (kind, subject, tenant_id) select 'validate', id, tenant_id from file where status = 'uploaded'
        )
        select",
        "from file",
        file.id.0,
        file.tenant.0,
        file.filename,
        file.purpose.as_str(),
        convert::from_count(file.bytes),
        file.sha256,
        status.as_str(),
        file.lifetime.map(|lifetime| lifetime.as_secs_f64()),
        key,
        body_sha256
    )
    .fetch_optional(executor)
    .await
}

/// Size of all files of a tenant, and of the parts of its uploads that have not ended.
pub async fn stored_bytes(pool: &PgPool, tenant: TenantId) -> sqlx::Result<u64> {
    let bytes = sqlx::query_scalar!(
        r#"select (select coalesce(sum(bytes), 0) from files where tenant_id = $1)::bigint
            + (select coalesce(sum(p.bytes), 0) from uploads u join upload_parts p on p.upload_id = u.id
                where u.tenant_id = $1 and u.status = 'pending')::bigint as "bytes!""#,
        tenant.0
    );
    bytes.fetch_one(pool).await.map(convert::to_count)
}

pub async fn get(pool: &PgPool, tenant: TenantId, id: FileId) -> sqlx::Result<Option<File>> {
    query_files!(
        "select",
        "from files where id = $1 and tenant_id = $2",
        id.0,
        tenant.0
    )
    .fetch_optional(pool)
    .await
}

/// SHA-256 of a validated data set's pack, lower-case hex.
pub async fn pack_sha256(
    pool: &PgPool,
    tenant: TenantId,
    id: FileId,
) -> sqlx::Result<Option<String>> {
    let sha256 = sqlx::query_scalar!(
        "select pack_sha256 from files where id = $1 and tenant_id = $2",
        id.0,
        tenant.0
    );
    Ok(sha256.fetch_optional(pool).await?.flatten())
}

/// The uploaded bytes of a file, of any tenant: for the worker that reads them. `None` when it was
/// deleted meanwhile.
pub async fn upload(pool: &PgPool, id: FileId) -> sqlx::Result<Option<Descriptor>> {
    let row = sqlx::query!("select bytes, sha256 from files where id = $1", id.0);
    let row = row.fetch_optional(pool).await?;
    Ok(row.and_then(|row| Some(content(id, convert::to_count(row.bytes), row.sha256?))))
}

pub async fn list(
    pool: &PgPool,
    tenant: TenantId,
    page: Page<FileId>,
    purpose: Option<Purpose>,
) -> sqlx::Result<Slice<File>> {
    let files = query_files!(
        "select",
        "from files
        where tenant_id = $1 and ($2::text is null or purpose = $2)
            and ($3::uuid is null or case when $4 then id < $3 else id > $3 end)
        order by case when $4 then id end desc, case when not $4 then id end limit $5",
        tenant.0,
        purpose.map(Purpose::as_str),
        page.after.map(|id| id.0),
        page.descending,
        i64::from(page.limit) + 1
    );
    let classes = |file: &File| {
        let dataset = file.dataset.as_ref();
        dataset.map_or(0, |dataset| dataset.classes.len())
    };
    Slice::read(files.fetch(pool), page.limit, classes).await
}

/// The report of a file's validation. Returns `None` if there is no such file, `Some(None)` while
/// validation has not ended.
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

/// Deletes the row, unless a job or import that has not ended needs it.
pub async fn delete(pool: &PgPool, tenant: TenantId, id: FileId) -> sqlx::Result<Deleted> {
    // The row is locked first. `jobs::create` and `models::insert_importing` lock it too, so
    // neither can add a use of it.
    let mut transaction = super::begin(pool).await?;
    let deleted = delete_locked(&mut transaction, tenant, id).await?;
    // A dropped transaction would keep its locks until its connection is used again.
    transaction.commit().await?;
    Ok(deleted)
}

async fn delete_locked(
    transaction: &mut PgConnection,
    tenant: TenantId,
    id: FileId,
) -> sqlx::Result<Deleted> {
    // Its work before the file itself, in the order in which `accept` locks them.
    sqlx::query!(
        "select from work where kind in ('validate', 'download', 'thumbnails', 'correct') and subject = $1 for update",
        id.0
    )
    .execute(&mut *transaction)
    .await?;
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
    let made = sqlx::query_scalar!(
        "select id from files where tenant_id = $1 and status = 'uploaded' and corrected_from = $2 limit 1",
        tenant.0,
        id.0
    );
    if let Some(made) = made.fetch_optional(&mut *transaction).await? {
        return Ok(Deleted::InUseByFile(FileId(made)));
    }
    sqlx::query!(
        "with work as (
            delete from work where kind in ('validate', 'download', 'thumbnails', 'correct') and subject = $1
        )
        delete from files where id = $1",
        id.0
    )
    .execute(&mut *transaction)
    .await?;
    Ok(Deleted::Yes)
}

/// Files whose time is over, except those that a job or import that has not ended needs.
pub async fn expired(pool: &PgPool) -> sqlx::Result<Vec<FileId>> {
    let ids = sqlx::query_scalar!(
        "select f.id from files f
        where f.expires_at <= now()
            and not exists (select from jobs j where j.tenant_id = f.tenant_id and j.finished_at is null
                and f.id in (j.training_file, j.validation_file))
            and not exists (select from models m where m.tenant_id = f.tenant_id and m.status = 'importing'
                and m.weights_file = f.id)
            and not exists (select from files made where made.status = 'uploaded' and made.corrected_from = f.id)
        order by f.expires_at"
    );
    Ok(ids.fetch_all(pool).await?.into_iter().map(FileId).collect())
}

/// Deletes the row of a file whose time is over. Returns `false` if a job or import needs it, or it
/// is gone.
pub async fn delete_expired(pool: &PgPool, id: FileId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select delete_expired_file($1) as "deleted!""#, id.0)
        .fetch_one(pool)
        .await
}

/// The stored results of a validation.
#[derive(Debug, Clone)]
pub struct Validated {
    /// `dataset` is set.
    pub report: FileReport,
    pub pack: ManifestEntry,
    pub thumbnails_bytes: u64,
}

/// Marks a data set as usable; its pack and thumbnails are in the object store. `false`: the lease
/// is lost.
pub async fn accept(pool: &PgPool, lease: &Lease, validated: &Validated) -> sqlx::Result<bool> {
    end_work!(
        pool,
        lease,
        "validate",
        " update files f set status = 'processed', status_details = null, dataset = $4, report = $5,
            pack_sha256 = $6, pack_bytes = $7, thumbnails_bytes = $8
        from lease where f.id = lease.subject",
        validated.report.dataset.as_ref().map(Json) as Option<Json<&Dataset>>,
        Json(&validated.report) as Json<&FileReport>,
        validated.pack.sha256,
        convert::from_count(validated.pack.bytes),
        convert::from_count(validated.thumbnails_bytes)
    )
    .await
}

/// Marks a data set as unusable: `report.errors` holds the reasons, `details` one sentence.
/// `false`: the lease is lost.
pub async fn refuse(
    pool: &PgPool,
    lease: &Lease,
    report: &FileReport,
    details: &str,
) -> sqlx::Result<bool> {
    end_work!(
        pool,
        lease,
        "validate",
        " update files f set status = 'error', report = $4, status_details = $5
        from lease where f.id = lease.subject",
        Json(report) as Json<&FileReport>,
        details
    )
    .await
}

/// Marks a data set as unusable because its validation crashed too often.
pub async fn give_up(pool: &PgPool, lease: &Lease) -> sqlx::Result<bool> {
    let details = format!(
        "validation crashed or timed out {MAX_CRASHES} times; check that every image opens, then upload the file again"
    );
    let problem = Problem::new("", "validation_crashed", details.as_str());
    let report = FileReport::refused(vec![problem]);
    refuse(pool, lease, &report, &details).await
}
