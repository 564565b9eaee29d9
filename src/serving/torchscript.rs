//! A model as TorchScript. A child process writes it on the first request, and a second one checks
//! it against the bundle's golden logits. It is then kept beside the bundle that predictions use,
//! and removed with it.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use tokio::{fs::File, sync::Mutex};

use crate::{
    child,
    domain::progress::{Failure, Verified},
    serving::{bundles::Bundles, error::ServingError},
};

/// Its name in a fetched bundle's folder.
const FILE: &str = "model.pt";
/// Time for both processes together: to trace and write, then to load and run.
pub const TIMEOUT: Duration = Duration::from_secs(300);

pub struct TorchScript {
    trainer: PathBuf,
    /// Held while one is written: one process at a time.
    writing: Mutex<()>,
}

impl TorchScript {
    /// `trainer` is the path of `rehead-trainer`.
    pub fn new(trainer: PathBuf) -> Self {
        Self {
            trainer,
            writing: Mutex::new(()),
        }
    }

    /// The TorchScript of the model whose bundle lies at `prefix` in the store.
    ///
    /// # Errors
    /// It cannot be written, or differs from the model.
    pub async fn open(&self, bundles: &Bundles, prefix: &str) -> Result<File, ServingError> {
        let bundle = bundles.fetch(prefix).await?;
        let path = bundle.join(FILE);
        let _one_at_a_time = self.writing.lock().await;
        if !tokio::fs::try_exists(&path).await.unwrap_or(false) {
            self.write(&bundle, &path).await?;
        }
        // A file that is open stays readable when its bundle is removed.
        let file = File::open(&path).await;
        Ok(file.with_context(|| format!("cannot open `{}`", path.display()))?)
    }

    /// Writes the file, complete and checked, or not at all.
    async fn write(&self, bundle: &Path, path: &Path) -> Result<(), ServingError> {
        let staged = tempfile::Builder::new()
            .prefix(".script-")
            .tempdir_in(bundle)
            .with_context(|| format!("cannot create a directory in `{}`", bundle.display()))?;
        let target = staged.path().join(FILE);
        let arguments = [OsStr::new("script"), bundle.as_os_str(), target.as_os_str()];
        match child::answer_of(&self.trainer, &arguments, TIMEOUT).await {
            Ok(Verified::Same { .. }) => {}
            Ok(Verified::Failed(Failure { code, message, .. })) => {
                return Err(anyhow!("TorchScript export failed with `{code}`: {message}").into());
            }
            Err(unanswered) => return Err(ServingError::ExportUnfinished(unanswered)),
        }
        let moved = tokio::fs::rename(&target, path).await;
        Ok(moved.with_context(|| format!("cannot rename to `{}`", path.display()))?)
    }
}
