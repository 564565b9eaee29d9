//! Bundles on this machine's disk: fetched from the object store once a process, complete or
//! absent. They are copies, so that nothing that happens to an object later reaches a loaded model.
//! The inference process maps what it has loaded, so a bundle can be removed at any time.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use tokio::{fs, sync::Mutex as AsyncMutex};

use crate::{
    domain::object::Bundle,
    objects::{At as _, Objects},
    sandbox::Sandbox,
    serving::{checkpoint::StoredCheckpoint, error::ServingError},
};

/// Bundles kept on disk; the inference process keeps fewer loaded.
const BUNDLES_KEPT: usize = 64;

/// A model or checkpoint to predict with.
#[derive(Debug)]
pub enum Source {
    /// A finished model.
    Bundle(Bundle),
    Checkpoint(Box<StoredCheckpoint>),
}

impl Source {
    /// The name of its folder.
    fn name(&self) -> String {
        match self {
            Self::Bundle(bundle) => {
                let prefix = bundle.weights.prefix().trim_end_matches('/');
                prefix.replace('/', "-")
            }
            Self::Checkpoint(checkpoint) => checkpoint.id.to_string(),
        }
    }

    async fn fetch(&self, objects: &Objects, folder: &Path) -> Result<(), ServingError> {
        match self {
            Self::Bundle(bundle) => {
                for object in objects.bundle(bundle).await? {
                    objects.copy(&object, &folder.join(object.name())).await?;
                }
                Ok(())
            }
            Self::Checkpoint(checkpoint) => checkpoint.fetch(objects, folder).await,
        }
    }
}

pub struct Bundles {
    folder: PathBuf,
    objects: Objects,
    sandbox: Sandbox,
    /// Folders that this process has fetched; others were left by one before it.
    fetched: Mutex<HashSet<PathBuf>>,
    /// Locked while a bundle is fetched: one at a time. Who needs no fetching waits for none.
    fetching: AsyncMutex<()>,
}

impl Bundles {
    /// `folder` is in the home of the inference process.
    pub fn new(folder: PathBuf, objects: Objects, sandbox: Sandbox) -> Self {
        Self {
            folder,
            objects,
            sandbox,
            fetched: Mutex::default(),
            fetching: AsyncMutex::default(),
        }
    }

    /// The folder of a model or checkpoint.
    ///
    /// # Errors
    /// An object is damaged; the store cannot be read, or the folder cannot be written.
    pub async fn fetch(&self, source: &Source) -> Result<PathBuf, ServingError> {
        let folder = self.folder.join(source.name());
        if self.has(&folder).await {
            return Ok(folder);
        }
        let _one = self.fetching.lock().await;
        if self.has(&folder).await {
            return Ok(folder);
        }
        let exists = fs::try_exists(&folder).await.unwrap_or(false);
        let failed = || format!("cannot create directory `{}`", self.folder.display());
        self.sandbox
            .create_folder(&self.folder)
            .with_context(failed)?;
        self.prune().await;
        let staged = tempfile::Builder::new()
            .prefix(".fetch-")
            .tempdir_in(&self.folder)
            .with_context(failed)?;
        source.fetch(&self.objects, staged.path()).await?;
        let (sandbox, given) = (self.sandbox.clone(), staged.path().to_owned());
        tokio::task::spawn_blocking(move || sandbox.give(&given))
            .await
            .map_err(std::io::Error::other)
            .flatten()
            .with_context(|| format!("cannot share `{}`", staged.path().display()))?;
        if exists {
            fs::remove_dir_all(&folder).await.at(&folder)?;
        }
        fs::rename(staged.keep(), &folder)
            .await
            .with_context(|| format!("cannot create directory `{}`", folder.display()))?;
        self.lock().insert(folder.clone());
        Ok(folder)
    }

    /// True when this process has fetched the folder, and it is still there.
    async fn has(&self, folder: &Path) -> bool {
        let is_fetched = self.lock().contains(folder);
        is_fetched && fs::try_exists(folder).await.unwrap_or(false)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        // A panic cannot leave it half changed.
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the bundles fetched longest ago, so that with the next one there are no more than
    /// `BUNDLES_KEPT`.
    async fn prune(&self) {
        let mut folders = modified_times(&self.folder).await;
        folders.sort();
        let surplus = folders.len().saturating_sub(BUNDLES_KEPT - 1);
        for (_, folder) in folders.into_iter().take(surplus) {
            let _ = fs::remove_dir_all(folder).await;
        }
    }
}

/// Entries of a folder with the time of their last change; those that cannot be read are left out.
pub(crate) async fn modified_times(folder: &Path) -> Vec<(std::time::SystemTime, PathBuf)> {
    let mut found = Vec::new();
    let Ok(mut entries) = fs::read_dir(folder).await else {
        return found;
    };
    while let Ok(Some(entry)) = entries.next_entry().await {
        if let Ok(metadata) = entry.metadata().await
            && let Ok(modified) = metadata.modified()
        {
            found.push((modified, entry.path()));
        }
    }
    found
}
