//! Bundles on this machine's disk: fetched once from the object store, complete or absent. The
//! inference process maps what it has loaded, so a bundle can be removed at any time.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::{fs, sync::Mutex};

use crate::{
    objects::Objects,
    serving::{checkpoint::StoredCheckpoint, error::ServingError},
};

/// Bundles kept on disk; the inference process keeps fewer loaded.
const BUNDLES_KEPT: usize = 64;

/// A model or checkpoint to predict with.
#[derive(Debug)]
pub enum Source {
    /// A finished model, whose bundle has this prefix in the store.
    Bundle(String),
    Checkpoint(Box<StoredCheckpoint>),
}

impl Source {
    /// The name of its folder.
    fn name(&self) -> String {
        match self {
            Self::Bundle(prefix) => prefix.trim_end_matches('/').replace('/', "-"),
            Self::Checkpoint(checkpoint) => checkpoint.id.to_string(),
        }
    }

    async fn fetch(&self, objects: &Objects, folder: &Path) -> Result<(), ServingError> {
        match self {
            Self::Bundle(prefix) => {
                let prefix = prefix.trim_end_matches('/');
                Ok(objects.fetch_prefix(prefix, folder).await?)
            }
            Self::Checkpoint(checkpoint) => checkpoint.fetch(objects, folder).await,
        }
    }
}

pub struct Bundles {
    folder: PathBuf,
    objects: Objects,
    /// Held while a bundle is fetched: one at a time.
    fetching: Mutex<()>,
}

impl Bundles {
    pub fn new(folder: PathBuf, objects: Objects) -> Self {
        Self {
            folder,
            objects,
            fetching: Mutex::new(()),
        }
    }

    /// The folder of a model or checkpoint.
    ///
    /// # Errors
    /// The store cannot be read, or the folder cannot be written.
    pub async fn fetch(&self, source: &Source) -> Result<PathBuf, ServingError> {
        let folder = self.folder.join(source.name());
        let _one_at_a_time = self.fetching.lock().await;
        if fs::try_exists(&folder).await.unwrap_or(false) {
            return Ok(folder);
        }
        let failed = || format!("cannot create directory `{}`", self.folder.display());
        fs::create_dir_all(&self.folder)
            .await
            .with_context(failed)?;
        self.prune().await;
        let staged = tempfile::Builder::new()
            .prefix(".fetch-")
            .tempdir_in(&self.folder)
            .with_context(failed)?;
        source.fetch(&self.objects, staged.path()).await?;
        fs::rename(staged.keep(), &folder)
            .await
            .with_context(|| format!("cannot create directory `{}`", folder.display()))?;
        Ok(folder)
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
