//! Uploads in parts. An upload is `pending` until it is completed, cancelled or expired, once; all
//! writes say so in their condition, so that of two requests that end it one wins.

use std::time::Duration;

use sqlx::{PgPool, Postgres, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    convert, files,
    files::{File, NewFile},
    idempotency::{self, Idempotency, Keyed},
    tenants::TenantId,
};
use crate::domain::{
    file::{Purpose, UploadStatus},
    id::{FileId, PartId, UploadId},
};

/// Time for which an upload that has ended is kept after its expiry: its completion can be asked
/// for again.
const KEPT: Duration = Duration::from_secs(86_400);

/// An upload to create.
#[derive(Debug, Clone)]
pub struct NewUpload {
    pub id: UploadId,
    pub tenant: TenantId,
    pub filename: String,
    pub purpose: Purpose,
    /// Size of the whole file.
    pub bytes: u64,
    /// Lifetime of the file.
    pub file_lifetime: Option<Duration>,
    /// Time in which it must be completed.
    pub expires_after: Duration,
    pub idempotency: Option<Idempotency>,
}

/// An upload.
#[derive(Debug, Clone)]
pub struct Upload {
    pub id: UploadId,
    pub bytes: u64,
    pub filename: String,
    pub purpose: Purpose,
    pub status: UploadStatus,
    pub file_lifetime: Option<Duration>,
    /// The parts that completed it, in order.
    pub completed_with: Option<Vec<PartId>>,
    pub file: Option<FileId>,
    pub created_at: OffsetDateTime,
    pub expires_at: OffsetDateTime,
}

/// The result of `insert`.
#[derive(Debug, Clone)]
pub enum Created {
    Upload(Keyed<Upload>),
    /// The tenant has as many pending uploads as allowed.
    TooMany,
}

/// A part whose bytes are in the object store.
#[derive(Debug, Clone)]
pub struct NewPart {
    pub id: PartId,
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
    pub idempotency_key: Option<String>,
}

/// A part of an upload.
#[derive(Debug, Clone)]
pub struct Part {
    pub id: PartId,
    pub upload: UploadId,
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
    pub created_at: OffsetDateTime,
}

/// Limits on the parts of one upload.
#[derive(Debug, Clone, Copy)]
pub struct PartLimits {
    pub parts: u32,
    /// Size of all parts, also of those that were sent again.
    pub bytes: u64,
}

/// The result of `add_part`.
#[derive(Debug, Clone)]
pub enum Added {
    Part(Keyed<Part>),
    /// The upload has ended, or has as many parts or bytes as allowed.
    Refused,
}

/// A query for uploads: their columns, read here only, between the two parts of a statement, with
/// its bindings. One whose time is over is `expired`, swept or not.
macro_rules! query_uploads {
    ($head:literal, $tail:literal, $($bindings:tt)+) => {
        sqlx::query!(
            $head
                + r#" id, bytes, filename, purpose, extract(epoch from file_lifetime)::bigint as file_lifetime,
                case when status = 'pending' and expires_at <= now() then 'expired' else status end as "status!",
                completed_with, file_id, created_at, expires_at "# + $tail,
            $($bindings)+
        )
        .try_map(|row| {
            Ok(Upload {
                id: UploadId(row.id),
                bytes: convert::to_count(row.bytes),
                filename: row.filename,
                purpose: convert::parse("uploads.purpose", &row.purpose)?,
                status: convert::parse("uploads.status", &row.status)?,
                file_lifetime: row.file_lifetime.map(convert::to_count).map(Duration::from_secs),
                completed_with: row.completed_with.map(|parts| parts.into_iter().map(PartId).collect()),
                file: row.file_id.map(FileId),
                created_at: row.created_at,
                expires_at: row.expires_at,
            })
        })
    };
}

/// Adds an upload, or finds the one that its idempotency key made. Concurrent requests may exceed
/// `max_pending` by a few.
pub async fn insert(pool: &PgPool, upload: &NewUpload, max_pending: u32) -> sqlx::Result<Created> {
    let (key, body_sha256) = idempotency::columns(upload.idempotency.as_ref());
    let inserted = query_uploads!(
        "with upload as (
            insert into uploads (id, tenant_id, filename, purpose, bytes, file_lifetime, idempotency_key, body_sha256, expires_at)
            select $1, $2, $3, $4, $5, make_interval(secs => $6), $7, $8, now() + make_interval(secs => $9)
            where $10 > (select count(*) from uploads where tenant_id = $2 and status = 'pending' and expires_at > now())
            on conflict (tenant_id, idempotency_key) do nothing returning *
        )
        select",
        "from upload",
        upload.id.0,
        upload.tenant.0,
        upload.filename,
        upload.purpose.as_str(),
        convert::from_count(upload.bytes),
        upload.file_lifetime.map(|lifetime| lifetime.as_secs_f64()),
        key,
        body_sha256,
        upload.expires_after.as_secs_f64(),
        i64::from(max_pending)
    );
    if let Some(inserted) = inserted.fetch_optional(pool).await? {
        return Ok(Created::Upload(Keyed::New(inserted)));
    }
    let Some(idempotency) = &upload.idempotency else {
        return Ok(Created::TooMany);
    };
    let earlier = sqlx::query!(
        "select id, body_sha256 from uploads where tenant_id = $1 and idempotency_key = $2",
        upload.tenant.0,
        idempotency.key
    );
    let Some(earlier) = earlier.fetch_optional(pool).await? else {
        return Ok(Created::TooMany);
    };
    if !idempotency.is_same(earlier.body_sha256.as_deref()) {
        return Ok(Created::Upload(Keyed::KeyConflict));
    }
    let earlier = get(pool, upload.tenant, UploadId(earlier.id)).await?;
    Ok(earlier.map_or(Created::TooMany, |upload| {
        Created::Upload(Keyed::Replayed(upload))
    }))
}

pub async fn get(pool: &PgPool, tenant: TenantId, id: UploadId) -> sqlx::Result<Option<Upload>> {
    query_uploads!(
        "select",
        "from uploads where id = $1 and tenant_id = $2",
        id.0,
        tenant.0
    )
    .fetch_optional(pool)
    .await
}

/// Adds a part to a pending upload, or finds the one that its idempotency key made.
pub async fn add_part(
    pool: &PgPool,
    tenant: TenantId,
    upload: UploadId,
    part: &NewPart,
    limits: PartLimits,
) -> sqlx::Result<Added> {
    let mut transaction = super::begin(pool).await?;
    // The row is locked first, so that parts which arrive together are counted one by one.
    let counted = sqlx::query!(
        "update uploads set parts = parts + 1, part_bytes = part_bytes + $3
        where id = $1 and tenant_id = $2 and status = 'pending' and expires_at > now() and parts < $4
            and part_bytes + $3 <= $5",
        upload.0,
        tenant.0,
        convert::from_count(part.bytes),
        convert::from_small(limits.parts),
        convert::from_count(limits.bytes)
    );
    let counted = counted.execute(&mut *transaction).await?.rows_affected() > 0;
    let added = match counted {
        true => insert_part(&mut transaction, upload, part).await?,
        false => None,
    };
    if let Some(added) = added {
        transaction.commit().await?;
        return Ok(Added::Part(Keyed::New(added)));
    }
    transaction.rollback().await?;
    let earlier = sqlx::query!(
        "select p.id, p.bytes, p.sha256, p.created_at from upload_parts p join uploads u on u.id = p.upload_id
        where p.upload_id = $1 and u.tenant_id = $2 and p.idempotency_key = $3",
        upload.0,
        tenant.0,
        part.idempotency_key
    );
    Ok(match earlier.fetch_optional(pool).await? {
        None => Added::Refused,
        Some(row) if row.sha256 == part.sha256 => Added::Part(Keyed::Replayed(Part {
            id: PartId(row.id),
            upload,
            bytes: convert::to_count(row.bytes),
            sha256: row.sha256,
            created_at: row.created_at,
        })),
        Some(_) => Added::Part(Keyed::KeyConflict),
    })
}

/// Adds the row of a part; `None` when its idempotency key is taken.
async fn insert_part(
    transaction: &mut Transaction<'_, Postgres>,
    upload: UploadId,
    part: &NewPart,
) -> sqlx::Result<Option<Part>> {
    let created_at = sqlx::query_scalar!(
        "insert into upload_parts (id, upload_id, bytes, sha256, idempotency_key) values ($1, $2, $3, $4, $5)
        on conflict (upload_id, idempotency_key) do nothing returning created_at",
        part.id.0,
        upload.0,
        convert::from_count(part.bytes),
        part.sha256,
        part.idempotency_key
    );
    let created_at = created_at.fetch_optional(&mut **transaction).await?;
    Ok(created_at.map(|created_at| Part {
        id: part.id,
        upload,
        bytes: part.bytes,
        sha256: part.sha256.clone(),
        created_at,
    }))
}

/// Those of these parts that the upload has, in the order of `ids`.
pub async fn parts(pool: &PgPool, upload: UploadId, ids: &[PartId]) -> sqlx::Result<Vec<Part>> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    sqlx::query!(
        "select p.id, p.bytes, p.sha256, p.created_at
        from unnest($2::uuid[]) with ordinality as asked (id, place)
        join upload_parts p on p.id = asked.id and p.upload_id = $1 order by asked.place",
        upload.0,
        &ids
    )
    .map(|row| Part {
        id: PartId(row.id),
        upload,
        bytes: convert::to_count(row.bytes),
        sha256: row.sha256,
        created_at: row.created_at,
    })
    .fetch_all(pool)
    .await
}

/// Completes a pending upload: its file, whose bytes are in the object store, gets its row.
/// `None`: the upload has ended otherwise.
pub async fn complete(
    pool: &PgPool,
    upload: UploadId,
    parts: &[PartId],
    file: &NewFile,
) -> sqlx::Result<Option<File>> {
    let parts: Vec<Uuid> = parts.iter().map(|id| id.0).collect();
    let mut transaction = super::begin(pool).await?;
    let completed = sqlx::query!(
        "update uploads set status = 'completed', completed_with = $3, file_id = $4
        where id = $1 and tenant_id = $2 and status = 'pending'",
        upload.0,
        file.tenant.0,
        &parts,
        file.id.0
    );
    let completed = completed.execute(&mut *transaction).await?.rows_affected() > 0;
    let file = match completed {
        true => files::insert_row(&mut *transaction, file).await?,
        false => None,
    };
    // A dropped transaction would keep its locks until its connection is used again.
    match &file {
        Some(_) => transaction.commit().await?,
        None => transaction.rollback().await?,
    }
    Ok(file)
}

/// Cancels a pending upload. Returns `false` if it has ended.
pub async fn cancel(pool: &PgPool, tenant: TenantId, id: UploadId) -> sqlx::Result<bool> {
    let cancelled = sqlx::query!(
        "update uploads set status = 'cancelled'
        where id = $1 and tenant_id = $2 and status = 'pending' and expires_at > now()",
        id.0,
        tenant.0
    );
    Ok(cancelled.execute(pool).await?.rows_affected() > 0)
}

/// Pending uploads whose time is over.
pub async fn expired(pool: &PgPool) -> sqlx::Result<Vec<UploadId>> {
    let ids = sqlx::query_scalar!(
        "select id from uploads where status = 'pending' and expires_at <= now() order by id"
    );
    Ok(ids
        .fetch_all(pool)
        .await?
        .into_iter()
        .map(UploadId)
        .collect())
}

/// Ends a pending upload whose time is over. Returns `false` if it has ended before.
pub async fn expire(pool: &PgPool, id: UploadId) -> sqlx::Result<bool> {
    let expired = sqlx::query!(
        "update uploads set status = 'expired' where id = $1 and status = 'pending' and expires_at <= now()",
        id.0
    );
    Ok(expired.execute(pool).await?.rows_affected() > 0)
}

/// Deletes uploads that ended long ago.
pub async fn forget(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query!(
        "delete from uploads where status <> 'pending' and expires_at < now() - make_interval(secs => $1)",
        KEPT.as_secs_f64()
    )
    .execute(pool)
    .await?;
    Ok(())
}
