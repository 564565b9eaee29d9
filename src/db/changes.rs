//! Notifies waiting requests of changes, without a connection per request. Files, models and
//! rankings send notifications: one connection listens and passes them on. Jobs change too often
//! for that (docs/adr/0009): one query polls all jobs that a request waits for. A notification can
//! be lost, by a broken connection or a slow receiver, so every waiter also polls, at a longer
//! interval.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, broadcast},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    db::{self, channel},
    domain::id::JobId,
};

/// Interval at which a waiter polls without a notification.
const POLL: Duration = Duration::from_secs(2);
/// The same for followers of a job's events, of which there may be thousands. Jobs are polled for
/// all of them together.
const FOLLOWER_POLL: Duration = Duration::from_secs(20);
/// Interval at which awaited jobs are polled.
const JOB_POLL: Duration = Duration::from_millis(100);
/// The subject of a change of API keys, of whichever.
pub const KEYS: &str = "keys";
/// Notifications buffered for a slow receiver; one that misses some polls at once.
const CAPACITY: usize = 1_024;

/// Passes changes on to subscribers.
#[derive(Clone)]
pub struct Changes {
    sender: broadcast::Sender<String>,
    jobs: Arc<Awaited>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(CAPACITY).0,
            jobs: Arc::default(),
        }
    }
}

impl Changes {
    /// Subscribes to changes of files, models, rankings and API keys.
    pub fn subscribe(&self) -> Subscription {
        self.subscription(Target::Notified, POLL)
    }

    /// Subscribes to changes of this job.
    pub fn subscribe_to(&self, job: JobId) -> Subscription {
        self.subscription(Target::Job(Arc::clone(&self.jobs), job), POLL)
    }

    /// Subscribes to the events of this job, and to nothing else about it.
    pub fn follow(&self, job: JobId) -> Subscription {
        let target = Target::Job(Arc::clone(&self.jobs), job);
        self.subscription(target, FOLLOWER_POLL)
    }

    fn subscription(&self, target: Target, fallback: Duration) -> Subscription {
        let mut poll = interval(fallback);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll.reset();
        Subscription {
            receiver: self.sender.subscribe(),
            poll,
            target,
        }
    }

    /// Passes changes on until `shutdown`; reconnects after errors.
    pub async fn listen(self, pool: sqlx::PgPool, shutdown: CancellationToken) {
        tokio::select! {
            () = self.relay(&pool) => {}
            () = self.poll_jobs(&pool) => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn relay(&self, pool: &sqlx::PgPool) {
        loop {
            if let Err(error) = self.relay_one_connection(pool).await {
                tracing::warn!(
                    "cannot listen for changes; waiting requests poll every {} s: {error}",
                    POLL.as_secs()
                );
            }
            sleep(POLL).await;
        }
    }

    async fn relay_one_connection(&self, pool: &sqlx::PgPool) -> sqlx::Result<()> {
        let channels = [
            channel::FILE,
            channel::MODEL,
            channel::RANKING,
            channel::KEY,
        ];
        let mut listener = db::listen(pool, &channels).await?;
        while let Some(notice) = listener.try_recv().await? {
            let subject = match notice.channel() {
                channel::KEY => KEYS,
                _ => notice.payload(),
            };
            self.send(subject.to_owned());
        }
        Ok(())
    }

    async fn poll_jobs(&self, pool: &sqlx::PgPool) {
        loop {
            let jobs = self.jobs.ids();
            if jobs.is_empty() {
                self.jobs.added.notified().await;
                continue;
            }
            match db::events::counts(pool, &jobs).await {
                Ok(counts) => {
                    for job in self.jobs.changed(&counts) {
                        self.send(job.to_string());
                    }
                    sleep(JOB_POLL).await;
                }
                Err(error) => {
                    tracing::warn!("cannot poll jobs for changes: {error}");
                    sleep(POLL).await;
                }
            }
        }
    }

    fn send(&self, subject: String) {
        // An error means that there is no receiver.
        let _ = self.sender.send(subject);
    }
}

/// Jobs that have waiters.
#[derive(Default)]
struct Awaited {
    jobs: Mutex<HashMap<JobId, AwaitedJob>>,
    /// Notified when a waiter is added.
    added: Notify,
}

#[derive(Default)]
struct AwaitedJob {
    waiters: usize,
    /// Number of events of the job; `None` before the first poll.
    events: Option<i64>,
}

impl Awaited {
    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, AwaitedJob>> {
        // A panic cannot leave counts half changed.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ids(&self) -> Vec<JobId> {
        self.lock().keys().copied().collect()
    }

    /// Jobs with more events than at the last poll, and jobs polled for the first time, which may
    /// have changed since their waiters read them.
    fn changed(&self, counts: &[(JobId, i64)]) -> Vec<JobId> {
        let mut jobs = self.lock();
        let mut changed = Vec::new();
        for &(id, events) in counts {
            if let Some(awaited) = jobs.get_mut(&id)
                && awaited.events.replace(events) != Some(events)
            {
                changed.push(id);
            }
        }
        changed
    }
}

/// Keeps a job polled while it lives.
struct Waiter {
    jobs: Arc<Awaited>,
    job: JobId,
}

impl Waiter {
    fn new(jobs: Arc<Awaited>, job: JobId) -> Self {
        let mut all = jobs.lock();
        all.entry(job).or_default().waiters += 1;
        drop(all);
        jobs.added.notify_one();
        Self { jobs, job }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.jobs.lock().entry(self.job) {
            entry.get_mut().waiters -= 1;
            if entry.get().waiters == 0 {
                entry.remove();
            }
        }
    }
}

/// A receiver of changes.
pub struct Subscription {
    receiver: broadcast::Receiver<String>,
    poll: tokio::time::Interval,
    target: Target,
}

/// The changes that a subscription receives.
enum Target {
    /// Changes of all files, models and keys.
    Notified,
    /// A job, before the first wait; most requests never wait.
    Job(Arc<Awaited>, JobId),
    /// A job, after that.
    AwaitedJob { _waiter: Waiter },
}

impl Subscription {
    /// Returns when `subject` may have changed: it was notified, notifications were missed, or it
    /// is time to poll. The first wait for a job returns at once: what changed before the job was
    /// polled for this waiter is in no notification.
    pub async fn changed(&mut self, subject: &str) {
        if let Target::Job(jobs, job) = &self.target {
            self.target = Target::AwaitedJob {
                _waiter: Waiter::new(Arc::clone(jobs), *job),
            };
            return;
        }
        loop {
            tokio::select! {
                received = self.receiver.recv() => match received {
                    Ok(payload) if payload != subject => {}
                    _ => return,
                },
                _ = self.poll.tick() => return,
            }
        }
    }

    /// Reads until `done` holds or `wait` is over; returns what was read last.
    ///
    /// # Errors
    /// The first error of `read`.
    pub async fn until<T, E, F>(
        &mut self,
        subject: &str,
        wait: Duration,
        shutdown: &CancellationToken,
        mut read: impl FnMut() -> F,
        done: impl Fn(&T) -> bool,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let deadline = Instant::now() + wait;
        loop {
            let seen = read().await?;
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
