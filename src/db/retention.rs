//! What may go: ended jobs that somebody deletes, objects that no row names, rows whose objects are gone.

use std::time::Duration;

use sqlx::PgPool;
use uuid::Uuid;

use super::{convert, tenants::TenantId};
use crate::domain::{
    id::{CheckpointId, JobId},
    job::JobStatus,
};

/// What became of the deletion of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// Its checkpoints are no longer listed; delete their objects, then call `forget_job`.
    Begun,
    NotEnded(JobStatus),
    /// This job, not ended yet, goes on from one of its checkpoints.
    InUse(JobId),
    NotFound,
}

/// A unit of objects, and the attempt that writes it, where one does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// With its last `/`.
    pub prefix: String,
    /// Job and token.
    pub attempt: Option<(Uuid, i64)>,
}

/// A checkpoint's row and its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub id: CheckpointId,
    pub job: JobId,
    /// Prefix in the object store, with its last `/`.
    pub objects: String,
}

/// Takes the checkpoints of an ended job out of its list.
pub async fn begin_to_delete_job(
    pool: &PgPool,
    tenant: TenantId,
    job: JobId,
) -> sqlx::Result<Deleted> {
    let mut transaction = pool.begin().await?;
    // A job that is being created holds what it goes on from: the statement after this one sees it.
    sqlx::query!(
        "with job as (select id from jobs where id = $1 and tenant_id = $2 for update)
        select c.id from checkpoints c join job on job.id = c.job_id for update of c",
        job.0,
        tenant.0
    )
    .fetch_all(&mut *transaction)
    .await?;
    let row = sqlx::query!(
        "with job as (select id, status, finished_at from jobs where id = $1 and tenant_id = $2 for update),
        live as (
            select l.id from checkpoints c join jobs l on l.parent_checkpoints @> array[c.id]
            where c.job_id = $1 and l.finished_at is null and l.parent_checkpoints <> '{}' limit 1
        ), checkpoint as (
            update checkpoints c set state = 'deleting' from job
            where c.job_id = job.id and job.finished_at is not null and not exists (select from live)
        )
        select status, (select id from live) as needed_by from job",
        job.0,
        tenant.0
    );
    let row = row.fetch_optional(&mut *transaction).await?;
    transaction.commit().await?;
    let Some(row) = row else {
        return Ok(Deleted::NotFound);
    };
    if let Some(job) = row.needed_by {
        return Ok(Deleted::InUse(JobId(job)));
    }
    let status = convert::status(&row.status)?;
    Ok(if status.is_terminal() {
        Deleted::Begun
    } else {
        Deleted::NotEnded(status)
    })
}

/// Deletes an ended job with its history. A model that it made stays. `false`: it was gone already.
pub async fn forget_job(pool: &PgPool, tenant: TenantId, job: JobId) -> sqlx::Result<bool> {
    let gone = sqlx::query!(
        "delete from jobs where id = $1 and tenant_id = $2 and finished_at is not null",
        job.0,
        tenant.0
    );
    Ok(gone.execute(pool).await?.rows_affected() > 0)
}

/// Those of `units` that no row names, and that no live attempt writes.
pub async fn unowned(pool: &PgPool, units: &[Claimant]) -> sqlx::Result<Vec<String>> {
    let prefixes: Vec<String> = units.iter().map(|unit| unit.prefix.clone()).collect();
    let jobs: Vec<Option<Uuid>> = units
        .iter()
        .map(|unit| unit.attempt.map(|(job, _)| job))
        .collect();
    let tokens: Vec<Option<i64>> = units
        .iter()
        .map(|unit| unit.attempt.map(|(_, token)| token))
        .collect();
    sqlx::query_scalar!(
        r#"select unit.prefix as "prefix!"
        from unnest($1::text[], $2::uuid[], $3::bigint[]) as unit (prefix, job_id, token)
        where not exists (select from work l where l.job_id = unit.job_id and l.token = unit.token)
            and not exists (select from checkpoints c where c.objects = unit.prefix)
            and not exists (select from models m where m.objects = unit.prefix)
            and not exists (select from models m where 'models/' || m.weights_sha256 || '/' = unit.prefix)
            and not exists (select from models m where 'models/' || m.base_weights_sha256 || '/' = unit.prefix)
            and not exists (select from files f where 'files/' || replace(f.id::text, '-', '') || '/' = unit.prefix)"#,
        &prefixes,
        &jobs as &[Option<Uuid>],
        &tokens as &[Option<i64>]
    )
    .fetch_all(pool)
    .await
}

/// Makes room for the steps of jobs that are created this week and the next, and forgets those of jobs that were created in
/// weeks more than `days` ago, once all jobs of that time have ended. Says how many weeks went.
pub async fn turn_weeks(pool: &PgPool, days: u32) -> sqlx::Result<u64> {
    sqlx::query!("select add_job_step_weeks(now())")
        .execute(pool)
        .await?;
    let dropped = sqlx::query_scalar!(
        r#"select drop_job_step_weeks(make_interval(days => $1)) as "dropped!""#,
        convert::from_small(days)
    );
    Ok(convert::to_count(dropped.fetch_one(pool).await?))
}

/// Checkpoints whose deletion was interrupted, and damaged ones of jobs that have ended.
pub async fn discarded(pool: &PgPool) -> sqlx::Result<Vec<Kept>> {
    let rows = sqlx::query!(
        "select c.id, c.job_id, c.objects from checkpoints c join jobs j on j.id = c.job_id
        where c.state = 'deleting' or (c.state = 'bad' and j.finished_at is not null) order by c.id"
    )
    .fetch_all(pool)
    .await?;
    let kept = rows.into_iter().map(|row| Kept {
        id: CheckpointId(row.id),
        job: JobId(row.job_id),
        objects: row.objects,
    });
    Ok(kept.collect())
}

/// Removes the row of a checkpoint that `discarded` named, once its objects are gone.
pub async fn forget_checkpoint(pool: &PgPool, id: CheckpointId) -> sqlx::Result<()> {
    sqlx::query!(
        "delete from checkpoints where id = $1 and state in ('bad', 'deleting')",
        id.0
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Checkpoints that were committed more than `age` ago.
pub async fn committed(pool: &PgPool, age: Duration) -> sqlx::Result<Vec<Kept>> {
    let rows = sqlx::query!(
        "select id, job_id, objects from checkpoints
        where state = 'committed' and created_at < now() - make_interval(secs => $1) order by id",
        convert::seconds(age)
    )
    .fetch_all(pool)
    .await?;
    let kept = rows.into_iter().map(|row| Kept {
        id: CheckpointId(row.id),
        job: JobId(row.job_id),
        objects: row.objects,
    });
    Ok(kept.collect())
}

/// Marks a checkpoint whose objects are gone; no attempt goes on from it any more.
pub async fn mark_bad(pool: &PgPool, id: CheckpointId) -> sqlx::Result<()> {
    sqlx::query!(
        "update checkpoints set state = 'bad' where id = $1 and state = 'committed'",
        id.0
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Prefixes that files and models of more than `age` ago name, each with the id of its row.
pub async fn named(pool: &PgPool, age: Duration) -> sqlx::Result<Vec<(String, String)>> {
    let rows = sqlx::query!(
        r#"select 'file-' || replace(id::text, '-', '') as "row!",
            'files/' || replace(id::text, '-', '') || '/' as "prefix!"
        from files where created_at < now() - make_interval(secs => $1)
        union all
        select id, objects from models where objects is not null and created_at < now() - make_interval(secs => $1)"#,
        convert::seconds(age)
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.row, row.prefix)).collect())
}
