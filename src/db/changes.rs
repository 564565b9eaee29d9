//! Waiting for the database without holding a connection each. Files and models are notified: one connection listens for all
//! requests and passes what it hears on. Jobs change too often for that (docs/adr/0009): one query looks up all those that
//! somebody waits for. Either can be lost (a broken connection, a slow reader), so every waiter also looks by itself now and
//! then; a notice only makes it quick.

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

/// Between two looks without a notice.
const POLL: Duration = Duration::from_secs(2);
/// Between two looks at the jobs that somebody waits for.
const LOOK: Duration = Duration::from_millis(100);
/// Changes kept for a slow waiter; one that misses some looks at once.
const KEPT: usize = 1_024;

/// Passes on what has changed to whoever waits.
#[derive(Clone)]
pub struct Changes {
    sender: broadcast::Sender<String>,
    jobs: Arc<Awaited>,
}

impl Changes {
    pub fn new() -> Self {
        Self {
            sender: broadcast::channel(KEPT).0,
            jobs: Arc::default(),
        }
    }

    /// Hears of every change of a file or a model from now on.
    pub fn subscribe(&self) -> Subscription {
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll.reset();
        Subscription {
            receiver: self.sender.subscribe(),
            poll,
            about: About::Notified,
        }
    }

    /// Hears of every change of this job from now on, and may hear of none.
    pub fn subscribe_to(&self, job: JobId) -> Subscription {
        Subscription {
            about: About::Job(Arc::clone(&self.jobs), job),
            ..self.subscribe()
        }
    }

    /// Passes on until `shutdown`, through broken connections.
    pub async fn listen(self, pool: sqlx::PgPool, shutdown: CancellationToken) {
        tokio::select! {
            () = self.relay(&pool) => {}
            () = self.look(&pool) => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn relay(&self, pool: &sqlx::PgPool) {
        loop {
            if let Err(error) = self.relay_one_connection(pool).await {
                tracing::warn!(
                    "cannot listen for changes, waiting requests look every {} s: {error}",
                    POLL.as_secs()
                );
            }
            sleep(POLL).await;
        }
    }

    async fn relay_one_connection(&self, pool: &sqlx::PgPool) -> sqlx::Result<()> {
        let mut listener = db::listen(pool, &[channel::FILE, channel::MODEL]).await?;
        while let Some(notice) = listener.try_recv().await? {
            self.say(notice.payload().to_owned());
        }
        Ok(())
    }

    async fn look(&self, pool: &sqlx::PgPool) {
        loop {
            let jobs = self.jobs.ids();
            if jobs.is_empty() {
                self.jobs.first.notified().await;
                continue;
            }
            match db::events::counts(pool, &jobs).await {
                Ok(counts) => {
                    for job in self.jobs.changed(&counts) {
                        self.say(job.to_string());
                    }
                    sleep(LOOK).await;
                }
                Err(error) => {
                    tracing::warn!("cannot look for changes of jobs: {error}");
                    sleep(POLL).await;
                }
            }
        }
    }

    fn say(&self, subject: String) {
        // No receiver is no error: nobody waits.
        let _ = self.sender.send(subject);
    }
}

/// Jobs that somebody waits for.
#[derive(Default)]
struct Awaited {
    jobs: Mutex<HashMap<JobId, Look>>,
    /// There is one again.
    first: Notify,
}

#[derive(Default)]
struct Look {
    waiters: usize,
    /// Events that the job had; `None` before the first look.
    events: Option<i64>,
}

impl Awaited {
    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Look>> {
        // Counts stay whole whoever panics.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ids(&self) -> Vec<JobId> {
        self.lock().keys().copied().collect()
    }

    /// Those that have more events than at the last look, and those that are looked at for the first time: their waiters may
    /// have looked long before.
    fn changed(&self, counts: &[(JobId, i64)]) -> Vec<JobId> {
        let mut jobs = self.lock();
        let mut changed = Vec::new();
        for &(id, events) in counts {
            if let Some(look) = jobs.get_mut(&id)
                && look.events.replace(events) != Some(events)
            {
                changed.push(id);
            }
        }
        changed
    }
}

/// Keeps a job looked at.
struct Awaits {
    jobs: Arc<Awaited>,
    job: JobId,
}

impl Awaits {
    fn new(jobs: Arc<Awaited>, job: JobId) -> Self {
        let mut all = jobs.lock();
        let look = all.entry(job).or_default();
        look.waiters += 1;
        // Whoever comes later may have missed what the others were told.
        look.events = None;
        drop(all);
        jobs.first.notify_one();
        Self { jobs, job }
    }
}

impl Drop for Awaits {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.jobs.lock().entry(self.job) {
            entry.get_mut().waiters -= 1;
            if entry.get().waiters == 0 {
                entry.remove();
            }
        }
    }
}

/// One waiter's ear.
pub struct Subscription {
    receiver: broadcast::Receiver<String>,
    poll: tokio::time::Interval,
    about: About,
}

/// What a subscription is about.
enum About {
    /// A file or a model: all of these are notified.
    Notified,
    /// A job, until the subscription first waits: most requests never do.
    Job(Arc<Awaited>, JobId),
    /// A job from then on.
    AwaitedJob { _awaits: Awaits },
}

impl Subscription {
    /// Returns when `subject` may have changed: a notice named it, some were missed, or it is time to look again.
    pub async fn changed(&mut self, subject: &str) {
        if let About::Job(jobs, job) = &self.about {
            self.about = About::AwaitedJob {
                _awaits: Awaits::new(Arc::clone(jobs), *job),
            };
        }
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
