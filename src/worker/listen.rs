//! Wakes the parts of a worker on notifications. They only save time: what is lost here is found
//! by the next poll or heartbeat.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::sync::Notify;

use crate::db::{self, channel};

const RETRY: Duration = Duration::from_secs(1);

/// Wakeups of the parts of a worker. One that nobody waits for is kept for the next waiter, except
/// those of `control`.
#[derive(Debug, Default)]
pub(super) struct Wakeups {
    pub(super) jobs: Notify,
    pub(super) validations: Notify,
    pub(super) exports: Notify,
    pub(super) downloads: Notify,
    pub(super) rankings: Notify,
    pub(super) pushes: Notify,
    /// A control request came in for a running job: heartbeats are sent at once.
    pub(super) control: Arc<Notify>,
    /// The connection to Postgres was lost for a while: leases may look expired that are not.
    pub(super) reconnected: Notify,
}

/// Turns notifications into wakeups. Never returns.
pub(super) async fn run(pool: &PgPool, wakeups: &Wakeups) {
    loop {
        let mut listener = match db::listen(pool, &[channel::WORK, channel::CONTROL]).await {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!("cannot listen for notifications: {error}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        loop {
            match listener.try_recv().await {
                Ok(Some(notification)) => match (notification.channel(), notification.payload()) {
                    (channel::CONTROL, _) => wakeups.control.notify_waiters(),
                    (channel::WORK, "train") => wakeups.jobs.notify_one(),
                    (channel::WORK, "export") => wakeups.exports.notify_one(),
                    (channel::WORK, "download") => wakeups.downloads.notify_one(),
                    (channel::WORK, "rank") => wakeups.rankings.notify_one(),
                    (channel::WORK, "push") => wakeups.pushes.notify_one(),
                    _ => wakeups.validations.notify_one(),
                },
                // The connection was lost, and notifications with it.
                Ok(None) => {
                    wakeups.reconnected.notify_one();
                    wakeups.control.notify_waiters();
                    wakeups.jobs.notify_one();
                    wakeups.validations.notify_one();
                    wakeups.exports.notify_one();
                    wakeups.downloads.notify_one();
                    wakeups.rankings.notify_one();
                    wakeups.pushes.notify_one();
                }
                Err(error) => {
                    tracing::warn!("notifications stopped: {error}");
                    wakeups.reconnected.notify_one();
                    tokio::time::sleep(RETRY).await;
                    break;
                }
            }
        }
    }
}
