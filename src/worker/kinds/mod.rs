//! The work of a worker, one file per kind. Each runs under a lease, and, except downloads and
//! pushes, in a child. Training slots call `train`; the other kinds share `run`.
//!
//! CONTRIBUTING.md lists what a further kind needs.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::task::{Ended, Task};
use super::{
    context::Worker,
    fault::Fault,
    lease::{self, Lease},
    listen::Wakeups,
};
use crate::{
    db::work::{self, Kind, Released},
    jobs::resolve_waiting::resolve_waiting,
    telemetry::metrics::{LEASES_LOST, WORK_DONE},
};

mod correct;
mod download;
mod export;
mod import;
mod push;
mod rank;
mod task;
mod thumbnails;
mod validate;

pub(super) mod train;

/// Kinds of work in the slot for uploads.
const UPLOADS: [Kind; 4] = [
    Kind::Validate,
    Kind::Import,
    Kind::Correct,
    Kind::Thumbnails,
];
/// Pause of the slot after the disk was full.
const AFTER_FULL: Duration = Duration::from_secs(5);

/// Runs the slots for uploads, exports, rankings, pushes and downloads until `shutdown`. Users wait
/// for an export, so it does not wait behind a long validation. A worker that may not push leaves
/// pushes to others.
pub(super) async fn run(worker: Arc<Worker>, shutdown: CancellationToken) {
    let Wakeups {
        validations,
        exports,
        downloads,
        rankings,
        pushes,
        ..
    } = &worker.wakeups;
    let downloading = (0..worker.args.downloads.downloads)
        .map(|_| slot(&worker, &[Kind::Download], downloads, &shutdown));
    let pushing = worker.outgoing.pushes();
    let pushing = pushing.then(|| slot(&worker, &[Kind::Push], pushes, &shutdown));
    tokio::join!(
        slot(&worker, &UPLOADS, validations, &shutdown),
        slot(&worker, &[Kind::Export], exports, &shutdown),
        slot(&worker, &[Kind::Rank], rankings, &shutdown),
        join_all(downloading),
        join_all(pushing),
    );
}

/// Runs one slot, one piece of work after the other.
async fn slot(worker: &Worker, kinds: &[Kind], wakeup: &Notify, shutdown: &CancellationToken) {
    while !shutdown.is_cancelled() {
        match round(worker, kinds, shutdown).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::warn!("cannot claim work: {error:#}"),
        }
        worker.wait_for_work(wakeup, shutdown).await;
    }
}

/// Does one piece of work. `false`: there was none. The slot for uploads first resolves jobs that
/// waited for them.
async fn round(
    worker: &Worker,
    kinds: &[Kind],
    shutdown: &CancellationToken,
) -> sqlx::Result<bool> {
    if kinds == UPLOADS {
        resolve_waiting(&worker.pool).await?;
    }
    let asked = lease::since_boot();
    let ttl = worker.args.timing.leases.lease;
    let Some(claimed) = work::claim(&worker.pool, worker.id, kinds, ttl).await? else {
        return Ok(false);
    };
    run_leased(worker, &claimed, asked, shutdown).await;
    Ok(true)
}

/// Does claimed work to its end, or puts it back in the queue.
async fn run_leased(
    worker: &Worker,
    claimed: &work::Lease,
    asked: Duration,
    shutdown: &CancellationToken,
) {
    let (kind, subject) = (claimed.kind.as_str(), claimed.subject);
    let lease = Lease::hold(worker, *claimed, asked);
    let task = Task {
        worker,
        claimed,
        lease: &lease,
    };
    let ended = tokio::select! {
        biased;
        () = lease.lost.cancelled() => Ended::Lost,
        () = shutdown.cancelled() => Ended::Stopped,
        done = perform(task) => done.map_or_else(Ended::from, |()| Ended::Done),
    };
    lease.end();
    WORK_DONE.add([kind.into(), ended.as_str().into()], 1);
    let (how, pause) = match ended {
        Ended::Lost => {
            LEASES_LOST.add([kind.into()], 1);
            return tracing::warn!(work.kind = kind, work.subject = %subject, "lease lost");
        }
        Ended::Done => {
            // Jobs may wait for it.
            return worker.wakeups.validations.notify_one();
        }
        Ended::Stopped => (Released::Unfinished, Duration::ZERO),
        Ended::Full(why) => {
            tracing::warn!(work.kind = kind, work.subject = %subject, "no room to {kind}, will retry: {why}");
            (Released::Unfinished, AFTER_FULL)
        }
        Ended::Crashed(why) => {
            tracing::warn!(work.kind = kind, work.subject = %subject, "crashed, will retry: {why}");
            (Released::Crashed, Duration::ZERO)
        }
    };
    if let Err(error) = work::release(&worker.pool, claimed, how).await {
        tracing::warn!(work.kind = kind, work.subject = %subject, "cannot release the lease, it will expire: {error}");
    }
    shutdown
        .run_until_cancelled(tokio::time::sleep(pause))
        .await;
}

/// Does one piece of work under its lease.
async fn perform(task: Task<'_>) -> Result<(), Fault> {
    match task.claimed.kind {
        Kind::Train => unreachable!("training slots claim jobs: this is a bug"),
        Kind::Validate => validate::run(task).await,
        Kind::Import => import::run(task).await,
        Kind::Export => export::run(task).await,
        Kind::Download => download::run(task).await,
        Kind::Rank => rank::run(task).await,
        Kind::Push => push::run(task).await,
        Kind::Thumbnails => thumbnails::run(task).await,
        Kind::Correct => correct::run(task).await,
    }
}
