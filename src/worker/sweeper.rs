//! Collects garbage at intervals: see `garbage_collection`.

use sqlx::PgPool;

use crate::{config::WorkArgs, db, garbage_collection, objects::Objects};

/// Sweeps at random intervals around `sweep_ms`, so that workers that started together do not sweep
/// together. Never returns.
pub(super) async fn run(pool: &PgPool, objects: &Objects, args: &WorkArgs) {
    let timing = &args.timing;
    loop {
        match db::retention::rotate_step_partitions(pool, args.steps_days).await {
            Ok(0) => {}
            Ok(weeks) => tracing::info!("deleted the training steps of {weeks} weeks"),
            Err(error) => tracing::warn!("cannot rotate the partitions of training steps: {error}"),
        }
        tokio::time::sleep(timing.sweep.mul_f64(rand::random_range(0.5..1.5))).await;
        if let Err(error) = db::workers::forget(pool).await {
            tracing::warn!("cannot delete the rows of old workers: {error}");
        }
        if let Err(error) = db::uploads::forget(pool).await {
            tracing::warn!("cannot delete the rows of old uploads: {error}");
        }
        if let Err(error) = db::sessions::delete_expired(pool).await {
            tracing::warn!("cannot delete sessions that have ended: {error}");
        }
        if let Err(error) = db::scores::delete_unused(pool).await {
            tracing::warn!("cannot delete the scores of data sets that are gone: {error}");
        }
        let swept = garbage_collection::sweep(pool, objects, timing.orphan);
        if let Err(error) = swept.await {
            tracing::warn!("garbage collection failed: {error:#}");
        }
    }
}
