//! Ends attempts whose lease ran out, whoever held it. Workers and servers do so: a job must not wait for its dead worker
//! where no other is there.
//!
//! After the start, and after every loss of the database, nothing is reaped for one lease: an outage makes every lease
//! look dead, and their owners get that long to say that they live.

use std::time::Duration;

use sqlx::PgPool;
use tokio::{sync::Notify, time::Instant};

use crate::{
    config::LeaseTiming,
    db::{self, persist::is_outage},
    domain::id::WorkerId,
};

/// Reaps for ever, and says for `worker` that it is there. `reconnected` rings when the connection was lost for a while.
pub async fn run(
    pool: &PgPool,
    timing: &LeaseTiming,
    worker: Option<WorkerId>,
    reconnected: &Notify,
) {
    let mut idle_until = Instant::now() + timing.lease();
    let mut answered = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(timing.reap()) => {}
            () = reconnected.notified() => {
                idle_until = Instant::now() + timing.lease();
                continue;
            }
        }
        let round = async {
            match worker {
                Some(id) => db::workers::beat(pool, id).await?,
                None => db::ping(pool).await?,
            }
            // The database was away, though no call failed: each waited for it.
            if answered.elapsed() > timing.reap() + timing.lease() / 3 {
                idle_until = Instant::now() + timing.lease();
            }
            answered = Instant::now();
            if Instant::now() >= idle_until {
                reap(pool).await
            } else {
                Ok(())
            }
        };
        if let Err(error) = round.await {
            tracing::warn!("cannot look for dead leases: {error}");
            if is_outage(&error) {
                idle_until = Instant::now() + timing.lease();
            }
        }
    }
}

async fn reap(pool: &PgPool) -> sqlx::Result<()> {
    // The lease itself is the grace: a worker stops believing in it before it ends.
    while let Some((job, status)) = db::queue::reap(pool, Duration::ZERO).await? {
        tracing::warn!(job.id = %job, "a lease ran out; the job is now {}", status.as_str());
    }
    for file in db::files::reap(pool).await? {
        tracing::warn!(file.id = %file, "gave up on a file: no validation of it came to an end");
    }
    for model in db::models::reap_imports(pool).await? {
        tracing::warn!(
            model.id = model,
            "gave up on a base model: no import of it came to an end"
        );
    }
    Ok(())
}
