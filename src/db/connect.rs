//! Connects to Postgres, and explains why it cannot.

use std::{str::FromStr as _, time::Duration};

use sqlx::{
    Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::{Instant, sleep, timeout};

use super::persist::is_outage;

/// Time for one connection to be made.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pauses between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Interval between two log lines of the same cause.
const REPEAT: Duration = Duration::from_secs(15);

pub(super) fn pool(max_connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(PATIENCE)
}

/// Opens a pool of at most `max_connections`.
///
/// # Errors
/// The URL is invalid, or the server cannot be reached, or refuses; at once, with the cause.
pub async fn connect(url: &str, max_connections: u32) -> sqlx::Result<PgPool> {
    // A process that is suspended inside a transaction must not keep its locks.
    let options = PgConnectOptions::from_str(url)?
        .application_name("rehead")
        .options([
            ("idle_in_transaction_session_timeout", "10s"),
            ("client_connection_check_interval", "10s"),
        ]);
    // The pool would try again until its own timeout, and then not say why.
    let first = timeout(PATIENCE, PgConnection::connect_with(&options));
    let first = first.await.map_err(|_| sqlx::Error::PoolTimedOut)??;
    let _ = first.close().await;
    pool(max_connections).connect_with(options).await
}

/// Calls `connect` until it succeeds, for at most `wait`: a process may start before its database.
/// The cause is logged at once.
///
/// # Errors
/// The error of the last call of `connect`.
pub async fn connect_within(
    wait: Duration,
    url: &str,
    max_connections: u32,
) -> sqlx::Result<PgPool> {
    let deadline = Instant::now() + wait;
    let mut pause = FIRST_PAUSE;
    let mut logged: Option<(String, Instant)> = None;
    loop {
        let error = match connect(url, max_connections).await {
            Err(error) if is_outage(&error) && Instant::now() < deadline => error,
            connected => return connected,
        };
        let why = explain(url, &error);
        let is_new = |(before, at): &(String, Instant)| *before != why || at.elapsed() > REPEAT;
        if logged.as_ref().is_none_or(is_new) {
            let left = deadline.saturating_duration_since(Instant::now());
            tracing::warn!("{why}; trying again for {} s", left.as_secs());
            logged = Some((why, Instant::now()));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Why the database behind this URL cannot be used, and what to do. Has no password.
pub fn explain(url: &str, error: &sqlx::Error) -> String {
    let Ok(options) = PgConnectOptions::from_str(url) else {
        return format!(
            "DATABASE_URL is not a URL of Postgres such as postgres://user@host/rehead: {error}"
        );
    };
    let server = match options.get_socket() {
        Some(socket) => format!("Postgres at `{}`", socket.display()),
        None => format!("Postgres at {}:{}", options.get_host(), options.get_port()),
    };
    let refusal = match error {
        sqlx::Error::Database(refusal) => refusal,
        sqlx::Error::PoolTimedOut => {
            return format!(
                "{server} does not answer; check that it runs and that DATABASE_URL names it"
            );
        }
        sqlx::Error::Io(cause) => {
            return format!(
                "cannot reach {server}: {cause}; check that it runs and that DATABASE_URL names it"
            );
        }
        other => return format!("cannot connect to {server}: {other}"),
    };
    let hint = match refusal.code().as_deref() {
        Some("28000" | "28P01") => "; check user and password in DATABASE_URL",
        Some("3D000") => "; create it with `createdb`, or name another one in DATABASE_URL",
        Some("42P01" | "42703") => "; run `rehead migrate` first",
        Some("42501") => "; see `rehead database grant-worker --help`",
        _ => "",
    };
    format!("{server}: {}{hint}", refusal.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_does_not_run_is_named_at_once_without_the_password() {
        // Nobody listens on a port that was just free.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let url = format!("postgres://me:secret@{address}/rehead");
        let error = connect(&url, 1).await.unwrap_err();
        let why = explain(&url, &error);
        assert!(why.contains(&address.to_string()), "{why}");
        assert!(why.contains("refused") && !why.contains("secret"), "{why}");
        let why = explain("not a url", &connect("not a url", 1).await.unwrap_err());
        assert!(why.contains("postgres://user@host/rehead"), "{why}");
    }
}
