//! Notifications: they only make things quicker. Whatever is lost here is found by the next poll or heartbeat.

use std::time::Duration;

use super::Worker;
use crate::db::{self, channel};

const RETRY: Duration = Duration::from_secs(1);

/// Rings the worker's wakes, for ever.
pub(super) async fn run(worker: &Worker) {
    loop {
        let mut listener = match db::listen(&worker.pool, &[channel::WORK, channel::CONTROL]).await
        {
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
                    (channel::CONTROL, _) => worker.wakes.control.notify_waiters(),
                    (channel::WORK, "job") => worker.wakes.jobs.notify_one(),
                    _ => worker.wakes.validations.notify_one(),
                },
                // The connection was lost, and notifications with it.
                Ok(None) => {
                    worker.wakes.reconnected.notify_one();
                    worker.wakes.control.notify_waiters();
                    worker.wakes.jobs.notify_one();
                    worker.wakes.validations.notify_one();
                }
                Err(error) => {
                    tracing::warn!("notifications stopped: {error}");
                    worker.wakes.reconnected.notify_one();
                    tokio::time::sleep(RETRY).await;
                    break;
                }
            }
        }
    }
}
