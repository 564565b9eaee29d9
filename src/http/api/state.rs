//! State that all handlers share.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{HttpLimits, ServeArgs, SessionArgs, WebhookArgs},
    db::{
        changes::{Changes, KEYS},
        keys::KeyId,
        queue_position::QueueSnapshot,
        tenants::{self, Overrides, TenantId},
    },
    http::{
        api::{
            identity::Sender,
            kept::Kept,
            key_attempts::{KEY_AGE, KeyAttempts, RefusedSessions},
            quotas::Quotas,
            rate_limit::Buckets,
        },
        jobs::recent::RecentJobs,
    },
    objects::Objects,
    outgoing::Outgoing,
    serving::predictor::Predictor,
};

/// Uploads that are completed at the same time: each copies its whole file.
const ASSEMBLIES: usize = 2;

/// Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    pub(crate) pool: PgPool,
    pub(crate) objects: Objects,
    pub(crate) limits: HttpLimits,
    pub(crate) changes: Changes,
    pub(crate) quotas: Arc<Quotas>,
    /// A permit for each upload that is being completed; others wait.
    pub(crate) assemblies: Arc<Semaphore>,
    pub(crate) predictor: Arc<Predictor>,
    pub(crate) outgoing: Outgoing,
    pub(crate) webhooks: WebhookArgs,
    pub(crate) sessions: SessionArgs,
    /// The address that the service listens on; empty before `serve`.
    pub(crate) address: Arc<OnceLock<SocketAddr>>,
    pub(crate) access: Arc<Access>,
    keys_exist: Arc<AtomicBool>,
    /// The default tenant while the service is open; `None` once there is a key.
    open_tenant: Arc<Kept<Option<(TenantId, Overrides)>>>,
    pub(crate) recent_jobs: Arc<RecentJobs>,
    pub(crate) queue: Arc<Kept<Arc<QueueSnapshot>>>,
    /// Cancelled when the service stops; held-back responses and streams end then.
    pub(crate) shutdown: CancellationToken,
}

/// Who may use the service.
pub(crate) struct Access {
    require_keys: bool,
    pub trusted_proxies: Vec<IpAddr>,
    pub key_attempts: KeyAttempts<Sender>,
    pub refused_sessions: RefusedSessions,
    /// Requests, by tenant and by key.
    pub requests: Buckets<Bucket>,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Bucket {
    Tenant(TenantId),
    Key(KeyId),
}

impl AppState {
    pub fn new(pool: PgPool, objects: Objects, predictor: Predictor, args: &ServeArgs) -> Self {
        Self {
            predictor: Arc::new(predictor),
            outgoing: Outgoing::new(&args.outgoing),
            webhooks: args.webhooks.clone(),
            sessions: args.access.sessions,
            quotas: Arc::new(Quotas::new(&args.limits)),
            assemblies: Arc::new(Semaphore::new(ASSEMBLIES)),
            changes: Changes::default(),
            address: Arc::default(),
            access: Arc::new(Access {
                require_keys: args.access.require_keys,
                trusted_proxies: args.access.trusted_proxies.clone(),
                key_attempts: KeyAttempts::new(args.access.failed_keys_per_minute),
                refused_sessions: RefusedSessions::default(),
                requests: Buckets::default(),
            }),
            keys_exist: Arc::default(),
            open_tenant: Arc::default(),
            recent_jobs: Arc::default(),
            queue: Arc::default(),
            shutdown: CancellationToken::new(),
            pool,
            objects,
            limits: args.limits.clone(),
        }
    }

    /// The tenant of requests without a key, with its limits. `None` when requests need a key:
    /// those from elsewhere than loopback, those after the first key was created, or all where keys
    /// are required. A key that another process has created is noticed within a second, and at once
    /// by a request that `has_key`.
    pub(crate) async fn open_tenant(
        &self,
        has_key: bool,
    ) -> sqlx::Result<Option<(TenantId, Overrides)>> {
        let address = self.address.get();
        let is_loopback = address.is_some_and(|address| address.ip().is_loopback());
        if !is_loopback || self.access.require_keys || self.keys_exist.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let read = async || match self.keys_exist().await? {
            true => Ok(None),
            false => tenants::default_tenant(&self.pool).await.map(Some),
        };
        let max_age = if has_key { Duration::ZERO } else { KEY_AGE };
        self.open_tenant.get(|_| max_age, read).await
    }

    /// Lets the database be asked again about every key.
    pub(crate) async fn expire_keys(&self) {
        self.access.key_attempts.expire();
        self.open_tenant.forget().await;
    }

    /// Notices changes of keys by other processes. Never returns.
    pub(crate) async fn follow_keys(&self) {
        let mut changes = self.changes.subscribe();
        loop {
            changes.changed(KEYS).await;
            self.expire_keys().await;
        }
    }

    /// True when requests need a key even on loopback.
    pub(crate) fn keys_required(&self) -> bool {
        self.access.require_keys
    }

    /// True once an API key has been created. Stays true: deleting the last key must not open the
    /// service.
    pub(crate) async fn keys_exist(&self) -> sqlx::Result<bool> {
        if self.keys_exist.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let exist = crate::db::keys::any(&self.pool).await?;
        self.keys_exist.store(exist, Ordering::Relaxed);
        Ok(exist)
    }
}
