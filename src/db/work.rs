//! The leased queue of work: one claim, heartbeat and release for every kind.
//!
//! Whoever deletes a row of `work` ends the work, once. Every write of a worker carries the token
//! of its claim and starts with `under_lease!` or `ending_lease!`, the only two places that compare
//! it: with an old token nothing is written. All times are the database's.
//!
//! A job waits in `jobs`, where its turn depends on tenants, priorities and memory, and has a row
//! here only while it is leased (`queue::claim`). Everything else waits here, first come first
//! served. `db::reap` ends leases that expired.

use std::time::Duration;

use sqlx::{PgPool, postgres::PgQueryResult};
use uuid::Uuid;

use super::retry;
use crate::domain::{
    id::{JobId, WorkerId},
    words,
};

/// Crashes after which work other than a job is given up.
pub const MAX_CRASHES: i32 = 3;
/// Expired leases that one call of `expired` returns.
const EXPIRED_AT_ONCE: i64 = 100;

words! {
    /// A kind of work: the word of `work.kind`, and the payload of `channel::WORK`.
    #[derive(sqlx::Type)]
    #[sqlx(type_name = "text", rename_all = "snake_case")]
    pub enum Kind {
        /// Train a job.
        Train = "train",
        /// Validate an uploaded data set.
        Validate = "validate",
        /// Check and convert the weights of a base model.
        Import = "import",
        /// Write a fine-tuned model as a file of another format.
        Export = "export",
        /// Download a file by URL.
        Download = "download",
        /// Score base models on a data set.
        Rank = "rank",
        /// Push a fine-tuned model to a hub.
        Push = "push",
        /// Make the thumbnails of a data set that has none.
        Thumbnails = "thumbnails",
        /// Make a data set of another by corrections.
        Correct = "correct",
    }
}

/// The right to write for one piece of work, as long as nobody else has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub kind: Kind,
    /// The id of a job, a file, a ranking or a push, `models.import_id`, or `exports.id`.
    pub subject: Uuid,
    /// Fencing token. For a job it is also the number of the attempt.
    pub token: i64,
}

impl Lease {
    pub fn of_job(job: JobId, token: i64) -> Self {
        Self {
            kind: Kind::Train,
            subject: job.0,
            token,
        }
    }
}

/// Control requests for a job, as a heartbeat returns them. For other work none is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    pub cancel_requested: bool,
    pub pause_requested: bool,
    pub stop_requested: bool,
}

/// A statement that writes only under a lease. It starts with `lease`: the row of the work, locked,
/// or no row where the lease is lost. Parameters are the subject ($1), the token ($2), then its
/// own.
macro_rules! under_lease {
    ($query:ident $(<$row:ident>)?, $kind:literal, $statement:literal, $($arguments:tt)*) => {
        sqlx::$query!(
            $($row,)?
            "with lease as (
                select subject, token, tenant_id from work
                where kind = '" + $kind + "' and subject = $1 and token = $2 for update
            )" + $statement,
            $($arguments)*
        )
    };
}

/// A statement that ends a lease with the work. It starts with `lease`: the row of the work, which
/// it deletes, or no row where the lease is lost. Parameters are the subject ($1), the token ($2),
/// seconds since the lease must have expired or null ($3), then its own.
macro_rules! ending_lease {
    ($query:ident, $kind:literal, $statement:literal, $($arguments:tt)*) => {
        sqlx::$query!(
            "with lease as (
                delete from work where kind = '" + $kind + "' and subject = $1 and token = $2
                    and ($3::double precision is null or lease_expires_at < now() - make_interval(secs => $3))
                returning subject, token, tenant_id
            )" + $statement,
            $($arguments)*
        )
    };
}

/// A statement that ends the lease of work other than a job, with its result. Parameters are those
/// of `ending_lease!`, of which the first three are bound here. `false`: the lease is lost.
macro_rules! end_work {
    ($pool:expr, $lease:expr, $kind:literal, $statement:literal, $($arguments:tt)*) => {
        $crate::db::work::changes_one(|| {
            $crate::db::work::ending_lease!(
                query, $kind, $statement, $lease.subject, $lease.token, None::<f64>, $($arguments)*
            )
            .execute($pool)
        })
    };
}

pub(super) use {end_work, ending_lease, under_lease};

/// Executes a statement that changes one row, or none when the lease is lost.
pub(super) async fn changes_one<F>(statement: impl FnMut() -> F) -> sqlx::Result<bool>
where
    F: Future<Output = sqlx::Result<PgQueryResult>>,
{
    Ok(retry(statement).await?.rows_affected() == 1)
}

/// Claims the work of these kinds that has waited longest. The lease ends after `ttl` unless
/// renewed. Jobs are claimed by `queue::claim`.
///
/// # Errors
/// Those of the database.
pub async fn claim(
    pool: &PgPool,
    worker: WorkerId,
    kinds: &[Kind],
    ttl: Duration,
) -> sqlx::Result<Option<Lease>> {
    let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    let claim = || {
        sqlx::query_as!(
            Lease,
            r#"with next as (
                select kind, subject from work
                where worker_id is null and kind = any($1) and run_at <= now() and crashes < $4
                order by run_at limit 1 for update skip locked
            )
            update work w set token = nextval('work_tokens'), worker_id = $2,
                lease_expires_at = now() + make_interval(secs => $3)
            from next where w.kind = next.kind and w.subject = next.subject
            returning w.kind as "kind: Kind", w.subject, w.token"#,
            &kinds as &[&str],
            worker.0,
            ttl.as_secs_f64(),
            MAX_CRASHES
        )
        .fetch_optional(pool)
    };
    retry(claim).await
}

/// Extends a lease by `ttl` from now. `None`: it is lost, end the child.
///
/// # Errors
/// Those of the database.
pub async fn renew(pool: &PgPool, lease: &Lease, ttl: Duration) -> sqlx::Result<Option<Heartbeat>> {
    let renew = || {
        sqlx::query_as!(
            Heartbeat,
            r#"with kept as (
                update work set lease_expires_at = now() + make_interval(secs => $4)
                where kind = $1 and subject = $2 and token = $3 returning job_id
            )
            select coalesce(j.cancel_requested_at is not null, false) as "cancel_requested!",
                coalesce(j.status = 'pausing', false) as "pause_requested!",
                coalesce(j.stop_requested_at is not null, false) as "stop_requested!"
            from kept left join jobs j on j.id = kept.job_id"#,
            lease.kind.as_str(),
            lease.subject,
            lease.token,
            ttl.as_secs_f64()
        )
        .fetch_optional(pool)
    };
    retry(renew).await
}

/// How work that goes back to the queue was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// Its worker stops, or has no room for it. Costs nothing.
    Unfinished,
    /// Its child ended without a result: counts against `MAX_CRASHES`.
    Crashed,
    /// Its lease expired more than this long ago. Counts as a crash.
    Expired(Duration),
}

impl Released {
    /// As in `attempts.outcome`.
    fn outcome(self) -> &'static str {
        match self {
            Self::Unfinished => "yielded",
            Self::Crashed => "crashed",
            Self::Expired(_) => "lost",
        }
    }
}

/// Puts work other than a job back in the queue. `false`: the lease was lost.
///
/// # Errors
/// Those of the database.
pub async fn release(pool: &PgPool, lease: &Lease, how: Released) -> sqlx::Result<bool> {
    let expired_for = match how {
        Released::Expired(grace) => Some(grace.as_secs_f64()),
        Released::Unfinished | Released::Crashed => None,
    };
    let release = || {
        sqlx::query!(
            "update work set worker_id = null, lease_expires_at = null, token = nextval('work_tokens'),
                crashes = crashes + ($4 <> 'yielded')::int,
                run_at = case $4 when 'crashed' then now() + retry_delay(kind, $4, crashes) else run_at end
            where kind = $1 and subject = $2 and token = $3
                and ($5::double precision is null or lease_expires_at < now() - make_interval(secs => $5))",
            lease.kind.as_str(),
            lease.subject,
            lease.token,
            how.outcome(),
            expired_for
        )
        .execute(pool)
    };
    changes_one(release).await
}

/// Leases that expired more than `grace` ago, the oldest first; a limited number of them.
///
/// # Errors
/// Those of the database.
pub async fn expired(pool: &PgPool, grace: Duration) -> sqlx::Result<Vec<Lease>> {
    let expired = sqlx::query_as!(
        Lease,
        r#"select kind as "kind: Kind", subject, token from work
        where lease_expires_at < now() - make_interval(secs => $1) order by lease_expires_at limit $2"#,
        grace.as_secs_f64(),
        EXPIRED_AT_ONCE
    );
    expired.fetch_all(pool).await
}

/// Work that crashed `MAX_CRASHES` times and nobody claims any more.
///
/// # Errors
/// Those of the database.
pub async fn exhausted(pool: &PgPool) -> sqlx::Result<Vec<Lease>> {
    let exhausted = sqlx::query_as!(
        Lease,
        r#"select kind as "kind: Kind", subject, token from work where worker_id is null and crashes >= $1"#,
        MAX_CRASHES
    );
    exhausted.fetch_all(pool).await
}
