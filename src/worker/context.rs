//! The worker: state that its parts share.

use std::{path::PathBuf, sync::Arc};

use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{cache::Cache, folder::Folders, listen::Wakeups, status::Status};
use crate::{
    config::WorkArgs, domain::id::WorkerId, objects::Objects, outgoing::Outgoing, sandbox::Sandbox,
};

/// A worker process. What belongs to one device is in its slots.
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) pool: PgPool,
    /// Connections that carry nothing but heartbeats.
    pub(super) heartbeats: PgPool,
    pub(super) objects: Objects,
    pub(super) outgoing: Outgoing,
    pub(super) sandbox: Sandbox,
    pub(super) args: WorkArgs,
    /// Devices as plans name them, at least one.
    pub(super) devices: Vec<String>,
    /// Threads of one child.
    pub(super) threads: u32,
    pub(super) work_dir: PathBuf,
    pub(super) folders: Arc<Folders>,
    pub(super) cache: Cache,
    pub(super) status: Status,
    pub(super) wakeups: Wakeups,
}

impl Worker {
    /// Returns on a wakeup, at `shutdown`, or after the poll interval times 0.5 to 1.5, so that
    /// workers that started together do not poll together.
    pub(super) async fn wait_for_work(&self, wakeup: &Notify, shutdown: &CancellationToken) {
        let poll = self.args.timing.poll;
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = wakeup.notified() => {}
            () = tokio::time::sleep(poll.mul_f64(rand::random_range(0.5..1.5))) => {}
        }
    }
}
