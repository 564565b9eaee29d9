//! State that all handlers share.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{HttpLimits, ServeArgs},
    db::changes::Changes,
    objects::Objects,
    serving::predictor::Predictor,
};

/// Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    shared: Arc<Shared>,
}

struct Shared {
    pool: PgPool,
    objects: Objects,
    limits: HttpLimits,
    changes: Changes,
    streams: Arc<Semaphore>,
    predictor: Predictor,
    address: OnceLock<SocketAddr>,
    keys_exist: AtomicBool,
    shutdown: CancellationToken,
}

impl AppState {
    /// `trainer` is the path of `rehead-trainer`.
    pub fn new(pool: PgPool, objects: Objects, trainer: PathBuf, args: &ServeArgs) -> Self {
        let limits = args.limits.clone();
        Self {
            shared: Arc::new(Shared {
                predictor: Predictor::new(trainer, objects.clone(), args),
                streams: Arc::new(Semaphore::new(limits.max_streams)),
                changes: Changes::default(),
                address: OnceLock::new(),
                keys_exist: AtomicBool::new(false),
                shutdown: CancellationToken::new(),
                pool,
                objects,
                limits,
            }),
        }
    }

    pub fn pool(&self) -> &PgPool {
        &self.shared.pool
    }

    pub fn objects(&self) -> &Objects {
        &self.shared.objects
    }

    pub fn limits(&self) -> &HttpLimits {
        &self.shared.limits
    }

    pub fn changes(&self) -> &Changes {
        &self.shared.changes
    }

    pub fn predictor(&self) -> &Predictor {
        &self.shared.predictor
    }

    /// A permit for each open event stream.
    pub fn streams(&self) -> &Arc<Semaphore> {
        &self.shared.streams
    }

    /// Cancelled when the service stops; held-back responses and streams end then.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shared.shutdown
    }

    /// The address that the service listens on; `None` before `serve`.
    pub fn address(&self) -> Option<SocketAddr> {
        self.shared.address.get().copied()
    }

    pub(crate) fn set_address(&self, address: SocketAddr) {
        let _ = self.shared.address.set(address);
    }

    /// True once an API key has been created. Stays true: deleting the last key must not open the
    /// service.
    pub async fn keys_exist(&self) -> sqlx::Result<bool> {
        if self.shared.keys_exist.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let exist = crate::db::keys::any(self.pool()).await?;
        self.shared.keys_exist.store(exist, Ordering::Relaxed);
        Ok(exist)
    }
}
