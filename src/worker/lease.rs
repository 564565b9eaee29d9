//! Keeps a claim alive, on a connection that nothing else uses, and says when it is lost, and what its user asks for.
//!
//! The database's clock decides when a lease ends, and its rows decide who owns it. A database that does not answer has
//! given the lease to nobody, as far as one can know: the trainer goes on for `outage_ms`, and the first answer says whether
//! the lease held. Where this worker alone was cut off, its trainer works in vain for that long; its writes carry an old
//! token and change nothing. The clock here counts the time a machine was suspended.

use std::{pin::pin, sync::Arc, time::Duration};

use nix::time::{ClockId, clock_gettime};
use sqlx::PgPool;
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::{
    config::Timing,
    db::{self, models::ClaimedImport, queue::Heartbeat},
    domain::id::{FileId, JobId},
};

/// Time between two tries when the database does not answer.
const RETRY: Duration = Duration::from_millis(250);

/// What is held.
#[derive(Debug, Clone)]
pub(super) enum Claim {
    Job { job: JobId, token: i64 },
    File { file: FileId, token: i64 },
    Import(Box<ClaimedImport>),
}

/// A claim that is kept alive until this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    lost: CancellationToken,
    wishes: Wishes,
    beating: JoinHandle<()>,
}

/// What the user of a job has asked for, as far as heartbeats told.
#[derive(Debug, Clone, Default)]
struct Wishes {
    cancel: CancellationToken,
    pause: CancellationToken,
    stop: CancellationToken,
}

/// Time since the machine started, suspension included.
pub(super) fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .expect("Linux has this clock: this is a bug")
}

impl Claim {
    /// `None`: lost.
    async fn renew(&self, pool: &PgPool, ttl: Duration) -> sqlx::Result<Option<Heartbeat>> {
        let kept = match self {
            Self::Job { job, token } => return db::queue::heartbeat(pool, *job, *token, ttl).await,
            Self::File { file, token } => db::files::renew(pool, *file, *token, ttl).await?,
            Self::Import(import) => db::models::renew_import(pool, import, ttl).await?,
        };
        Ok(kept.then_some(Heartbeat {
            cancel_requested: false,
            pause_requested: false,
            stop_requested: false,
        }))
    }
}

impl Wishes {
    fn hear(&self, heartbeat: Heartbeat) {
        for (asked, wish) in [
            (heartbeat.cancel_requested, &self.cancel),
            (heartbeat.pause_requested, &self.pause),
            (heartbeat.stop_requested, &self.stop),
        ] {
            if asked {
                wish.cancel();
            }
        }
    }
}

impl Lease {
    /// Keeps `claim`, which was asked for at boot time `asked`.
    pub(super) fn hold(worker: &Worker, claim: Claim, asked: Duration) -> Self {
        let (lost, wishes) = (CancellationToken::new(), Wishes::default());
        let beats = Beats {
            pool: worker.heartbeats.clone(),
            claim,
            timing: worker.args.timing.clone(),
            asked: Arc::clone(&worker.wakes.control),
            lost: lost.clone(),
            wishes: wishes.clone(),
        };
        Self {
            lost,
            wishes,
            beating: tokio::spawn(beats.run(asked)),
        }
    }

    /// Returns when the claim is lost, or must be taken for lost.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Ends the heartbeats before the write that ends the claim: one behind it would take the claim for lost.
    pub(super) fn end(&self) {
        self.beating.abort();
    }

    /// Returns when the job's cancellation is asked for.
    pub(super) async fn cancelled(&self) {
        self.wishes.cancel.cancelled().await;
    }

    /// Cancelled when a pause is asked for. It may have been taken back since: the end of the attempt decides.
    pub(super) fn pause(&self) -> &CancellationToken {
        &self.wishes.pause
    }

    /// Returns when the job is asked to train no further.
    pub(super) async fn stopped(&self) {
        self.wishes.stop.cancelled().await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end();
    }
}

struct Beats {
    pool: PgPool,
    claim: Claim,
    timing: Timing,
    asked: Arc<Notify>,
    lost: CancellationToken,
    wishes: Wishes,
}

impl Beats {
    async fn run(self, asked: Duration) {
        let fence = self.timing.outage().max(self.timing.lease() * 3 / 4);
        let mut last_kept = asked;
        let mut pause = self.timing.heartbeat();
        let mut rung = pin!(self.asked.notified());
        loop {
            let left = fence.saturating_sub(since_boot().saturating_sub(last_kept));
            tokio::select! {
                () = tokio::time::sleep(pause.min(left)) => {}
                () = &mut rung => {}
            }
            // From here on: what is asked for while the heartbeat runs may have come too late for it.
            rung.set(self.asked.notified());
            rung.as_mut().enable();
            let asked = since_boot();
            let left = fence.saturating_sub(asked.saturating_sub(last_kept));
            let patience = left.min(self.timing.heartbeat());
            match tokio::time::timeout(patience, self.claim.renew(&self.pool, self.timing.lease()))
                .await
            {
                Ok(Ok(Some(heartbeat))) => {
                    last_kept = asked;
                    pause = self.timing.heartbeat();
                    self.wishes.hear(heartbeat);
                }
                Ok(Ok(None)) => {
                    tracing::warn!("the lease is lost: another worker owns this work now");
                    return self.lost.cancel();
                }
                Ok(Err(error)) => {
                    tracing::warn!("no heartbeat: {error}");
                    pause = RETRY;
                }
                Err(_) => pause = RETRY,
            }
            if since_boot().saturating_sub(last_kept) >= fence {
                tracing::warn!(
                    "no heartbeat for {} ms: taking the lease for lost",
                    fence.as_millis()
                );
                return self.lost.cancel();
            }
        }
    }
}
