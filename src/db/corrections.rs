//! Data sets that workers make of others: work of kind `correct`.

use sqlx::{PgConnection, PgPool, types::Json};
use uuid::Uuid;

use super::{
    convert,
    files::{self, File, Validated},
    idempotency::{self, Idempotency, Keyed},
    tenants::TenantId,
    thumbnails,
    work::{Lease, MAX_CRASHES, end_work},
};
use crate::domain::{
    checkpoint::ManifestEntry,
    corrections::Corrections,
    file::{Dataset, FileReport},
    id::FileId,
    object::Descriptor,
    problem::Problem,
};

/// A data set to make.
#[derive(Debug, Clone)]
pub struct NewCorrection {
    pub id: FileId,
    pub tenant: TenantId,
    /// The data set that it is made from.
    pub from: FileId,
    pub filename: String,
    pub corrections: Corrections,
    pub idempotency: Option<Idempotency>,
    /// One sentence for `status_details` meanwhile.
    pub details: String,
}

/// The result of `insert`.
#[derive(Debug, Clone)]
pub enum Inserted {
    File(Box<Keyed<File>>),
    /// The data set that it was to be made from was deleted.
    Gone,
    /// As many of the tenant as allowed have not ended.
    TooMany,
}

/// Adds a file, and its making to the queue of work; or finds the one that its idempotency key
/// made.
pub async fn insert(
    pool: &PgPool,
    correction: &NewCorrection,
    limit: u32,
) -> sqlx::Result<Inserted> {
    let mut transaction = super::begin(pool).await?;
    let inserted = insert_within(&mut transaction, correction, limit).await?;
    transaction.commit().await?;
    if let Some(refused) = inserted {
        // The key may have made one before.
        let made = made_by_key(pool, correction).await?;
        return Ok(made.map_or(refused, |made| Inserted::File(Box::new(made))));
    }
    let file = files::get(pool, correction.tenant, correction.id).await?;
    Ok(file.map_or(Inserted::Gone, |file| {
        Inserted::File(Box::new(Keyed::New(file)))
    }))
}

/// Adds the file. `Some`: why not.
async fn insert_within(
    transaction: &mut PgConnection,
    correction: &NewCorrection,
    limit: u32,
) -> sqlx::Result<Option<Inserted>> {
    // Others of the tenant wait until this one is counted.
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended('corrections', $1))",
        correction.tenant.0
    )
    .execute(&mut *transaction)
    .await?;
    let from = sqlx::query_scalar!(
        "select id from files where id = $1 and tenant_id = $2 and status = 'processed' for key share",
        correction.from.0,
        correction.tenant.0
    );
    if from.fetch_optional(&mut *transaction).await?.is_none() {
        return Ok(Some(Inserted::Gone));
    }
    let (key, body_sha256) = idempotency::columns(correction.idempotency.as_ref());
    let inserted = sqlx::query!(
        "with file as (
            insert into files (id, tenant_id, filename, purpose, bytes, status, status_details, corrected_from, corrections,
                idempotency_key, body_sha256)
            select $1, $2, $3, 'fine-tune', 0, 'uploaded', $4, $5, $6, $8, $9
            where (select count(*) from work where kind = 'correct' and tenant_id = $2) < $7
            on conflict (tenant_id, idempotency_key) do nothing
            returning id, tenant_id
        )
        insert into work (kind, subject, tenant_id) select 'correct', id, tenant_id from file",
        correction.id.0,
        correction.tenant.0,
        correction.filename,
        correction.details,
        correction.from.0,
        Json(&correction.corrections) as Json<&Corrections>,
        i64::from(limit),
        key,
        body_sha256
    );
    let is_new = inserted.execute(transaction).await?.rows_affected() == 1;
    Ok((!is_new).then_some(Inserted::TooMany))
}

/// The result of an earlier request with this idempotency key; `None` without one.
async fn made_by_key(
    pool: &PgPool,
    correction: &NewCorrection,
) -> sqlx::Result<Option<Keyed<File>>> {
    let Some(idempotency) = &correction.idempotency else {
        return Ok(None);
    };
    let earlier = sqlx::query!(
        "select id, body_sha256 from files where tenant_id = $1 and idempotency_key = $2",
        correction.tenant.0,
        idempotency.key
    );
    let Some(earlier) = earlier.fetch_optional(pool).await? else {
        return Ok(None);
    };
    if !idempotency.is_same(earlier.body_sha256.as_deref()) {
        return Ok(Some(Keyed::KeyConflict));
    }
    let file = files::get(pool, correction.tenant, FileId(earlier.id)).await?;
    Ok(file.map(Keyed::Replayed))
}

/// The source of a data set.
#[derive(Debug, Clone)]
pub struct ToCorrect {
    /// The pack of the data set before.
    pub pack: Descriptor,
    pub corrections: Corrections,
}

/// The source of a data set; `None` when it was deleted meanwhile. The data set before is not
/// deleted as long as this one waits.
pub async fn to_correct(pool: &PgPool, file: Uuid) -> sqlx::Result<Option<ToCorrect>> {
    let row = sqlx::query!(
        r#"select corrected_from as "from!", corrections as "corrections!: Json<Corrections>" from files
        where id = $1 and status = 'uploaded' and corrected_from is not null"#,
        file
    );
    let Some(row) = row.fetch_optional(pool).await? else {
        return Ok(None);
    };
    let pack = thumbnails::pack(pool, FileId(row.from)).await?;
    Ok(pack.map(|pack| ToCorrect {
        pack,
        corrections: row.corrections.0,
    }))
}

/// Marks a data set as made and validated; its content, pack and thumbnails are in the object
/// store. `false`: the lease is lost.
pub async fn accept(
    pool: &PgPool,
    lease: &Lease,
    content: &ManifestEntry,
    validated: &Validated,
) -> sqlx::Result<bool> {
    end_work!(
        pool,
        lease,
        "correct",
        " update files f set status = 'processed', status_details = null, dataset = $4, report = $5,
            pack_sha256 = $6, pack_bytes = $7, thumbnails_bytes = $8, bytes = $9, sha256 = $10
        from lease where f.id = lease.subject",
        validated.report.dataset.as_ref().map(Json) as Option<Json<&Dataset>>,
        Json(&validated.report) as Json<&FileReport>,
        validated.pack.sha256,
        convert::from_count(validated.pack.bytes),
        convert::from_count(validated.thumbnails_bytes),
        convert::from_count(content.bytes),
        content.sha256
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
        "correct",
        " update files f set status = 'error', report = $4, status_details = $5
        from lease where f.id = lease.subject",
        Json(report) as Json<&FileReport>,
        details
    )
    .await
}

/// Marks a data set as unusable because its making crashed too often.
pub async fn give_up(pool: &PgPool, lease: &Lease) -> sqlx::Result<bool> {
    let details = format!(
        "making the corrected data set crashed or timed out {MAX_CRASHES} times; upload the corrected images instead"
    );
    let problem = Problem::new("", "validation_crashed", details.as_str());
    refuse(pool, lease, &FileReport::refused(vec![problem]), &details).await
}
