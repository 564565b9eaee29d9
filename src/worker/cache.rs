//! Packs, base weights and features on this worker's disk, each named by the hash of its content, so that what is needed
//! again is not fetched or computed again. A job folder gets hard links, so an entry may be evicted while it is used.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};

use crate::objects::{ObjectError, Objects};

/// Entries used this lately are not evicted: a trainer may be about to open one.
const SPARED: Duration = Duration::from_secs(600);

/// Kinds of entries that are fetched.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Packs,
    Weights,
}

/// Why an entry could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum CacheError {
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The object is not what its row says.
    #[error("object `{key}` is damaged: its SHA-256 is {found}, not {expected}")]
    Damaged {
        key: String,
        expected: String,
        found: String,
    },
    #[error("cache entry `{path}`: {source}")]
    File { path: PathBuf, source: io::Error },
}

/// A bounded folder of entries; the least recently used go first.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
    limit: u64,
}

impl Cache {
    pub(super) fn open(root: &Path, limit: u64) -> io::Result<Self> {
        let cache = Self {
            root: root.to_owned(),
            limit,
        };
        for folder in ["packs", "weights", "features"] {
            fs::create_dir_all(root.join(folder))?;
        }
        Ok(cache)
    }

    /// Where trainers keep features; they name, write and touch the entries themselves.
    pub(super) fn features(&self) -> PathBuf {
        self.root.join("features")
    }

    /// Puts the object of this hash at `target`, from the cache where it is there.
    pub(super) async fn link(
        &self,
        objects: &Objects,
        kind: Kind,
        sha256: &str,
        key: &str,
        target: &Path,
    ) -> Result<(), CacheError> {
        let folder = self.root.join(match kind {
            Kind::Packs => "packs",
            Kind::Weights => "weights",
        });
        let entry = folder.join(format!("{sha256}.safetensors"));
        if !take(&entry, target).map_err(|source| file_error(&entry, source))? {
            let staged = folder.join(format!("{sha256}.{:08x}.part", rand::random::<u32>()));
            let fetched = fetch_checked(objects, key, sha256, &staged).await;
            let moved = fetched.and_then(|()| {
                fs::rename(&staged, &entry).map_err(|source| file_error(&entry, source))
            });
            if moved.is_err() {
                let _ = fs::remove_file(&staged);
            }
            moved?;
            take(&entry, target).map_err(|source| file_error(&entry, source))?;
        }
        Ok(())
    }

    /// Evicts until the limit holds. To be called between attempts, off the async threads.
    pub(super) fn trim(&self) -> io::Result<()> {
        self.trim_at(SystemTime::now(), SPARED)
    }

    fn trim_at(&self, now: SystemTime, spared: Duration) -> io::Result<()> {
        let mut entries = Vec::new();
        for folder in fs::read_dir(&self.root)? {
            for entry in fs::read_dir(folder?.path())? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                entries.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        entries.sort();
        let mut bytes: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        for (used, size, path) in entries {
            let age = now.duration_since(used).unwrap_or_default();
            if bytes <= self.limit || age < spared {
                break;
            }
            tracing::info!("evicting `{}` from the cache", path.display());
            fs::remove_file(&path)?;
            bytes -= size;
        }
        Ok(())
    }
}

/// Links an entry and marks it as used; `false` when it is not there.
fn take(entry: &Path, target: &Path) -> io::Result<bool> {
    match fs::hard_link(entry, target) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    // A file of another user keeps its old time, and is evicted a little early.
    if let Ok(file) = fs::File::open(entry) {
        let _ = file.set_modified(SystemTime::now());
    }
    Ok(true)
}

async fn fetch_checked(
    objects: &Objects,
    key: &str,
    sha256: &str,
    staged: &Path,
) -> Result<(), CacheError> {
    objects.fetch(key, staged).await?;
    let (_, found) = hash_file(staged)
        .await
        .map_err(|source| file_error(staged, source))?;
    if found != sha256 {
        return Err(CacheError::Damaged {
            key: key.to_owned(),
            expected: sha256.to_owned(),
            found,
        });
    }
    Ok(())
}

fn file_error(path: &Path, source: io::Error) -> CacheError {
    CacheError::File {
        path: path.to_owned(),
        source,
    }
}

/// Size and SHA-256 (lower-case hex) of a file, read off the async threads.
pub(super) async fn hash_file(path: &Path) -> io::Result<(u64, String)> {
    let path = path.to_owned();
    let hash = move || {
        let mut hasher = Sha256::new();
        let mut file = fs::File::open(&path)?;
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            let read = io::Read::read(&mut file, &mut buffer)?;
            if read == 0 {
                return Ok((bytes, hex::encode(hasher.finalize())));
            }
            hasher.update(&buffer[..read]);
            bytes += read as u64;
        }
    };
    tokio::task::spawn_blocking(hash)
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn entries_are_fetched_once_checked_and_evicted_oldest_first() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path().join("objects").to_str().unwrap()).unwrap();
        let cache = Cache::open(&folder.path().join("cache"), 25).unwrap();
        let mut hashes = Vec::new();
        for (index, text) in ["aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"]
            .iter()
            .enumerate()
        {
            let source = folder.path().join("source");
            fs::write(&source, text).unwrap();
            let key = format!("packs/{index}");
            let sha256 = objects.put_file(&key, &source).await.unwrap().sha256;
            let target = folder.path().join(format!("linked-{index}"));
            cache
                .link(&objects, Kind::Packs, &sha256, &key, &target)
                .await
                .unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), *text);
            let entry = folder
                .path()
                .join(format!("cache/packs/{sha256}.safetensors"));
            let used = SystemTime::now() - Duration::from_secs(1000 - index as u64);
            fs::File::open(entry).unwrap().set_modified(used).unwrap();
            hashes.push(sha256);
        }
        // The object is gone, the entry is not: and using it makes it the newest.
        objects.delete_prefix("packs").await.unwrap();
        let again = folder.path().join("again");
        cache
            .link(&objects, Kind::Packs, &hashes[0], "packs/0", &again)
            .await
            .unwrap();

        cache.trim_at(SystemTime::now(), SPARED).unwrap();
        let left = |hash: &str| {
            folder
                .path()
                .join(format!("cache/packs/{hash}.safetensors"))
                .exists()
        };
        assert_eq!(
            hashes.iter().map(|hash| left(hash)).collect::<Vec<_>>(),
            [true, false, true]
        );
        assert_eq!(
            fs::read_to_string(folder.path().join("linked-1")).unwrap(),
            "bbbbbbbbbb"
        );
    }

    #[tokio::test]
    async fn a_damaged_object_is_refused_and_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path().join("objects").to_str().unwrap()).unwrap();
        let cache = Cache::open(&folder.path().join("cache"), 25).unwrap();
        let source = folder.path().join("source");
        fs::write(&source, "text").unwrap();
        objects.put_file("models/1", &source).await.unwrap();
        let wrong = "0".repeat(64);
        let linked = cache
            .link(
                &objects,
                Kind::Weights,
                &wrong,
                "models/1",
                &folder.path().join("t"),
            )
            .await;
        assert!(
            matches!(linked, Err(CacheError::Damaged { .. })),
            "{linked:?}"
        );
        assert_eq!(
            fs::read_dir(folder.path().join("cache/weights"))
                .unwrap()
                .count(),
            0
        );
    }
}
