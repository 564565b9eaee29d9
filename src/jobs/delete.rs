//! Deletes an ended job: its checkpoints leave the list, their objects go, then its rows. The model
//! that it made stays.

use anyhow::Context as _;
use sqlx::PgPool;

use crate::{
    db::{
        retention::{Deleted, begin_to_delete_job, forget_job},
        tenants::TenantId,
    },
    domain::id::JobId,
    objects::Objects,
};

/// Deletes an ended job.
///
/// # Errors
/// Database or object store cannot be written. Called again, it continues where it stopped.
pub async fn delete(
    pool: &PgPool,
    objects: &Objects,
    tenant: TenantId,
    job: JobId,
) -> anyhow::Result<Deleted> {
    let deleted = begin_to_delete_job(pool, tenant, job).await?;
    if deleted == Deleted::Begun {
        let prefix = format!("checkpoints/{}/", job.0.simple());
        objects.delete_prefix(&prefix).await?;
        forget_job(pool, tenant, job)
            .await
            .with_context(|| format!("cannot delete the rows of job `{job}`"))?;
    }
    Ok(deleted)
}
