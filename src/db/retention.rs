//! Deletion of ended jobs, and queries of garbage collection: objects that no row names, old steps.

use std::time::Duration;

use sqlx::PgPool;
use uuid::Uuid;

use super::{convert, tenants::TenantId};
use crate::domain::{id::JobId, job::JobStatus};

/// The result of `begin_to_delete_job`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// Its checkpoints are no longer listed. Delete their objects, then call `forget_job`.
    Begun,
    NotEnded(JobStatus),
    /// This job, which has not ended, continues from one of its checkpoints.
    InUse(JobId),
    NotFound,
}

/// Takes the checkpoints of an ended job out of its list.
pub async fn begin_to_delete_job(
    pool: &PgPool,
    tenant: TenantId,
    job: JobId,
) -> sqlx::Result<Deleted> {
    let mut transaction = super::begin(pool).await?;
    // A job that is being created locks the checkpoints that it continues from: the next statement
    // sees it.
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

/// Deletes an ended job with its history. Its model stays. Returns `false` if there is no such job.
pub async fn forget_job(pool: &PgPool, tenant: TenantId, job: JobId) -> sqlx::Result<bool> {
    let gone = sqlx::query!(
        "delete from jobs where id = $1 and tenant_id = $2 and finished_at is not null",
        job.0,
        tenant.0
    );
    Ok(gone.execute(pool).await?.rows_affected() > 0)
}

/// Those of these prefixes (with their last `/`) that no row names and no live attempt writes.
pub async fn unreferenced(pool: &PgPool, prefixes: Vec<String>) -> sqlx::Result<Vec<String>> {
    let attempts = prefixes.iter().map(|prefix| attempt_of(prefix).unzip());
    let (jobs, tokens): (Vec<_>, Vec<_>) = attempts.unzip();
    sqlx::query_scalar!(
        r#"select unit.prefix as "prefix!"
        from unnest($1::text[], $2::uuid[], $3::bigint[]) as unit (prefix, job_id, token)
        where not exists (select from work l where l.job_id = unit.job_id and l.token = unit.token)
            and not exists (select from checkpoints c where c.objects = unit.prefix)
            and not exists (select from models m where m.objects = unit.prefix)
            and not exists (select from models m where 'models/' || m.weights_sha256 || '/' = unit.prefix)
            and not exists (select from models m where 'models/' || m.base_weights_sha256 || '/' = unit.prefix)
            and not exists (select from models m where 'scripts/' || replace(m.job_id::text, '-', '') || '/' = unit.prefix)
            and not exists (select from files f where 'files/' || replace(f.id::text, '-', '') || '/' = unit.prefix)
            and not exists (select from uploads u where u.status = 'pending'
                and 'uploads/' || replace(u.id::text, '-', '') || '/' = unit.prefix)"#,
        &prefixes,
        &jobs as &[Option<Uuid>],
        &tokens as &[Option<i64>]
    )
    .fetch_all(pool)
    .await
}

/// Reads job and token from `checkpoints/<job>/<step>-<token>/` and `bundles/<job>/<token>/`.
fn attempt_of(prefix: &str) -> Option<(Uuid, i64)> {
    let parts: Vec<&str> = prefix.trim_end_matches('/').split('/').collect();
    let &["checkpoints" | "bundles", job, name] = parts.as_slice() else {
        return None;
    };
    let token = name.rsplit('-').next()?.parse().ok()?;
    Some((job.parse().ok()?, token))
}

/// Creates the partitions of steps for jobs of this week and the next, and drops those of weeks
/// more than `days` ago in which no job is left that has not ended. Returns how many were dropped.
pub async fn rotate_step_partitions(pool: &PgPool, days: u32) -> sqlx::Result<u64> {
    sqlx::query!("select add_job_step_weeks(now())")
        .execute(pool)
        .await?;
    let dropped = sqlx::query_scalar!(
        r#"select drop_job_step_weeks(make_interval(days => $1)) as "dropped!""#,
        convert::from_small(days)
    );
    Ok(convert::to_count(dropped.fetch_one(pool).await?))
}

/// Prefixes named by files and models that are older than `age`, each with the id of its row.
pub async fn referenced(pool: &PgPool, age: Duration) -> sqlx::Result<Vec<(String, String)>> {
    sqlx::query!(
        r#"select 'file-' || replace(id::text, '-', '') as "row!",
            'files/' || replace(id::text, '-', '') || '/' as "prefix!"
        from files where sha256 is not null and created_at < now() - make_interval(secs => $1)
        union all
        select id, objects from models where objects is not null and created_at < now() - make_interval(secs => $1)"#,
        age.as_secs_f64()
    )
    .map(|row| (row.row, row.prefix))
    .fetch_all(pool)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempt_is_read_from_the_prefix() {
        let job = "0193a5c0000070008000123456789abc";
        let of = |token| Some((job.parse().unwrap(), token));
        assert_eq!(attempt_of(&format!("checkpoints/{job}/120-3/")), of(3));
        assert_eq!(attempt_of(&format!("bundles/{job}/2/")), of(2));
        assert_eq!(attempt_of(&format!("files/{job}/")), None);
        assert_eq!(attempt_of("checkpoints/no-job/120-3/"), None);
    }
}
