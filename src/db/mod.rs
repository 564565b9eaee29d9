//! All SQL, one file per table (see `migrations/`). Plain functions over a pool; what a worker writes carries its token.
//!
//! Functions that the API calls take a tenant and never see another's rows. Functions that workers call take the token
//! of their claim and write nothing when it is no longer the present one: they answer `None` or `false` then.

use std::{str::FromStr, time::Duration};

use sqlx::{
    PgPool, Postgres, Transaction,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};

pub mod attempts;
pub mod changes;
pub mod checkpoints;
pub mod controls;
pub mod events;
pub mod files;
pub mod jobs;
pub mod keys;
pub mod metrics;
pub mod models;
pub mod parents;
pub mod persist;
pub mod phases;
pub mod queue;
pub mod queue_position;
pub mod reap;
pub mod retention;
pub mod samples;
pub mod tenants;
pub mod work;
pub mod workers;

mod convert;

/// What `listen` listens to. The payload is an id, or for `WORK` the kind of work.
pub mod channel {
    /// There is something to claim. Payload: a `work::Kind`.
    pub const WORK: &str = "rehead_work";
    /// The user of a job that a worker has asks for its cancellation, a pause or its end. Payload: a `JobId`.
    pub const CONTROL: &str = "rehead_control";
    /// A file's validation ended. Payload: a `FileId`.
    pub const FILE: &str = "rehead_file";
    /// A model became ready, or its import was refused. Payload: the model's id.
    pub const MODEL: &str = "rehead_model";
}

/// One page of a list.
#[derive(Debug, Clone, Copy)]
pub struct Page<Cursor> {
    /// Rows behind this one, in the order asked for.
    pub after: Option<Cursor>,
    pub limit: u32,
    /// Newest first.
    pub descending: bool,
}

/// The rows of a page, and whether there are more behind them.
#[derive(Debug, Clone)]
pub struct Slice<T> {
    pub rows: Vec<T>,
    pub has_more: bool,
}

impl<T> Slice<T> {
    /// From up to `limit + 1` rows: the one too many says that there are more.
    fn of(mut rows: Vec<T>, limit: u32) -> Self {
        let has_more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        Self { rows, has_more }
    }
}

static MIGRATOR: Migrator = sqlx::migrate!();

/// Everything that is read in it is of one moment: rows that tell of each other agree.
///
/// # Errors
/// No connection.
pub async fn snapshot(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    pool.begin_with("begin isolation level repeatable read read only")
        .await
}

/// Opens a pool of at most `max_connections`.
///
/// # Errors
/// A URL that cannot be read, or no server behind it.
pub async fn connect(url: &str, max_connections: u32) -> sqlx::Result<PgPool> {
    // A process that is stopped inside a transaction must not keep its locks.
    let options = PgConnectOptions::from_str(url)?
        .application_name("rehead")
        .options([
            ("idle_in_transaction_session_timeout", "10s"),
            ("client_connection_check_interval", "10s"),
        ]);
    pool(max_connections).connect_with(options).await
}

/// As `connect`, for a process that may start before its server does: tries for so long.
///
/// # Errors
/// Those of `connect`, of the last try.
pub async fn connect_within(
    wait: Duration,
    url: &str,
    max_connections: u32,
) -> sqlx::Result<PgPool> {
    let connecting = persist::persist("reaching the database", || connect(url, max_connections));
    match tokio::time::timeout(wait, connecting).await {
        Ok(answer) => answer,
        Err(_) => connect(url, max_connections).await,
    }
}

/// A second pool to the same server, for connections that must not wait for the first one's: heartbeats.
pub async fn connect_beside(beside: &PgPool, max_connections: u32) -> sqlx::Result<PgPool> {
    pool(max_connections)
        .connect_with(beside.connect_options().as_ref().clone())
        .await
}

fn pool(max_connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(Duration::from_secs(10))
}

/// Listens on its own connection; reconnects by itself. After a lost connection `try_recv` gives `None` once: look again.
pub async fn listen(beside: &PgPool, channels: &[&str]) -> sqlx::Result<PgListener> {
    let own = pool(1).max_lifetime(None).idle_timeout(None);
    let own = own
        .connect_with(beside.connect_options().as_ref().clone())
        .await?;
    let mut listener = PgListener::connect_with(&own).await?;
    listener.listen_all(channels.iter().copied()).await?;
    Ok(listener)
}

/// Applies the migrations that are missing. Any number of processes may do so at once.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    MIGRATOR.run(pool).await
}

/// Asks for nothing.
///
/// # Errors
/// No answer.
pub async fn ping(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query("select").execute(pool).await.map(|_| ())
}

/// Whether every migration of this build is applied: part of `/readyz`.
pub async fn is_migrated(pool: &PgPool) -> sqlx::Result<bool> {
    // Not checked at compile time: the table is sqlx's own, and may not exist yet.
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

/// Runs a statement again that Postgres gave up for another's sake: a deadlock, a failed serialization.
async fn retry<T, F: Future<Output = sqlx::Result<T>>>(
    mut statement: impl FnMut() -> F,
) -> sqlx::Result<T> {
    for _ in 0..4 {
        match statement().await {
            Err(sqlx::Error::Database(error))
                if matches!(error.code().as_deref(), Some("40001" | "40P01")) =>
            {
                tracing::debug!(%error, "a statement is tried again");
            }
            other => return other,
        }
    }
    statement().await
}
