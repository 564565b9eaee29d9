//! Pushes of models to a hub: work of kind `push`, whose subject is the push.

use std::collections::BTreeMap;

use sqlx::{PgPool, types::Json};
use time::OffsetDateTime;

use super::{
    Page, Slice, convert, models,
    tenants::TenantId,
    work::{Lease, MAX_CRASHES, end_work},
};
use crate::domain::{
    checkpoint::ManifestEntry, id::PushId, job::Failure, object::Bundle, report::Report, words,
};

words! {
    /// State of a push.
    pub enum PushStatus {
        /// It waits for a worker.
        Queued = "queued",
        /// A worker sends the files.
        Running = "running",
        Succeeded = "succeeded",
        Failed = "failed",
    }
}

impl PushStatus {
    /// True for final states.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A push to make.
#[derive(Debug, Clone)]
pub struct NewPush {
    pub id: PushId,
    pub tenant: TenantId,
    pub model: String,
    pub repository: String,
    pub branch: String,
    pub private: bool,
    pub message: String,
}

/// A push.
#[derive(Debug, Clone)]
pub struct Push {
    pub id: PushId,
    pub status: PushStatus,
    pub model: String,
    pub repository: String,
    pub branch: String,
    pub private: bool,
    pub message: String,
    pub commit: Option<String>,
    pub error: Option<Failure>,
    pub created_at: OffsetDateTime,
    pub finished_at: Option<OffsetDateTime>,
}

/// A push that a worker makes.
#[derive(Debug, Clone)]
pub struct ToPush {
    pub model: String,
    pub repository: String,
    pub branch: String,
    pub private: bool,
    pub message: String,
    /// None when the model was deleted meanwhile.
    pub contents: Option<Contents>,
}

/// The parts of a model that are pushed.
#[derive(Debug, Clone)]
pub struct Contents {
    pub bundle: Bundle,
    pub license: Option<String>,
    pub report: Option<Report>,
    /// URL that the weights of its base model were downloaded from.
    pub base_url: Option<String>,
}

/// Adds a push, and its work to the queue. `false`: `limit` pushes of the tenant wait or run.
///
/// # Errors
/// Those of the database.
pub async fn create(pool: &PgPool, push: &NewPush, limit: u32) -> sqlx::Result<bool> {
    let created = sqlx::query!(
        "with push as (
            insert into pushes (id, tenant_id, model, repository, branch, private, message)
            select $1, $2, $3, $4, $5, $6, $7
            where (select count(*) from pushes where tenant_id = $2 and status = 'queued') < $8
            returning id, tenant_id
        )
        insert into work (kind, subject, tenant_id) select 'push', id, tenant_id from push",
        push.id.0,
        push.tenant.0,
        push.model,
        push.repository,
        push.branch,
        push.private,
        push.message,
        i64::from(limit)
    );
    Ok(created.execute(pool).await?.rows_affected() == 1)
}

/// A query for pushes: their columns, read here only, and a `where` clause with its bindings.
macro_rules! query_pushes {
    ($tail:literal, $($bindings:tt)+) => {
        sqlx::query!(
            r#"select id, status, model, repository, branch, private, message, commit_id,
                error as "error: Json<Failure>", created_at, finished_at,
                exists (
                    select from work w where w.kind = 'push' and w.subject = pushes.id and w.worker_id is not null
                ) as "is_running!"
            from pushes "# + $tail,
            $($bindings)+
        )
        .try_map(|row| {
            Ok(Push {
                id: PushId(row.id),
                status: match row.is_running {
                    true => PushStatus::Running,
                    false => convert::parse("pushes.status", &row.status)?,
                },
                model: row.model,
                repository: row.repository,
                branch: row.branch,
                private: row.private,
                message: row.message,
                commit: row.commit_id,
                error: row.error.map(|error| error.0),
                created_at: row.created_at,
                finished_at: row.finished_at,
            })
        })
    };
}

/// # Errors
/// Those of the database.
pub async fn get(pool: &PgPool, tenant: TenantId, id: PushId) -> sqlx::Result<Option<Push>> {
    query_pushes!("where id = $1 and tenant_id = $2", id.0, tenant.0)
        .fetch_optional(pool)
        .await
}

/// # Errors
/// Those of the database.
pub async fn list(
    pool: &PgPool,
    tenant: TenantId,
    page: Page<PushId>,
) -> sqlx::Result<Slice<Push>> {
    let pushes = query_pushes!(
        "where tenant_id = $1 and ($2::uuid is null or case when $3 then id < $2 else id > $2 end)
        order by case when $3 then id end desc, case when not $3 then id end limit $4",
        tenant.0,
        page.after.map(|id| id.0),
        page.descending,
        i64::from(page.limit) + 1
    );
    Ok(Slice::of(pushes.fetch_all(pool).await?, page.limit))
}

/// Deletes a push, and ends its work. `false`: there is none.
///
/// # Errors
/// Those of the database.
pub async fn delete(pool: &PgPool, tenant: TenantId, id: PushId) -> sqlx::Result<bool> {
    let deleted = sqlx::query!(
        "with work as (delete from work where kind = 'push' and subject = $1 and tenant_id = $2)
        delete from pushes where id = $1 and tenant_id = $2",
        id.0,
        tenant.0
    );
    Ok(deleted.execute(pool).await?.rows_affected() == 1)
}

/// A claimed push; `None` when it was deleted meanwhile.
///
/// # Errors
/// Those of the database.
pub async fn to_push(pool: &PgPool, lease: &Lease) -> sqlx::Result<Option<ToPush>> {
    let row = sqlx::query!(
        r#"select p.model, p.repository, p.branch, p.private, p.message, m.objects as "objects?",
            m.weights_sha256 as "weights_sha256?", m.license as "license?", m.report as "report?: Json<Report>",
            m.files as "files?: Json<BTreeMap<String, ManifestEntry>>", f.url as "base_url?"
        from pushes p
        left join models m on (m.tenant_id, m.id) = (p.tenant_id, p.model) and m.kind = 'fine_tuned'
        left join models b on (b.tenant_id, b.id) = (m.tenant_id, m.base_model)
        left join files f on f.id = b.weights_file
        where p.id = $1"#,
        lease.subject
    );
    Ok(row.fetch_optional(pool).await?.map(|row| {
        let (files, license, report) = (row.files, row.license, row.report);
        let (base_url, model) = (row.base_url, row.model);
        let contents = row.objects.zip(row.weights_sha256);
        ToPush {
            contents: contents.map(|(objects, sha256)| Contents {
                bundle: models::bundle(&model, &objects, &sha256, files.map(|files| files.0)),
                license,
                report: report.map(|report| report.0),
                base_url,
            }),
            model,
            repository: row.repository,
            branch: row.branch,
            private: row.private,
            message: row.message,
        }
    }))
}

/// Ends a push: with its commit, or it failed. `false`: the lease is lost.
///
/// # Errors
/// Those of the database.
pub async fn end(
    pool: &PgPool,
    lease: &Lease,
    outcome: Result<&str, &Failure>,
) -> sqlx::Result<bool> {
    end_work!(
        pool,
        lease,
        "push",
        " update pushes p set status = case when $4::text is null then 'failed' else 'succeeded' end, commit_id = $4,
            error = $5, finished_at = now() from lease where p.id = lease.subject",
        outcome.ok(),
        outcome.err().map(Json) as Option<Json<&Failure>>
    )
    .await
}

/// Ends a push that crashed too often.
///
/// # Errors
/// Those of the database.
pub async fn give_up(pool: &PgPool, lease: &Lease) -> sqlx::Result<bool> {
    let message = format!(
        "the workers that made the push ended {MAX_CRASHES} times before it was complete; push again, or see their logs"
    );
    end(
        pool,
        lease,
        Err(&Failure::permanent("push_crashed", message)),
    )
    .await
}
