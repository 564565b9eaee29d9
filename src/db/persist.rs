//! Calls that survive an outage of Postgres: retried until they succeed, are refused, or their
//! lease is lost (the caller then drops them). Each write carries a token or an id, so that
//! repeating one that was committed without an answer is harmless.

use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Calls `write` until it succeeds or fails for a reason other than an outage.
///
/// # Errors
/// Every error that a retry would meet again, such as a violated constraint.
pub async fn persist<T, F>(what: &str, mut write: impl FnMut() -> F) -> sqlx::Result<T>
where
    F: Future<Output = sqlx::Result<T>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match write().await {
            Err(error) if is_outage(&error) => {
                tracing::warn!("{what}: trying again in {} ms: {error}", pause.as_millis());
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            answer => return answer,
        }
    }
}

/// True when the same statement may succeed later.
pub fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed => true,
        // Connection lost, out of resources, stopped by an operator, deadlock or serialization
        // failure; 25006 is a read-only server.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "53", "57", "40"]
                .iter()
                .any(|class| code.starts_with(class))
                || code == "25006"
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn an_outage_is_waited_for_and_a_refusal_is_not() {
        let calls = Cell::new(0);
        let written = persist("test", || async {
            calls.set(calls.get() + 1);
            if calls.get() < 3 {
                Err(sqlx::Error::PoolTimedOut)
            } else {
                Ok(calls.get())
            }
        });
        assert_eq!(written.await.unwrap(), 3);
        let refused: sqlx::Result<()> =
            persist("test", || async { Err(sqlx::Error::RowNotFound) }).await;
        assert!(matches!(refused, Err(sqlx::Error::RowNotFound)));
    }
}
