//! Checkpoints: committed by `queue::commit_checkpoint`, listed and read by the API, superseded by
//! the worker, removed by garbage collection.

use std::time::Duration;

use sqlx::{PgPool, types::Json};
use time::OffsetDateTime;

use super::{Page, Slice, convert, tenants::TenantId, work::under_lease};
use crate::domain::{
    checkpoint::Metrics,
    id::{CheckpointId, JobId},
    object::{Descriptor, MANIFEST},
};

/// A committed checkpoint.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    pub id: CheckpointId,
    pub job: JobId,
    /// The attempt that saved it.
    pub token: i64,
    pub step: u64,
    pub epoch: u32,
    /// Prefix in the object store, with its last `/`.
    pub objects: String,
    pub bytes: u64,
    /// Lower-case hex.
    pub manifest_sha256: String,
    /// Metrics of the evaluation at this step, if there was one.
    pub metrics: Option<Metrics>,
    /// True when it was the best at the time it was saved.
    pub best: bool,
    pub created_at: OffsetDateTime,
}

impl Checkpoint {
    /// Its manifest, which has the hashes of its other files.
    pub fn manifest(&self) -> Descriptor {
        let owner = format!("checkpoint `{}`", self.id);
        Descriptor::of_hash(owner, &self.objects, MANIFEST, &self.manifest_sha256)
    }
}

/// Objects of a checkpoint in the object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointObjects {
    pub id: CheckpointId,
    pub job: JobId,
    /// Prefix in the object store, with its last `/`.
    pub objects: String,
}

/// A query for checkpoints: their columns, read here only, and the rest of the statement with its
/// bindings.
macro_rules! query_checkpoints {
    ($tail:literal, $($bindings:tt)+) => {
        sqlx::query!(
            r#"select c.id, c.job_id, c.token, c.step, c.epoch, c.objects, c.bytes, c.manifest_sha256,
                c.metrics as "metrics: Json<Metrics>", c.best, c.created_at
            from checkpoints c "# + $tail,
            $($bindings)+
        )
        .map(|row| Checkpoint {
            id: CheckpointId(row.id),
            job: JobId(row.job_id),
            token: row.token,
            step: convert::to_count(row.step),
            epoch: convert::to_small(row.epoch),
            objects: row.objects,
            bytes: convert::to_count(row.bytes),
            manifest_sha256: row.manifest_sha256,
            metrics: row.metrics.map(|metrics| metrics.0),
            best: row.best,
            created_at: row.created_at,
        })
    };
}

/// Checkpoints of a job, by step.
pub async fn list(
    pool: &PgPool,
    tenant: TenantId,
    job: JobId,
    page: Page<CheckpointId>,
) -> sqlx::Result<Slice<Checkpoint>> {
    let checkpoints = query_checkpoints!(
        "join jobs j on j.id = c.job_id left join checkpoints cursor on cursor.id = $3
        where c.job_id = $1 and j.tenant_id = $2 and c.state = 'committed'
            and ($3::uuid is null or case when $4 then (c.step, c.token) < (cursor.step, cursor.token)
                else (c.step, c.token) > (cursor.step, cursor.token) end)
        order by case when $4 then -c.step else c.step end, case when $4 then -c.token else c.token end limit $5",
        job.0,
        tenant.0,
        page.after.map(|id| id.0),
        page.descending,
        i64::from(page.limit) + 1
    );
    Ok(Slice::of(checkpoints.fetch_all(pool).await?, page.limit))
}

pub async fn get(
    pool: &PgPool,
    tenant: TenantId,
    id: CheckpointId,
) -> sqlx::Result<Option<Checkpoint>> {
    query_checkpoints!(
        "join jobs j on j.id = c.job_id where c.id = $1 and j.tenant_id = $2 and c.state = 'committed'",
        id.0,
        tenant.0
    )
    .fetch_optional(pool)
    .await
}

/// The checkpoint that the next attempt resumes from.
pub async fn latest(pool: &PgPool, job: JobId) -> sqlx::Result<Option<Checkpoint>> {
    query_checkpoints!(
        "where c.job_id = $1 and c.state = 'committed' order by c.step desc, c.token desc limit 1",
        job.0
    )
    .fetch_optional(pool)
    .await
}

/// Marks a checkpoint whose objects do not match its manifest, under the lease. Returns the one
/// before it.
pub async fn reject(
    pool: &PgPool,
    job: JobId,
    token: i64,
    bad: CheckpointId,
) -> sqlx::Result<Option<Checkpoint>> {
    under_lease!(query, "train", "
        update checkpoints c set state = 'bad' from lease where c.job_id = lease.subject and c.id = $3",
        job.0,
        token,
        bad.0
    )
    .execute(pool)
    .await?;
    latest(pool, job).await
}

/// Takes all but the last two and the best checkpoint out of a job's list, under the lease. The
/// caller deletes their objects, then calls `forget`.
pub async fn supersede(
    pool: &PgPool,
    job: JobId,
    token: i64,
) -> sqlx::Result<Vec<CheckpointObjects>> {
    let mut transaction = super::begin(pool).await?;
    // A job that is being created locks the checkpoints that it continues from: the next statement
    // sees it.
    under_lease!(
        query,
        "train",
        "
        select c.id from checkpoints c join lease on lease.subject = c.job_id
        where c.state = 'committed' and c.id not in (select kept_checkpoints($1)) for update of c",
        job.0,
        token
    )
    .fetch_all(&mut *transaction)
    .await?;
    let superseded = under_lease!(
        query_as <CheckpointObjects>,
        "train",
        "
        update checkpoints c set state = 'deleting' from lease
        where c.job_id = lease.subject and c.state = 'committed' and c.id not in (select kept_checkpoints($1))
            -- A checkpoint that another job continues from stays until that job has ended.
            and not exists (select from jobs live where live.parent_checkpoints @> array[c.id] and live.finished_at is null
                and live.parent_checkpoints <> '{}')
        returning c.id, c.job_id as job, c.objects",
        job.0,
        token
    )
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(superseded)
}

/// Checkpoints whose deletion was interrupted, and damaged ones of ended jobs.
pub async fn discarded(pool: &PgPool) -> sqlx::Result<Vec<CheckpointObjects>> {
    sqlx::query_as!(
        CheckpointObjects,
        "select c.id, c.job_id as job, c.objects from checkpoints c join jobs j on j.id = c.job_id
        where c.state = 'deleting' or (c.state = 'bad' and j.finished_at is not null) order by c.id",
    )
    .fetch_all(pool)
    .await
}

/// Listed checkpoints that are older than `age`.
pub async fn committed(pool: &PgPool, age: Duration) -> sqlx::Result<Vec<CheckpointObjects>> {
    sqlx::query_as!(
        CheckpointObjects,
        "select c.id, c.job_id as job, c.objects from checkpoints c
        where c.state = 'committed' and c.created_at < now() - make_interval(secs => $1) order by c.id",
        age.as_secs_f64()
    )
    .fetch_all(pool)
    .await
}

/// Removes the row of a superseded or damaged checkpoint whose objects are deleted.
pub async fn forget(pool: &PgPool, id: CheckpointId) -> sqlx::Result<()> {
    sqlx::query!(
        "delete from checkpoints where id = $1 and state in ('bad', 'deleting')",
        id.0
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Marks a checkpoint whose objects are missing. No attempt resumes from it any more.
pub async fn mark_bad(pool: &PgPool, id: CheckpointId) -> sqlx::Result<()> {
    sqlx::query!(
        "update checkpoints set state = 'bad' where id = $1 and state = 'committed'",
        id.0
    )
    .execute(pool)
    .await?;
    Ok(())
}
