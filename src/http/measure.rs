//! Refreshes the gauges of a server: the queue as the database has it, its streams, predictions,
//! disks and connections.

use crate::{
    db::{
        census::{self, WORKER_STATES},
        work::Kind,
    },
    domain::job::JobStatus,
    http::api::state::AppState,
    telemetry::{
        Refresh,
        metrics::{
            DATABASE_UP, EVENT_STREAMS, EVENT_STREAMS_MAX, JOBS, JOBS_OLDEST, PREDICTIONS_WAITING,
            PREDICTIONS_WAITING_MAX, WORK, WORK_OLDEST, WORKERS,
        },
        process,
    },
};

/// Measures at intervals. Never returns.
pub(super) async fn run(state: AppState) {
    let mut refresh = Refresh::new();
    loop {
        refresh.due().await;
        measure(&state).await;
    }
}

/// Measures once.
pub(super) async fn measure(state: &AppState) {
    let counted = count(state).await;
    if let Err(error) = &counted {
        tracing::debug!("cannot count the queue: {error}");
    }
    DATABASE_UP.set([], f64::from(u8::from(counted.is_ok())));
    let limit = state.limits.max_streams;
    EVENT_STREAMS.set([], state.quotas.streams.used() as f64);
    EVENT_STREAMS_MAX.set([], limit as f64);
    let (waiting, limit) = state.predictor.waiting();
    PREDICTIONS_WAITING.set([], waiting as f64);
    PREDICTIONS_WAITING_MAX.set([], limit as f64);
    process::measure_pool("main", &state.pool);
    tokio::task::block_in_place(|| {
        process::measure();
        process::measure_disk("objects", state.objects.root());
        process::measure_disk("scratch", state.predictor.scratch());
    });
}

/// Reads the queue. What nothing is in is 0, so that its series is there.
async fn count(state: &AppState) -> sqlx::Result<()> {
    let jobs = census::jobs(&state.pool).await?;
    for status in JobStatus::ALL
        .into_iter()
        .filter(|status| !status.is_terminal())
    {
        let found = jobs.iter().find(|jobs| jobs.status == status);
        let label = || [status.as_str().into()];
        JOBS.set(label(), found.map_or(0.0, |jobs| jobs.count as f64));
        JOBS_OLDEST.set(label(), found.map_or(0.0, |jobs| jobs.oldest_seconds));
    }
    let work = census::work(&state.pool).await?;
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Train) {
        let found = work.iter().find(|work| work.kind == kind);
        let label = |state: &'static str| [kind.as_str().into(), state.into()];
        WORK.set(
            label("waiting"),
            found.map_or(0.0, |work| work.waiting as f64),
        );
        WORK.set(
            label("leased"),
            found.map_or(0.0, |work| work.leased as f64),
        );
        let oldest = found.map_or(0.0, |work| work.oldest_seconds);
        WORK_OLDEST.set([kind.as_str().into()], oldest);
    }
    let workers = census::workers(&state.pool).await?;
    for known in WORKER_STATES {
        let found = workers.iter().find(|(state, _)| state == known);
        WORKERS.set(
            [known.into()],
            found.map_or(0.0, |(_, count)| *count as f64),
        );
    }
    Ok(())
}
