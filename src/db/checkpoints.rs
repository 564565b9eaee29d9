//! Checkpoints: committed by `queue::commit_checkpoint`, listed and read by the API, thinned out by the worker.

use sqlx::{PgPool, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Page, Slice, convert, tenants::TenantId, work::under_lease};
use crate::domain::{
    checkpoint::Metrics,
    id::{CheckpointId, JobId},
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
    /// Of the evaluation at this step, where there was one.
    pub metrics: Option<Metrics>,
    /// Whether it was the best when it was saved.
    pub best: bool,
    pub created_at: OffsetDateTime,
}

/// A job's checkpoints, by step.
pub async fn list(
    pool: &PgPool,
    tenant: TenantId,
    job: JobId,
    page: Page<CheckpointId>,
) -> sqlx::Result<Slice<Checkpoint>> {
    let rows = sqlx::query_as!(
        CheckpointRow,
        r#"select c.id, c.job_id, c.token, c.step, c.epoch, c.objects, c.bytes, c.manifest_sha256,
            c.metrics as "metrics: Json<Metrics>", c.best, c.created_at
        from checkpoints c join jobs j on j.id = c.job_id left join checkpoints cursor on cursor.id = $3
        where c.job_id = $1 and j.tenant_id = $2 and c.state = 'committed'
            and ($3::uuid is null or case when $4 then (c.step, c.token) < (cursor.step, cursor.token)
                else (c.step, c.token) > (cursor.step, cursor.token) end)
        order by case when $4 then -c.step else c.step end, case when $4 then -c.token else c.token end limit $5"#,
        job.0,
        tenant.0,
        page.after.map(|id| id.0),
        page.descending,
        i64::from(page.limit) + 1
    )
    .fetch_all(pool)
    .await?;
    Ok(Slice::of(
        rows.into_iter().map(Checkpoint::from).collect(),
        page.limit,
    ))
}

pub async fn get(
    pool: &PgPool,
    tenant: TenantId,
    id: CheckpointId,
) -> sqlx::Result<Option<Checkpoint>> {
    let row = sqlx::query_as!(
        CheckpointRow,
        r#"select c.id, c.job_id, c.token, c.step, c.epoch, c.objects, c.bytes, c.manifest_sha256,
            c.metrics as "metrics: Json<Metrics>", c.best, c.created_at
        from checkpoints c join jobs j on j.id = c.job_id
        where c.id = $1 and j.tenant_id = $2 and c.state = 'committed'"#,
        id.0,
        tenant.0
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(Checkpoint::from))
}

/// The checkpoint that the next attempt goes on from.
pub async fn latest(pool: &PgPool, job: JobId) -> sqlx::Result<Option<Checkpoint>> {
    let row = sqlx::query_as!(
        CheckpointRow,
        r#"select c.id, c.job_id, c.token, c.step, c.epoch, c.objects, c.bytes, c.manifest_sha256,
            c.metrics as "metrics: Json<Metrics>", c.best, c.created_at
        from checkpoints c where c.job_id = $1 and c.state = 'committed' order by c.step desc, c.token desc limit 1"#,
        job.0
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(Checkpoint::from))
}

/// Marks a checkpoint whose objects do not match its manifest, under the lease; answers the one before it.
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

/// Takes all but the last two and the best out of the job's list, under the lease. The caller deletes their objects,
/// then calls `forget`.
pub async fn supersede(pool: &PgPool, job: JobId, token: i64) -> sqlx::Result<Vec<Checkpoint>> {
    let mut transaction = pool.begin().await?;
    // A job that is being created holds what it goes on from: the statement after this one sees it.
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
    let rows = under_lease!(
        query_as<CheckpointRow>,
        "train",
        r#" update checkpoints c set state = 'deleting' from lease
        where c.job_id = lease.subject and c.state = 'committed' and c.id not in (select kept_checkpoints($1))
            -- What another job is to go on from stays until that one has ended.
            and not exists (select from jobs live where live.parent_checkpoints @> array[c.id] and live.finished_at is null
                and live.parent_checkpoints <> '{}')
        returning c.id, c.job_id, c.token, c.step, c.epoch, c.objects, c.bytes, c.manifest_sha256,
            c.metrics as "metrics: Json<Metrics>", c.best, c.created_at"#,
        job.0,
        token
    )
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(rows.into_iter().map(Checkpoint::from).collect())
}

/// Removes the row of a checkpoint whose objects are gone.
pub async fn forget(pool: &PgPool, id: CheckpointId) -> sqlx::Result<()> {
    sqlx::query!(
        "delete from checkpoints where id = $1 and state = 'deleting'",
        id.0
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// A row as Postgres has it.
pub(super) struct CheckpointRow {
    pub(super) id: Uuid,
    pub(super) job_id: Uuid,
    pub(super) token: i64,
    pub(super) step: i64,
    pub(super) epoch: i32,
    pub(super) objects: String,
    pub(super) bytes: i64,
    pub(super) manifest_sha256: String,
    pub(super) metrics: Option<Json<Metrics>>,
    pub(super) best: bool,
    pub(super) created_at: OffsetDateTime,
}

impl From<CheckpointRow> for Checkpoint {
    fn from(row: CheckpointRow) -> Self {
        Self {
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
        }
    }
}
