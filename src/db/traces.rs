//! Trace contexts of the requests that created jobs, so that attempts are linked to them. Only
//! processes that send traces write or read them (`telemetry::traces`).

use sqlx::PgPool;

use crate::domain::id::JobId;

/// Remembers the context in which a job was created.
///
/// # Errors
/// Those of the database.
pub async fn remember(pool: &PgPool, job: JobId, context: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into job_traces (job_id, context) values ($1, $2) on conflict do nothing",
        job.0,
        context
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The context in which a job was created, if that request was traced.
///
/// # Errors
/// Those of the database.
pub async fn of_job(pool: &PgPool, job: JobId) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!("select context from job_traces where job_id = $1", job.0)
        .fetch_optional(pool)
        .await
}
