//! Removes now and then what nothing needs any more, whoever left it: see `retention`.

use super::Worker;
use crate::{db, retention};

/// Sweeps for ever; the first time after a while, so that workers that started together do not sweep together.
pub(super) async fn run(worker: &Worker) {
    let timing = &worker.args.timing;
    loop {
        match db::retention::turn_weeks(&worker.pool, worker.args.steps_days).await {
            Ok(0) => {}
            Ok(weeks) => tracing::info!("forgot the steps of jobs of {weeks} weeks"),
            Err(error) => tracing::warn!("cannot make room for steps: {error}"),
        }
        tokio::time::sleep(timing.sweep().mul_f64(rand::random_range(0.5..1.5))).await;
        if let Err(error) = db::workers::forget(&worker.pool).await {
            tracing::warn!("cannot forget old workers: {error}");
        }
        let sweep = retention::sweep(&worker.pool, &worker.objects, timing.orphan());
        if let Err(error) = sweep.await {
            tracing::warn!("cannot look for what nothing needs: {error:#}");
        }
    }
}
