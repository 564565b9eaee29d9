//! All SQL, one file per table (see `migrations/`): plain functions over a connection pool.
//!
//! Functions that the API calls take a tenant and never return rows of another. Functions that
//! workers call take the fencing token of their lease: when the lease is lost, they write nothing
//! and return `None` or `false`.

use futures_util::{Stream, TryStreamExt as _};
use sqlx::{
    PgPool, Postgres, Transaction,
    migrate::{MigrateError, Migrator},
    postgres::PgListener,
};

pub mod attempts;
pub mod census;
pub mod changes;
pub mod checkpoints;
pub mod connect;
pub mod controls;
pub mod corrections;
pub mod deliveries;
pub mod downloads;
pub mod events;
pub mod exports;
pub mod files;
pub mod grants;
pub mod idempotency;
pub mod job_summaries;
pub mod jobs;
pub mod keys;
pub mod metrics;
pub mod models;
pub mod parents;
pub mod persist;
pub mod phases;
pub mod pushes;
pub mod queue;
pub mod queue_position;
pub mod rankings;
pub mod reap;
pub mod retention;
pub mod samples;
pub mod scores;
pub mod sessions;
pub mod tenants;
pub mod thumbnails;
pub mod traces;
pub mod uploads;
pub mod webhooks;
pub mod work;
pub mod workers;

mod convert;

pub use connect::connect;

/// Channels of `listen`.
pub mod channel {
    /// There is work to claim. Payload: a `work::Kind`.
    pub const WORK: &str = "rehead_work";
    /// A running job received a control request. Payload: a `JobId`.
    pub const CONTROL: &str = "rehead_control";
    /// The validation of a file ended. Payload: a `FileId`.
    pub const FILE: &str = "rehead_file";
    /// The import or the export of a model ended. Payload: the id of the model. A push of one
    /// ended. Payload: a `PushId`.
    pub const MODEL: &str = "rehead_model";
    /// A ranking ended. Payload: a `RankingId`.
    pub const RANKING: &str = "rehead_ranking";
    /// An API key was created or revoked, or a limit of a tenant was changed. No payload.
    pub const KEY: &str = "rehead_key";
}

/// One page of a list.
#[derive(Debug, Clone, Copy)]
pub struct Page<Cursor> {
    /// Only rows after this one, in the order of the page.
    pub after: Option<Cursor>,
    pub limit: u32,
    /// Newest first.
    pub descending: bool,
}

/// The rows of a page.
#[derive(Debug, Clone)]
pub struct Slice<T> {
    pub rows: Vec<T>,
    pub has_more: bool,
}

impl<T> Slice<T> {
    /// Makes a slice of up to `limit + 1` rows; the extra row means that there are more.
    fn of(mut rows: Vec<T>, limit: u32) -> Self {
        let has_more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        Self { rows, has_more }
    }
}

/// Names (of classes, labels) after which a page of files or models ends early.
const PAGE_NAMES: usize = 100_000;

impl<T> Slice<T> {
    /// Reads up to `limit` rows, fewer when they have `PAGE_NAMES` names together.
    async fn read(
        mut rows: impl Stream<Item = sqlx::Result<T>> + Unpin,
        limit: u32,
        names: impl Fn(&T) -> usize,
    ) -> sqlx::Result<Self> {
        let mut slice = Self {
            rows: Vec::new(),
            has_more: false,
        };
        let mut total = 0;
        while let Some(row) = rows.try_next().await? {
            if slice.rows.len() == limit as usize || total >= PAGE_NAMES {
                slice.has_more = true;
                break;
            }
            total += names(&row);
            slice.rows.push(row);
        }
        Ok(slice)
    }
}

static MIGRATOR: Migrator = sqlx::migrate!();

/// Begins a read-only transaction in which all statements see the same state of the database.
///
/// # Errors
/// No connection.
pub async fn snapshot(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    begin_with(pool, "begin isolation level repeatable read read only").await
}

/// Begins a transaction.
///
/// # Errors
/// No connection.
pub async fn begin(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    begin_with(pool, "begin").await
}

/// Begins a transaction in a task of its own: sqlx 0.9.0 loses track of one whose `begin` is
/// cancelled, so that whoever has the connection next writes into it, and what it writes is lost
/// (<https://github.com/transact-rs/sqlx/issues/4393>).
#[expect(clippy::disallowed_methods, reason = "this is what the others call")]
async fn begin_with(
    pool: &PgPool,
    statement: &'static str,
) -> sqlx::Result<Transaction<'static, Postgres>> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin_with(statement).await });
    begun.await.map_err(|_| sqlx::Error::WorkerCrashed)?
}

/// Opens a second pool to the same server, so that heartbeats never wait for a connection.
pub async fn connect_beside(beside: &PgPool, max_connections: u32) -> sqlx::Result<PgPool> {
    connect::pool(max_connections)
        .connect_with(beside.connect_options().as_ref().clone())
        .await
}

/// Listens on a connection of its own and reconnects by itself. After a lost connection `try_recv`
/// returns `None` once, since notices may have been missed.
pub async fn listen(beside: &PgPool, channels: &[&str]) -> sqlx::Result<PgListener> {
    let own = connect::pool(1).max_lifetime(None).idle_timeout(None);
    let own = own
        .connect_with(beside.connect_options().as_ref().clone())
        .await?;
    let mut listener = PgListener::connect_with(&own).await?;
    listener.listen_all(channels.iter().copied()).await?;
    Ok(listener)
}

/// Applies missing migrations. Several processes may do so at the same time.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    MIGRATOR.run(pool).await
}

/// Checks that the database answers.
///
/// # Errors
/// It does not.
pub async fn ping(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query("select").execute(pool).await.map(|_| ())
}

/// True when every migration of this build is applied. Part of `/readyz`.
pub async fn is_migrated(pool: &PgPool) -> sqlx::Result<bool> {
    // This query is not checked at compile time, since the table belongs to sqlx and may not exist
    // yet.
    let applied = sqlx::query_scalar("select version from _sqlx_migrations where success")
        .fetch_all(pool)
        .await;
    match applied {
        Ok(versions) => {
            let versions: Vec<i64> = versions;
            Ok(MIGRATOR
                .iter()
                .all(|migration| versions.contains(&migration.version)))
        }
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => Ok(false),
        Err(error) => Err(error),
    }
}

/// Repeats a statement that Postgres aborted because of a deadlock or a serialization failure.
async fn retry<T, F: Future<Output = sqlx::Result<T>>>(
    mut statement: impl FnMut() -> F,
) -> sqlx::Result<T> {
    for _ in 0..4 {
        match statement().await {
            Err(sqlx::Error::Database(error))
                if matches!(error.code().as_deref(), Some("40001" | "40P01")) =>
            {
                tracing::debug!(%error, "retrying a statement");
            }
            other => return other,
        }
    }
    statement().await
}
