//! Ends attempts whose lease ran out, whoever held it, and says now and then that this worker is there.
//!
//! After this worker's start, and after every loss of the database, it waits for one lease: an outage makes every lease
//! look dead, and their owners get that long to say that they live.

use tokio::time::Instant;

use super::Worker;
use crate::db;

/// Reaps for ever.
pub(super) async fn run(worker: &Worker) {
    let timing = &worker.args.timing;
    let mut idle_until = Instant::now() + timing.lease();
    let mut answered = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(timing.reap()) => {}
            () = worker.wakes.reconnected.notified() => {
                idle_until = Instant::now() + timing.lease();
                continue;
            }
        }
        let round = async {
            db::workers::beat(&worker.pool, worker.id).await?;
            // The database was away, though no call failed: each waited for it.
            if answered.elapsed() > timing.reap() + timing.lease() / 3 {
                idle_until = Instant::now() + timing.lease();
            }
            answered = Instant::now();
            if Instant::now() >= idle_until {
                reap(worker).await
            } else {
                Ok(())
            }
        };
        if let Err(error) = round.await {
            tracing::warn!("cannot look for dead leases: {error}");
            idle_until = Instant::now() + timing.lease();
        }
    }
}

async fn reap(worker: &Worker) -> sqlx::Result<()> {
    // The lease itself is the grace: a worker stops believing in it before it ends.
    while let Some((job, status)) = db::queue::reap(&worker.pool, std::time::Duration::ZERO).await?
    {
        tracing::warn!(job.id = %job, "a lease ran out; the job is now {}", status.as_str());
    }
    for file in db::files::give_up(&worker.pool).await? {
        tracing::warn!(file.id = %file, "gave up on a file: its validation crashed too often");
    }
    for model in db::models::give_up_imports(&worker.pool).await? {
        tracing::warn!(
            model.id = model,
            "gave up on a base model: its import crashed too often"
        );
    }
    Ok(())
}
