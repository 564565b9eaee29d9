//! Where the samples of data sets and their thumbnails are stored, and the work that makes the
//! thumbnails of data sets that have none.

use sqlx::{PgPool, types::Json};
use uuid::Uuid;

use super::{
    convert,
    files::{PACK, prefix},
    tenants::TenantId,
    work::{Lease, end_work},
};
use crate::domain::{
    checkpoint::ManifestEntry,
    file::{Dataset, FileStatus, Purpose},
    id::FileId,
    object::Descriptor,
    sample_index::{RECORD_BYTES, THUMBNAILS},
};

/// Key of a data set's thumbnails in the object store.
pub fn key(id: FileId) -> String {
    prefix(id) + THUMBNAILS
}

/// Key of a data set's pack in the object store.
pub fn pack_key(id: FileId) -> String {
    prefix(id) + PACK
}

/// A file, as far as its samples are concerned.
#[derive(Debug, Clone)]
pub struct Samples {
    pub purpose: Purpose,
    pub status: FileStatus,
    /// `None` for a data set that is not validated, and for weights.
    pub stored: Option<Stored>,
}

/// The stored samples of a validated data set.
#[derive(Debug, Clone)]
pub struct Stored {
    pub samples: u64,
    /// Lower-case hex.
    pub pack_sha256: String,
    pub pack_bytes: u64,
    /// `None` where there are none.
    pub thumbnails_bytes: Option<u64>,
}

impl Stored {
    /// Where the records begin in the file of thumbnails; `None` without one.
    pub fn records(&self) -> Option<u64> {
        let records = self.samples.checked_mul(RECORD_BYTES as u64)?;
        self.thumbnails_bytes?.checked_sub(records)
    }
}

/// Finds the samples of a file.
pub async fn find(pool: &PgPool, tenant: TenantId, id: FileId) -> sqlx::Result<Option<Samples>> {
    let row = sqlx::query!(
        r#"select purpose, status, dataset as "dataset: Json<Dataset>", pack_sha256, pack_bytes, thumbnails_bytes
        from files where id = $1 and tenant_id = $2"#,
        id.0,
        tenant.0
    )
    .try_map(|row| {
        let packed = row.dataset.zip(row.pack_sha256).zip(row.pack_bytes);
        Ok(Samples {
            purpose: convert::parse("files.purpose", &row.purpose)?,
            status: convert::parse("files.status", &row.status)?,
            stored: packed.map(|((dataset, pack_sha256), pack_bytes)| Stored {
                samples: dataset.samples,
                pack_sha256,
                pack_bytes: convert::to_count(pack_bytes),
                thumbnails_bytes: row.thumbnails_bytes.map(convert::to_count),
            }),
        })
    });
    row.fetch_optional(pool).await
}

/// Adds the thumbnails of a validated data set to the queue of work, unless they are there.
pub async fn request(pool: &PgPool, tenant: TenantId, id: FileId) -> sqlx::Result<()> {
    sqlx::query!(
        "with file as (
            update files set thumbnails_failed = false
            where id = $1 and tenant_id = $2 and purpose = 'fine-tune' and status = 'processed'
                and thumbnails_bytes is null
            returning id, tenant_id
        )
        insert into work (kind, subject, tenant_id) select 'thumbnails', id, tenant_id from file on conflict do nothing",
        id.0,
        tenant.0
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The pack to make thumbnails of; `None` when the file was deleted meanwhile.
pub async fn to_make(pool: &PgPool, file: Uuid) -> sqlx::Result<Option<Descriptor>> {
    pack(pool, FileId(file)).await
}

/// The pack of a data set, of any tenant: for the worker that reads it.
pub(super) async fn pack(pool: &PgPool, id: FileId) -> sqlx::Result<Option<Descriptor>> {
    let row = sqlx::query!(
        r#"select pack_sha256 as "sha256!", pack_bytes as "bytes!" from files
        where id = $1 and pack_sha256 is not null and pack_bytes is not null"#,
        id.0
    );
    let row = row.fetch_optional(pool).await?;
    Ok(row.map(|row| {
        let entry = ManifestEntry {
            bytes: convert::to_count(row.bytes),
            sha256: row.sha256,
        };
        Descriptor::new(format!("file `{id}`"), &prefix(id), PACK, &entry)
    }))
}

/// Marks thumbnails as stored. `false`: the lease is lost.
pub async fn accept(pool: &PgPool, lease: &Lease, bytes: u64) -> sqlx::Result<bool> {
    end_work!(
        pool,
        lease,
        "thumbnails",
        " update files f set thumbnails_bytes = $4 from lease where f.id = lease.subject",
        convert::from_count(bytes)
    )
    .await
}

/// Ends the making of thumbnails that failed, or crashed too often.
pub async fn give_up(pool: &PgPool, lease: &Lease) -> sqlx::Result<bool> {
    end_work!(
        pool,
        lease,
        "thumbnails",
        " update files f set thumbnails_failed = true from lease where f.id = lease.subject",
    )
    .await
}
