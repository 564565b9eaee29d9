//! Keeps a lease alive by heartbeats on connections that nothing else uses, and passes on control
//! requests and the loss of the lease.
//!
//! The database's clock decides when a lease ends, and its rows decide who owns it. While the
//! database is unreachable, probably nobody has taken the lease over: the trainer continues for
//! `outage_ms`, and the first heartbeat that is answered shows if the lease held. If only this
//! worker was cut off, its trainer works for nothing until then; its writes carry an old token and
//! change nothing. The clock used here includes the time a machine was suspended.

use std::{pin::pin, sync::Arc, time::Duration};

use nix::time::{ClockId, clock_gettime};
use sqlx::PgPool;
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::context::Worker;
use crate::{
    config::Timing,
    db::work::{self, Heartbeat},
};

/// Time between two heartbeats while the database does not answer.
const RETRY: Duration = Duration::from_millis(250);

/// A lease that is kept alive until this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    /// Cancelled when the lease is lost, or must be considered lost.
    pub(super) lost: CancellationToken,
    pub(super) requests: ControlRequests,
    heartbeats: JoinHandle<()>,
}

/// Control requests of the job's user, as the last heartbeats answered. A request may have been
/// withdrawn since: the end of the attempt decides.
#[derive(Debug, Clone, Default)]
pub(super) struct ControlRequests {
    pub(super) cancel: CancellationToken,
    pub(super) pause: CancellationToken,
    pub(super) stop: CancellationToken,
}

/// Time since the machine started, suspension included.
pub(super) fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .expect("Linux has this clock: this is a bug")
}

impl ControlRequests {
    fn record(&self, heartbeat: Heartbeat) {
        for (requested, signal) in [
            (heartbeat.cancel_requested, &self.cancel),
            (heartbeat.pause_requested, &self.pause),
            (heartbeat.stop_requested, &self.stop),
        ] {
            if requested {
                signal.cancel();
            }
        }
    }
}

impl Lease {
    /// Keeps the lease of `claim`, which was sent at boot time `asked`.
    pub(super) fn hold(worker: &Worker, claim: work::Lease, asked: Duration) -> Self {
        let (lost, requests) = (CancellationToken::new(), ControlRequests::default());
        let heartbeats = Heartbeats {
            pool: worker.heartbeats.clone(),
            claim,
            timing: worker.args.timing.clone(),
            control: Arc::clone(&worker.wakeups.control),
            lost: lost.clone(),
            requests: requests.clone(),
        };
        Self {
            lost,
            requests,
            heartbeats: tokio::spawn(heartbeats.run(asked)),
        }
    }

    /// Stops the heartbeats, before the write that ends the claim: a heartbeat after that write
    /// would find no lease.
    pub(super) fn end(&self) {
        self.heartbeats.abort();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end();
    }
}

struct Heartbeats {
    pool: PgPool,
    claim: work::Lease,
    timing: Timing,
    /// Rung when a control request came in.
    control: Arc<Notify>,
    lost: CancellationToken,
    requests: ControlRequests,
}

impl Heartbeats {
    async fn run(self, asked: Duration) {
        let limit = self.timing.outage.max(self.timing.leases.lease * 3 / 4);
        let mut last_kept = asked;
        let mut pause = self.timing.heartbeat();
        let mut requested = pin!(self.control.notified());
        loop {
            let left = limit.saturating_sub(since_boot().saturating_sub(last_kept));
            tokio::select! {
                () = tokio::time::sleep(pause.min(left)) => {}
                () = &mut requested => {}
            }
            // A request that comes in from here on may be too late for this heartbeat.
            requested.set(self.control.notified());
            requested.as_mut().enable();
            let asked = since_boot();
            let left = limit.saturating_sub(asked.saturating_sub(last_kept));
            let patience = left.min(self.timing.heartbeat());
            match tokio::time::timeout(
                patience,
                work::renew(&self.pool, &self.claim, self.timing.leases.lease),
            )
            .await
            {
                Ok(Ok(Some(heartbeat))) => {
                    last_kept = asked;
                    pause = self.timing.heartbeat();
                    self.requests.record(heartbeat);
                }
                Ok(Ok(None)) => {
                    tracing::warn!("lease lost: another worker owns this work now");
                    return self.lost.cancel();
                }
                Ok(Err(error)) => {
                    tracing::warn!("heartbeat failed: {error}");
                    pause = RETRY;
                }
                Err(_) => pause = RETRY,
            }
            if since_boot().saturating_sub(last_kept) >= limit {
                tracing::warn!(
                    "no heartbeat was answered for {} ms: considering the lease lost",
                    limit.as_millis()
                );
                return self.lost.cancel();
            }
        }
    }
}
