//! Predictions for handlers.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::{
    config::ServingArgs,
    domain::{progress::Failure, work::Predictions},
    objects::Objects,
    sandbox::Sandbox,
    serving::{
        bundles::{Bundles, Source, modified_times},
        error::ServingError,
        process::{InferenceProcess, NoAnswer},
    },
};

/// Age at which images that a killed service left behind are removed.
const SPOOL_AGE: Duration = Duration::from_secs(3600);
/// Times a request is sent to the inference process, which may end over it.
const TRIES: usize = 2;

pub struct Predictor {
    sandbox: Sandbox,
    process: InferenceProcess,
    bundles: Bundles,
    spool: PathBuf,
    scratch: PathBuf,
    waiting: Arc<Semaphore>,
    max_waiting: usize,
    timeout: Duration,
}

impl Predictor {
    /// `scratch` is a folder for temporary files.
    ///
    /// # Errors
    /// A folder in it cannot be created.
    pub fn new(
        sandbox: Sandbox,
        objects: Objects,
        scratch: &Path,
        serving: &ServingArgs,
    ) -> anyhow::Result<Self> {
        let folder = scratch.join("inference");
        let opened = std::fs::create_dir_all(&folder).and_then(|()| sandbox.home(&folder));
        let home = opened.with_context(|| format!("cannot open `{}`", folder.display()))?;
        Ok(Self {
            bundles: Bundles::new(home.inputs().join("models"), objects, sandbox.clone()),
            spool: home.inputs().join("spool"),
            process: InferenceProcess::new(
                sandbox.clone(),
                home,
                &serving.predict_device,
                serving.predict_memory_bytes,
            ),
            sandbox,
            scratch: scratch.to_owned(),
            waiting: Arc::new(Semaphore::new(serving.max_predict_waiting)),
            max_waiting: serving.max_predict_waiting,
            timeout: Duration::from_secs(serving.predict_seconds),
        })
    }

    /// A permit to wait for an answer. Taken before images are received, so that a busy service
    /// receives none.
    ///
    /// # Errors
    /// `Busy`.
    pub fn admit(&self) -> Result<OwnedSemaphorePermit, ServingError> {
        let permit = Arc::clone(&self.waiting).try_acquire_owned();
        permit.map_err(|_| ServingError::Busy)
    }

    /// Requests that hold a permit, and their limit.
    pub fn waiting(&self) -> (usize, usize) {
        let free = self.waiting.available_permits();
        (self.max_waiting.saturating_sub(free), self.max_waiting)
    }

    /// The folder for temporary files.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// A folder for one request's images, removed when dropped.
    ///
    /// # Errors
    /// It cannot be created.
    pub async fn spool(&self) -> anyhow::Result<tempfile::TempDir> {
        let failed = || format!("cannot create a directory in `{}`", self.spool.display());
        self.sandbox
            .create_folder(&self.spool)
            .with_context(failed)?;
        tempfile::Builder::new()
            .prefix("predict-")
            .tempdir_in(&self.spool)
            .with_context(failed)
    }

    /// Removes images that a killed service left behind.
    pub async fn sweep(&self) {
        for (modified, folder) in modified_times(&self.spool).await {
            if modified.elapsed().is_ok_and(|age| age > SPOOL_AGE)
                && let Err(error) = tokio::fs::remove_dir_all(&folder).await
            {
                tracing::warn!("cannot remove `{}`: {error}", folder.display());
            }
        }
    }

    /// Predictions for these image files of one spool, in order, by a model or checkpoint.
    ///
    /// # Errors
    /// The inference process ends twice, takes too long, or refuses the bundle.
    pub async fn predict(
        &self,
        source: &Source,
        images: &[PathBuf],
    ) -> Result<Predictions, ServingError> {
        let deadline = Instant::now() + self.timeout;
        let timed_out = || ServingError::TimedOut {
            seconds: self.timeout.as_secs(),
        };
        let bundle = timeout_at(deadline, self.bundles.fetch(source))
            .await
            .map_err(|_| timed_out())??;
        if let Some(spool) = images.first().and_then(|image| image.parent()) {
            self.sandbox
                .give(spool)
                .with_context(|| format!("cannot share `{}`", spool.display()))?;
        }
        for _ in 0..TRIES {
            match self.process.ask(&bundle, images, deadline).await? {
                Ok(Ok(predictions)) if predictions.images.len() == images.len() => {
                    return Ok(predictions);
                }
                Ok(Ok(predictions)) => {
                    let (got, sent) = (predictions.images.len(), images.len());
                    return Err(
                        anyhow!("the inference process answered {got} of {sent} images").into(),
                    );
                }
                Ok(Err(Failure { code, message, .. })) => {
                    return Err(
                        anyhow!("the inference process failed with `{code}`: {message}").into(),
                    );
                }
                Err(NoAnswer::TimedOut) => return Err(timed_out()),
                Err(NoAnswer::Ended) => {}
            }
        }
        Err(ServingError::Crashed)
    }

    /// Ends the inference process.
    pub async fn stop(&self) {
        self.process.stop().await;
    }
}
