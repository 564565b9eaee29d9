//! One idle trainer with torch loaded, so that a job starts at once. Each serves one attempt: torch's seed, thread count
//! and CUDA context belong to a whole process. Before it gets a job it has computed something on its device.

use std::{ffi::OsStr, io, path::PathBuf, time::Duration};

use tokio::sync::Mutex;

use crate::{
    child::{Child, Output},
    domain::work::SelfTested,
};

pub(super) struct WarmTrainer {
    trainer_exe: PathBuf,
    /// As `WorkArgs::device`.
    device: String,
    /// Time for loading torch and the self-test.
    patience: Duration,
    idle: Mutex<Option<Idle>>,
}

struct Idle {
    child: Child,
    output: Output,
    /// The device that it has shown to work.
    proven: Option<String>,
}

impl WarmTrainer {
    pub(super) fn new(trainer_exe: PathBuf, device: &str, patience: Duration) -> Self {
        Self {
            trainer_exe,
            device: device.to_owned(),
            patience,
            idle: Mutex::new(None),
        }
    }

    /// Starts an idle trainer, unless there is one; does not wait for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) async fn warm(&self) -> io::Result<()> {
        // Whoever holds it is about to start one.
        if let Ok(mut idle) = self.idle.try_lock() {
            self.start(&mut idle).await?;
        }
        Ok(())
    }

    /// Waits for an idle trainer whose device works, and says which device that is.
    ///
    /// # Errors
    /// It cannot be started, or failed its self-test: the next call tries again.
    pub(super) async fn ready(&self) -> io::Result<String> {
        let mut idle = self.idle.lock().await;
        self.prove(&mut idle).await
    }

    /// Hands out an idle trainer.
    ///
    /// # Errors
    /// As `ready`.
    pub(super) async fn take(&self) -> io::Result<(Child, Output)> {
        let mut idle = self.idle.lock().await;
        self.prove(&mut idle).await?;
        let idle = idle.take().expect("it was just proven: this is a bug");
        Ok((idle.child, idle.output))
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
            let (child, output) = Child::spawn(&self.trainer_exe, &arguments).await?;
            *idle = Some(Idle {
                child,
                output,
                proven: None,
            });
        }
        Ok(())
    }

    async fn prove(&self, idle: &mut Option<Idle>) -> io::Result<String> {
        // One that was killed while it waited is no fault of whoever asks: another takes its place.
        if let Some(waiting) = idle.as_mut()
            && waiting.proven.is_some()
            && !waiting.child.is_running()
        {
            waiting.child.end().await;
            *idle = None;
        }
        self.start(idle).await?;
        let waiting = idle.as_mut().expect("it was just started: this is a bug");
        let fault = match &waiting.proven {
            Some(device) => return Ok(device.clone()),
            None => {
                let said =
                    tokio::time::timeout(self.patience, waiting.output.receive::<SelfTested>());
                match said.await {
                    Ok(Ok(Some(SelfTested {
                        outcome: Ok(device),
                    }))) => {
                        waiting.proven = Some(device.clone());
                        return Ok(device);
                    }
                    Ok(Ok(Some(SelfTested {
                        outcome: Err(failure),
                    }))) => {
                        format!("failed its self-test: {}", failure.message)
                    }
                    Ok(Ok(None)) => "ended before its self-test".to_owned(),
                    Ok(Err(error)) => format!("speaks nonsense: {error}"),
                    Err(_) => format!(
                        "did not pass its self-test within {} s",
                        self.patience.as_secs_f64()
                    ),
                }
            }
        };
        waiting.child.end().await;
        let tail = waiting.child.log_tail();
        *idle = None;
        Err(io::Error::other(
            format!("the trainer {fault} {tail}").trim_end(),
        ))
    }
}
