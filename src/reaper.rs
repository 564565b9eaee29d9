//! Ends attempts whose lease has expired. Workers and servers both do: a job must not wait for its
//! dead worker where there is no other.
//!
//! After a start, and after every loss of the database, nothing is reaped for one lease: during an
//! outage every lease seems to expire, and their owners get that long for a heartbeat.

use std::time::Duration;

use sqlx::PgPool;
use tokio::{sync::Notify, time::Instant};

use crate::{
    config::LeaseTiming,
    db::{self, persist::is_outage, reap::Reaped},
    domain::{id::WorkerId, job::JobStatus},
    telemetry::metrics::{ATTEMPTS, JOBS_ENDED, LEASES_EXPIRED, WORK_GIVEN_UP},
};

/// Reaps at intervals, and marks `worker` as alive. `reconnected` is notified when the connection
/// was lost for a while. Never returns.
pub async fn run(
    pool: &PgPool,
    timing: &LeaseTiming,
    worker: Option<WorkerId>,
    reconnected: &Notify,
) {
    let mut idle_until = Instant::now() + timing.lease;
    let mut answered = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(timing.reap) => {}
            () = reconnected.notified() => {
                idle_until = Instant::now() + timing.lease;
                continue;
            }
        }
        let round = async {
            match worker {
                Some(id) => db::workers::beat(pool, id).await?,
                None => db::ping(pool).await?,
            }
            // The database was unreachable though no call failed: each call waited for it.
            if answered.elapsed() > timing.reap + timing.lease / 3 {
                idle_until = Instant::now() + timing.lease;
            }
            answered = Instant::now();
            if Instant::now() >= idle_until {
                reap(pool).await
            } else {
                Ok(())
            }
        };
        if let Err(error) = round.await {
            tracing::warn!("cannot reap expired leases: {error}");
            if is_outage(&error) {
                idle_until = Instant::now() + timing.lease;
            }
        }
    }
}

async fn reap(pool: &PgPool) -> sqlx::Result<()> {
    // No grace beyond the lease: a worker gives it up before it expires.
    while let Some(Reaped { lease, job }) = db::reap::expired(pool, Duration::ZERO).await? {
        LEASES_EXPIRED.add([lease.kind.as_str().into()], 1);
        if let Some(status) = job {
            ATTEMPTS.add(["lost".into()], 1);
            if status.is_terminal() {
                JOBS_ENDED.add([status.as_str().into()], 1);
            }
        }
        let becomes = job.map_or("waiting", JobStatus::as_str);
        tracing::warn!(work.kind = lease.kind.as_str(), work.subject = %lease.subject, "a lease expired; its work is now {becomes}");
    }
    for lease in db::reap::exhausted(pool).await? {
        WORK_GIVEN_UP.add([lease.kind.as_str().into()], 1);
        tracing::warn!(work.kind = lease.kind.as_str(), work.subject = %lease.subject, "work failed: it crashed or timed out too often");
    }
    Ok(())
}
