//! Jobs that clients asked for lately, kept so that a client that polls costs no query.
//!
//! One query compares the versions of all of them ten times a second, and a job that has changed is
//! dropped. So what is answered from here is old by a fraction of a second at most, and never older
//! than what the same tenant has written through this server.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::PgPool;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::rows::JobRows;
use crate::{
    db::{self, tenants::TenantId},
    domain::id::JobId,
};

/// Interval at which versions are compared.
const COMPARED: Duration = Duration::from_millis(100);
/// A job is answered from here until this time after it was last found current: less than three
/// comparisons, so that a database that does not answer is noticed.
const CURRENT: Duration = Duration::from_millis(250);
/// A job that nobody has asked for during this time is dropped.
const ASKED: Duration = Duration::from_secs(5);
/// Maximum number of jobs. Further ones are read from the database each time.
const CAPACITY: usize = 10_000;

/// Jobs by id.
#[derive(Default)]
pub(crate) struct RecentJobs {
    inner: Mutex<Inner>,
    /// Notified when a job is added.
    added: Notify,
}

#[derive(Default)]
struct Inner {
    jobs: HashMap<JobId, Recent>,
    /// Time of the last write of a tenant, if that was lately.
    written: HashMap<TenantId, Instant>,
}

struct Recent {
    tenant: TenantId,
    rows: Arc<JobRows>,
    /// The rows were in the database at this time.
    current_at: Instant,
    asked_at: Instant,
}

impl RecentJobs {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic cannot leave it half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job, if it is known to be current.
    pub(crate) fn get(&self, tenant: TenantId, id: JobId) -> Option<Arc<JobRows>> {
        let mut inner = self.lock();
        let written = inner.written.get(&tenant).copied();
        let recent = inner.jobs.get_mut(&id)?;
        let now = Instant::now();
        recent.asked_at = now;
        let is_current = recent.tenant == tenant
            && now - recent.current_at < CURRENT
            && written.is_none_or(|written| recent.current_at > written);
        is_current.then(|| Arc::clone(&recent.rows))
    }

    /// Keeps a job whose reading began at `read_at`.
    pub(crate) fn put(&self, tenant: TenantId, rows: &Arc<JobRows>, read_at: Instant) {
        let mut inner = self.lock();
        if inner.jobs.len() >= CAPACITY && !inner.jobs.contains_key(&rows.job.id) {
            return;
        }
        let recent = Recent {
            tenant,
            rows: Arc::clone(rows),
            current_at: read_at,
            asked_at: Instant::now(),
        };
        inner.jobs.insert(rows.job.id, recent);
        drop(inner);
        self.added.notify_one();
    }

    /// Drops a job of which a client is about to see something newer, such as an event.
    pub(crate) fn forget(&self, id: JobId) {
        self.lock().jobs.remove(&id);
    }

    /// Notes that a tenant has written something: what was read before is not answered any more.
    pub(crate) fn wrote(&self, tenant: TenantId) {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.written.retain(|_, at| now - *at < CURRENT);
        inner.written.insert(tenant, now);
    }

    /// Compares versions at intervals. Never returns.
    pub(crate) async fn run(&self, pool: &PgPool) {
        loop {
            let jobs = self.asked();
            if jobs.is_empty() {
                self.added.notified().await;
                continue;
            }
            let began = Instant::now();
            match db::jobs::versions(pool, &jobs).await {
                Ok(versions) => self.compare(&versions, began),
                Err(error) => tracing::debug!("cannot read the versions of jobs: {error}"),
            }
            sleep(COMPARED).await;
        }
    }

    /// The jobs that were asked for lately; drops the others.
    fn asked(&self) -> Vec<JobId> {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.jobs.retain(|_, recent| now - recent.asked_at < ASKED);
        inner.jobs.keys().copied().collect()
    }

    /// Drops what has another version than at `read_at`.
    fn compare(&self, versions: &HashMap<JobId, i64>, read_at: Instant) {
        self.lock().jobs.retain(|id, recent| {
            if recent.current_at >= read_at {
                return true; // Read anew in the meantime.
            }
            recent.current_at = read_at;
            versions.get(id) == Some(&recent.rows.job.version)
        });
    }
}
