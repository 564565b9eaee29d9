//! One idle trainer with torch loaded, so that a job starts at once. Each serves one attempt: torch's seed, thread count
//! and CUDA context belong to a whole process.

use std::{ffi::OsStr, io, path::PathBuf};

use tokio::sync::Mutex;

use crate::child::{Child, Output};

pub(super) struct Spare {
    trainer_exe: PathBuf,
    idle: Mutex<Option<(Child, Output)>>,
}

impl Spare {
    pub(super) fn new(trainer_exe: PathBuf) -> Self {
        Self {
            trainer_exe,
            idle: Mutex::new(None),
        }
    }

    /// Starts an idle trainer, unless one is alive.
    ///
    /// # Errors
    /// When it cannot be started, or the last one ended while it waited: the next call tries again.
    pub(super) async fn warm(&self) -> io::Result<()> {
        let mut idle = self.idle.lock().await;
        if let Some((child, _)) = idle.as_mut() {
            if child.is_running() {
                return Ok(());
            }
            let ended = child.wait().await?;
            let tail = child.log_tail();
            *idle = None;
            return Err(io::Error::other(format!(
                "the idle trainer ended ({ended:?}): {tail}"
            )));
        }
        *idle = Some(Child::spawn(&self.trainer_exe, &[OsStr::new("spare")]).await?);
        Ok(())
    }

    /// Hands out an idle trainer.
    ///
    /// # Errors
    /// As `warm`.
    pub(super) async fn take(&self) -> io::Result<(Child, Output)> {
        self.warm().await?;
        let taken = self.idle.lock().await.take();
        taken.ok_or_else(|| io::Error::other("the idle trainer was taken by somebody else"))
    }

    /// Ends the idle trainer.
    pub(super) async fn stop(&self) {
        if let Some((mut child, _)) = self.idle.lock().await.take() {
            child.end().await;
        }
    }
}
