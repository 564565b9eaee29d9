//! Waiting for the database without holding a connection each: one connection listens for all requests and passes what
//! it hears on. Notifications can be lost (a broken connection, a slow reader), so every waiter also looks by itself
//! now and then; the notification only makes it quick.

use std::{future::Future, time::Duration};

use tokio::{
    sync::broadcast,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::db::{self, channel};

/// Between two looks without a notification.
const POLL: Duration = Duration::from_secs(2);
/// Notices kept for a slow waiter; one that misses some looks at once.
const KEPT: usize = 1_024;

/// Passes notifications on to whoever waits.
#[derive(Clone)]
pub struct Notices {
    sender: broadcast::Sender<String>,
}

impl Notices {
    pub fn new() -> Self {
        Self {
            sender: broadcast::channel(KEPT).0,
        }
    }

    /// Hears of every change from now on.
    pub fn subscribe(&self) -> Subscription {
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll.reset();
        Subscription {
            receiver: self.sender.subscribe(),
            poll,
        }
    }

    /// Listens until `shutdown`, through broken connections.
    pub(super) async fn listen(self, pool: sqlx::PgPool, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                heard = self.relay(&pool) => {
                    if let Err(error) = heard {
                        tracing::warn!("cannot listen for changes, waiting requests look every {} s: {error}", POLL.as_secs());
                    }
                }
                () = shutdown.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn relay(&self, pool: &sqlx::PgPool) -> sqlx::Result<()> {
        let mut listener = db::listen(pool, &[channel::JOB, channel::FILE, channel::MODEL]).await?;
        while let Some(notice) = listener.try_recv().await? {
            // No receiver is no error: nobody waits.
            let _ = self.sender.send(notice.payload().to_owned());
        }
        Ok(())
    }
}

/// One waiter's ear.
pub struct Subscription {
    receiver: broadcast::Receiver<String>,
    poll: tokio::time::Interval,
}

impl Subscription {
    /// Returns when `subject` may have changed: a notice named it, some were missed, or it is time to look again.
    pub async fn changed(&mut self, subject: &str) {
        loop {
            tokio::select! {
                heard = self.receiver.recv() => match heard {
                    Ok(payload) if payload != subject => {}
                    _ => return,
                },
                _ = self.poll.tick() => return,
            }
        }
    }

    /// Looks until `look` finds something or `wait` is over; returns what the last look saw.
    ///
    /// # Errors
    /// The first error of `look`.
    pub async fn until<T, E, F>(
        &mut self,
        subject: &str,
        wait: Duration,
        shutdown: &CancellationToken,
        mut look: impl FnMut() -> F,
        done: impl Fn(&T) -> bool,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let deadline = Instant::now() + wait;
        loop {
            let seen = look().await?;
            if done(&seen) || Instant::now() >= deadline {
                return Ok(seen);
            }
            tokio::select! {
                _ = timeout_at(deadline, self.changed(subject)) => {}
                () = shutdown.cancelled() => return Ok(seen),
            }
        }
    }
}
