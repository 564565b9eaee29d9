//! One idle trainer that has loaded torch, so that a job starts at once. Each serves one attempt:
//! torch's seed, thread count and CUDA context belong to a whole process. Before it is handed out
//! it has passed a self-test on its device.

use std::{ffi::OsStr, io, sync::Arc, time::Duration};

use tokio::sync::Mutex;

use super::folder::{Folder, Folders};
use crate::{
    child::{Child, Output},
    domain::work::SelfTested,
    sandbox::{Grants, Sandbox},
};

pub(super) struct WarmTrainer {
    sandbox: Sandbox,
    folders: Arc<Folders>,
    /// `cpu`, `cuda:1` or `auto`.
    device: String,
    /// Time for loading torch and the self-test.
    patience: Duration,
    idle: Mutex<Option<Idle>>,
}

/// A trainer that waits for its assignment.
pub(super) struct Idle {
    pub(super) child: Child,
    pub(super) output: Output,
    /// Its home, which was empty when it started.
    pub(super) folder: Folder,
    /// The device on which it passed its self-test.
    tested: Option<String>,
}

impl WarmTrainer {
    pub(super) fn new(
        sandbox: &Sandbox,
        folders: &Arc<Folders>,
        device: &str,
        patience: Duration,
    ) -> Self {
        Self {
            sandbox: sandbox.clone(),
            folders: Arc::clone(folders),
            device: device.to_owned(),
            patience,
            idle: Mutex::new(None),
        }
    }

    /// Starts an idle trainer, unless there is one; does not wait for its self-test.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) async fn warm(&self) -> io::Result<()> {
        // A slot that holds the lock is about to start one.
        if let Ok(mut idle) = self.idle.try_lock() {
            self.start(&mut idle).await?;
        }
        Ok(())
    }

    /// Waits for an idle trainer that has passed its self-test, and returns its device.
    ///
    /// # Errors
    /// It cannot be started, or failed its self-test: the next call tries again.
    pub(super) async fn ready(&self) -> io::Result<String> {
        let mut idle = self.idle.lock().await;
        self.self_test(&mut idle).await
    }

    /// Hands out an idle trainer.
    ///
    /// # Errors
    /// As `ready`.
    pub(super) async fn take(&self) -> io::Result<Idle> {
        let mut idle = self.idle.lock().await;
        self.self_test(&mut idle).await?;
        Ok(idle.take().expect("it was just tested: this is a bug"))
    }

    /// Ends the idle trainer.
    pub(super) async fn stop(&self) {
        if let Some(mut idle) = self.idle.lock().await.take() {
            idle.child.end().await;
        }
    }

    async fn start(&self, idle: &mut Option<Idle>) -> io::Result<()> {
        if idle.is_none() {
            let arguments = ["warm-trainer", "--device", &self.device].map(OsStr::new);
            let name = format!("warm-{:016x}", rand::random::<u64>());
            let folder = self.folders.create(&name)?;
            let launch = self
                .sandbox
                .launch(&folder, Grants::WRITE.on(&self.device))?;
            let (child, output) = Child::spawn(launch, &arguments).await?;
            *idle = Some(Idle {
                child,
                output,
                folder,
                tested: None,
            });
        }
        Ok(())
    }

    async fn self_test(&self, idle: &mut Option<Idle>) -> io::Result<String> {
        // One that was killed while it was idle is replaced, and its slot not blamed.
        if let Some(waiting) = idle.as_mut()
            && waiting.tested.is_some()
            && !waiting.child.is_running()
        {
            waiting.child.end().await;
            *idle = None;
        }
        self.start(idle).await?;
        let waiting = idle.as_mut().expect("it was just started: this is a bug");
        if let Some(device) = &waiting.tested {
            return Ok(device.clone());
        }
        let answer = waiting.output.receive::<SelfTested>();
        let fault = match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(Some(SelfTested {
                outcome: Ok(device),
            }))) => {
                waiting.tested = Some(device.clone());
                return Ok(device);
            }
            Ok(Ok(Some(SelfTested {
                outcome: Err(failure),
            }))) => format!("failed its self-test: {}", failure.message),
            Ok(Ok(None)) => "exited before its self-test".to_owned(),
            Ok(Err(error)) => format!("sent an invalid message: {error}"),
            Err(_) => format!(
                "did not finish its self-test within {} s",
                self.patience.as_secs_f64()
            ),
        };
        waiting.child.end().await;
        let tail = waiting.child.log_tail();
        *idle = None;
        let message = format!("the trainer for `{}` {fault} {tail}", self.device);
        Err(io::Error::other(message.trim_end()))
    }
}
