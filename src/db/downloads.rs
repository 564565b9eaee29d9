//! Downloads: files that a worker fetches by URL. A file has no content until its download ends;
//! then a data set is validated, and base models that were registered with its URL are imported.

use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool, types::Json};
use uuid::Uuid;

use super::{
    convert,
    files::{self, File},
    idempotency::{self, Idempotency, Keyed},
    models::{self, Inserted, NewBaseModel},
    tenants::TenantId,
    work::{Lease, MAX_CRASHES, end_work},
};
use crate::domain::{
    file::{FileReport, Purpose},
    id::FileId,
    problem::Problem,
};

/// A file that is downloaded from one URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name in the tar of several; `None` where it is the whole file.
    pub name: Option<String>,
    pub url: String,
    /// Lower-case hex.
    pub sha256: Option<String>,
    /// Its size, which that of several has.
    pub bytes: Option<u64>,
}

/// A file to download.
#[derive(Debug, Clone)]
pub struct NewDownload {
    pub id: FileId,
    pub tenant: TenantId,
    pub url: String,
    pub filename: String,
    pub purpose: Purpose,
    /// SHA-256 that the content must have, lower-case hex.
    pub sha256: Option<String>,
    /// Files that become one tar; empty where `url` is the file.
    pub parts: Vec<Part>,
    pub idempotency: Option<Idempotency>,
    /// One sentence for `status_details` meanwhile.
    pub details: String,
}

/// Adds a file in status `downloading`, and its download to the queue of work; or finds the one
/// that its idempotency key made. `None`: `limit` downloads of the tenant have not ended.
pub async fn insert(
    pool: &PgPool,
    download: &NewDownload,
    limit: u32,
) -> sqlx::Result<Option<Keyed<File>>> {
    let mut transaction = super::begin(pool).await?;
    let inserted = insert_within(&mut transaction, download, limit).await?;
    transaction.commit().await?;
    if !inserted {
        return made_by_key(pool, download).await;
    }
    let file = files::get(pool, download.tenant, download.id).await?;
    Ok(file.map(Keyed::New))
}

/// The result of an earlier request with this download's idempotency key; `None` without one.
async fn made_by_key(pool: &PgPool, download: &NewDownload) -> sqlx::Result<Option<Keyed<File>>> {
    let Some(idempotency) = &download.idempotency else {
        return Ok(None);
    };
    let earlier = sqlx::query!(
        "select id, body_sha256 from files where tenant_id = $1 and idempotency_key = $2",
        download.tenant.0,
        idempotency.key
    );
    let Some(earlier) = earlier.fetch_optional(pool).await? else {
        return Ok(None);
    };
    if !idempotency.is_same(earlier.body_sha256.as_deref()) {
        return Ok(Some(Keyed::KeyConflict));
    }
    let file = files::get(pool, download.tenant, FileId(earlier.id)).await?;
    Ok(file.map(Keyed::Replayed))
}

/// Adds a base model whose weights are downloaded first. `None`: as `insert`.
pub async fn insert_with_model(
    pool: &PgPool,
    download: &NewDownload,
    model: &NewBaseModel,
    limit: u32,
) -> sqlx::Result<Option<Inserted>> {
    let mut transaction = super::begin(pool).await?;
    if !insert_within(&mut transaction, download, limit).await? {
        return Ok(None);
    }
    let inserted = match models::insert_importing_within(&mut transaction, model, true).await {
        Err(error) if models::is_key_taken(&error) => {
            transaction.rollback().await?;
            let mut connection = pool.acquire().await?;
            let made = models::made_by_key(&mut connection, model).await?;
            return made.map(Some).ok_or(error);
        }
        inserted => inserted?,
    };
    if inserted == Inserted::Yes {
        transaction.commit().await?;
    }
    Ok(Some(inserted))
}

async fn insert_within(
    transaction: &mut PgConnection,
    download: &NewDownload,
    limit: u32,
) -> sqlx::Result<bool> {
    // Others of the tenant wait until this one is counted.
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended('downloads', $1))",
        download.tenant.0
    )
    .execute(&mut *transaction)
    .await?;
    let (key, body_sha256) = idempotency::columns(download.idempotency.as_ref());
    let parts = (!download.parts.is_empty()).then_some(Json(&*download.parts));
    let inserted = sqlx::query!(
        "with file as (
            insert into files (id, tenant_id, filename, purpose, bytes, status, status_details, url, requested_sha256,
                idempotency_key, body_sha256, parts)
            select $1, $2, $3, $4, 0, 'downloading', $5, $6, $7, $9, $10, $11
            where (select count(*) from work where kind = 'download' and tenant_id = $2) < $8
            on conflict (tenant_id, idempotency_key) do nothing
            returning id, tenant_id
        )
        insert into work (kind, subject, tenant_id) select 'download', id, tenant_id from file",
        download.id.0,
        download.tenant.0,
        download.filename,
        download.purpose.as_str(),
        download.details,
        download.url,
        download.sha256,
        i64::from(limit),
        key,
        body_sha256,
        parts as Option<Json<&[Part]>>
    );
    Ok(inserted.execute(transaction).await?.rows_affected() == 1)
}

/// The files to download for one; `None` when it was deleted meanwhile.
pub async fn to_download(pool: &PgPool, file: Uuid) -> sqlx::Result<Option<Vec<Part>>> {
    let found = sqlx::query!(
        r#"select url as "url!", requested_sha256 as sha256, parts as "parts: Json<Vec<Part>>"
        from files where id = $1 and status = 'downloading'"#,
        file
    );
    let found = found.fetch_optional(pool).await?;
    Ok(found.map(|row| match row.parts {
        Some(parts) => parts.0,
        None => vec![Part {
            name: None,
            url: row.url,
            sha256: row.sha256,
            bytes: None,
        }],
    }))
}

/// Marks a file as stored, and queues what waited for it. `false`: the lease is lost.
pub async fn accept(pool: &PgPool, lease: &Lease, bytes: u64, sha256: &str) -> sqlx::Result<bool> {
    end_work!(
        pool,
        lease,
        "download",
        ", validation as (
            insert into work (kind, subject, tenant_id) select 'validate', f.id, f.tenant_id
            from files f join lease on lease.subject = f.id where f.purpose = 'fine-tune'
        ), import as (
            insert into work (kind, subject, tenant_id) select 'import', m.import_id, m.tenant_id
            from models m join lease on lease.subject = m.weights_file where m.status = 'importing'
        )
        update files f set status = case f.purpose when 'fine-tune' then 'uploaded' else 'processed' end,
            status_details = null, bytes = $4, sha256 = $5
        from lease where f.id = lease.subject",
        convert::from_count(bytes),
        sha256
    )
    .await
}

/// Marks a file as unusable, and base models that were to be imported from it. `false`: the lease
/// is lost.
pub async fn refuse(pool: &PgPool, lease: &Lease, problem: &Problem) -> sqlx::Result<bool> {
    let report = FileReport::refused(vec![problem.clone()]);
    let of_model = Problem {
        path: format!("weights.{}", problem.path),
        ..problem.clone()
    };
    end_work!(
        pool,
        lease,
        "download",
        ", model as (
            update models m set status = 'error', import_id = null, problems = $4 from lease
            where m.weights_file = lease.subject and m.status = 'importing'
        )
        update files f set status = 'error', status_details = $5, report = $6 from lease where f.id = lease.subject",
        Json([&of_model]) as Json<[&Problem; 1]>,
        problem.message,
        Json(&report) as Json<&FileReport>
    )
    .await
}

/// Marks a file as unusable because the workers that downloaded it died too often.
pub async fn give_up(pool: &PgPool, lease: &Lease) -> sqlx::Result<bool> {
    let message =
        format!("{MAX_CRASHES} workers ended during the download; try again, or upload the file");
    refuse(
        pool,
        lease,
        &Problem::new("url", "download_crashed", message),
    )
    .await
}
