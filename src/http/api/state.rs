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

/// Uploads that are completed at the same time: each copies its whole file.
const ASSEMBLIES: usize = 2;

/// Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    pub(crate) pool: PgPool,
    pub(crate) objects: Objects,
    pub(crate) limits: HttpLimits,
    pub(crate) changes: Changes,
    /// A permit for each open event stream.
    pub(crate) streams: Arc<Semaphore>,
    /// A permit for each upload that is being completed; others wait.
    pub(crate) assemblies: Arc<Semaphore>,
    pub(crate) predictor: Arc<Predictor>,
    /// The address that the service listens on; empty before `serve`.
    pub(crate) address: Arc<OnceLock<SocketAddr>>,
    keys_exist: Arc<AtomicBool>,
    /// Cancelled when the service stops; held-back responses and streams end then.
    pub(crate) shutdown: CancellationToken,
}

impl AppState {
    /// `trainer` is the path of `rehead-trainer`.
    pub fn new(pool: PgPool, objects: Objects, trainer: PathBuf, args: &ServeArgs) -> Self {
        Self {
            predictor: Arc::new(Predictor::new(trainer, objects.clone(), args)),
            streams: Arc::new(Semaphore::new(args.limits.max_streams)),
            assemblies: Arc::new(Semaphore::new(ASSEMBLIES)),
            changes: Changes::default(),
            address: Arc::default(),
            keys_exist: Arc::default(),
            shutdown: CancellationToken::new(),
            pool,
            objects,
            limits: args.limits.clone(),
        }
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
