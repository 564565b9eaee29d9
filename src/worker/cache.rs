//! Caches packed data sets, weights and features on this worker's disk, each under the hash of its
//! content. Homes of children get hard links, so that an entry may be evicted while it is in use.
//! What is linked is hashed each time: an entry that the disk altered is fetched anew.
//!
//! No child can change an entry or name one: features are kept for the tenant and the data sets of
//! the job that made them, and nobody else finds them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::files::give;
use crate::{
    db::{
        queue::{Claimed, Pack},
        tenants::TenantId,
    },
    domain::object::Descriptor,
    objects::{At, ObjectError, Objects, hash_file},
    sandbox::{Home, Sandbox},
};

/// Name of the folder of features in a trainer's work folder.
pub(super) const FEATURES: &str = "cache";
/// Digits of a hash that tell data sets apart in the name of an entry.
const DIGITS: usize = 16;

/// Entries used within this time are not evicted: a trainer may be about to open one.
const RECENT: Duration = Duration::from_secs(600);

/// A kind of entry that is fetched from the object store.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Packs,
    Weights,
}

/// The data sets that features are of.
#[derive(Debug, Clone, Copy)]
pub(super) struct DataSets<'a> {
    pub(super) tenant: TenantId,
    pub(super) training: &'a Pack,
    pub(super) validation: Option<&'a Pack>,
}

impl<'a> From<&'a Claimed> for DataSets<'a> {
    fn from(claimed: &'a Claimed) -> Self {
        Self {
            tenant: claimed.tenant,
            training: &claimed.training,
            validation: claimed.validation.as_ref(),
        }
    }
}

/// An entry; the least recently used comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
}

/// A folder of entries of bounded size; the least recently used are evicted first.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
    limit: u64,
    objects: Objects,
    sandbox: Sandbox,
}

impl Cache {
    /// Opens the cache in `root` of at most `limit` bytes, which is filled from `objects` and
    /// shared with children.
    pub(super) fn open(
        root: &Path,
        limit: u64,
        (objects, sandbox): (Objects, Sandbox),
    ) -> io::Result<Self> {
        let cache = Self {
            root: root.to_owned(),
            limit,
            objects,
            sandbox,
        };
        for folder in ["packs", "weights", "features"] {
            fs::create_dir_all(root.join(folder))?;
        }
        Ok(cache)
    }

    /// Makes the folder of features in a trainer's home, with those that earlier jobs of this
    /// tenant have made of these data sets.
    pub(super) fn open_features(&self, sets: DataSets<'_>, home: &Home) -> Result<(), ObjectError> {
        let folder = home.create_in_work(FEATURES).at(home.path())?;
        let begin = features_of(sets);
        for entry in self.features().at(&self.root)? {
            let name = entry.file_name().and_then(|name| name.to_str());
            if let Some(name) = name.and_then(|name| name.strip_prefix(&begin)) {
                take(&entry, &folder.join(name)).at(&entry)?;
            }
        }
        Ok(())
    }

    /// Keeps the features that a trainer has made so far. Without them a later job computes them
    /// again.
    pub(super) fn keep_features(&self, sets: DataSets<'_>, work: &Path) {
        if let Err(error) = self.try_to_keep(sets, &work.join(FEATURES)) {
            tracing::warn!(file.id = %sets.training.file, "cannot keep features: {error}");
        }
    }

    fn try_to_keep(&self, sets: DataSets<'_>, made: &Path) -> io::Result<()> {
        let entries = match fs::read_dir(made) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let folder = self.root.join("features");
        fs::create_dir_all(&folder)?;
        let begin = features_of(sets);
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_name_of_features(name)) else {
                continue;
            };
            let kept = folder.join(format!("{begin}{name}"));
            if entry.file_type()?.is_file() && !kept.exists() {
                fs::hard_link(entry.path(), &kept)?;
                self.sandbox.seal(&kept)?;
            }
        }
        Ok(())
    }

    fn features(&self) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(self.root.join("features")) {
            // Somebody may have removed the cache to free space.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries?
                .map(|entry| entry.map(|entry| entry.path()))
                .collect(),
        }
    }

    /// Links the object to `target`; fetches it when it is not cached.
    pub(super) async fn link(
        &self,
        kind: Kind,
        object: &Descriptor,
        target: &Path,
    ) -> Result<(), ObjectError> {
        let sha256 = &object.sha256;
        let folder = self.root.join(match kind {
            Kind::Packs => "packs",
            Kind::Weights => "weights",
        });
        let entry = folder.join(format!("{sha256}.safetensors"));
        if take(&entry, target).at(&entry)? {
            if hash_file(target).await.at(target)?.sha256 == *sha256 {
                return Ok(());
            }
            tracing::warn!("`{}` is damaged; it is fetched again", entry.display());
            for damaged in [target, &entry] {
                fs::remove_file(damaged).at(damaged)?;
            }
        }
        // Somebody may have removed the cache to free space.
        fs::create_dir_all(&folder).at(&folder)?;
        let staged = folder.join(format!("{sha256}.{:08x}.part", rand::random::<u32>()));
        let fetched = self.fetch(object, &staged, &entry).await;
        if fetched.is_err() {
            let _ = fs::remove_file(&staged);
        }
        fetched?;
        take(&entry, target).at(&entry)?;
        Ok(())
    }

    async fn fetch(
        &self,
        object: &Descriptor,
        staged: &Path,
        entry: &Path,
    ) -> Result<(), ObjectError> {
        self.objects.fetch(object, staged).await?;
        give(&self.sandbox, staged).await?;
        fs::rename(staged, entry).at(entry)
    }

    /// Bytes of all entries. Blocks.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        Ok(self.entries()?.iter().map(|entry| entry.bytes).sum())
    }

    /// Evicts entries until the limit holds. Blocks; call it between attempts.
    pub(super) fn trim(&self) -> io::Result<()> {
        self.trim_at(SystemTime::now(), RECENT)
    }

    fn trim_at(&self, now: SystemTime, recent: Duration) -> io::Result<()> {
        let mut entries = self.entries()?;
        entries.sort();
        let mut total: u64 = entries.iter().map(|entry| entry.bytes).sum();
        for Entry { used, bytes, path } in entries {
            let age = now.duration_since(used).unwrap_or_default();
            if total <= self.limit || age < recent {
                break;
            }
            tracing::info!("evicting `{}` from the cache", path.display());
            fs::remove_file(&path)?;
            total -= bytes;
        }
        Ok(())
    }

    fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        if !self.root.exists() {
            return Ok(entries);
        }
        for folder in fs::read_dir(&self.root)? {
            for entry in fs::read_dir(folder?.path())? {
                let entry = entry?;
                let metadata = match entry.metadata() {
                    // It was evicted in the meantime, or a trainer renamed it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    metadata => metadata?,
                };
                entries.push(Entry {
                    used: metadata.modified()?,
                    bytes: metadata.len(),
                    path: entry.path(),
                });
            }
        }
        Ok(entries)
    }
}

/// Beginning of the names of features: their tenant and data sets.
fn features_of(sets: DataSets<'_>) -> String {
    let digits = |pack: &Pack| pack.sha256.chars().take(DIGITS).collect::<String>();
    format!(
        "{}-{}-{}.",
        sets.tenant.0,
        digits(sets.training),
        sets.validation.map(digits).unwrap_or_default()
    )
}

/// True for the names that a trainer gives: `features-<SHA-256>-<number>.safetensors`, and
/// `pixels-<SHA-256>.safetensors`. The rest may be unfinished, or not its own idea.
fn is_name_of_features(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".safetensors") else {
        return false;
    };
    let digits = |text: &str, count, radix| {
        text.len() == count && text.chars().all(|digit| digit.is_digit(radix))
    };
    match stem.split('-').collect::<Vec<_>>()[..] {
        ["features", key, number] => digits(key, 64, 16) && digits(number, 5, 10),
        ["pixels", key] => digits(key, 64, 16),
        _ => false,
    }
}

/// Links an entry and marks it as used; `false` when there is none.
fn take(entry: &Path, target: &Path) -> io::Result<bool> {
    match fs::hard_link(entry, target) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    // Fails for a file of another user, which is then evicted a little early.
    if let Ok(file) = fs::File::open(entry) {
        let _ = file.set_modified(SystemTime::now());
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::checkpoint::ManifestEntry, sandbox};

    fn open(folder: &Path, objects: &Objects) -> Cache {
        let sources = (objects.clone(), sandbox::tests::own());
        Cache::open(&folder.join("cache"), 25, sources).unwrap()
    }

    #[test]
    fn only_names_of_trainers_are_features() {
        let key = "0a".repeat(32);
        for name in [
            format!("features-{key}-00012.safetensors"),
            format!("pixels-{key}.safetensors"),
        ] {
            assert!(is_name_of_features(&name), "{name}");
        }
        for name in [
            format!("features-{key}-00012.safetensors.part"),
            format!("features-{key}-123456.safetensors"),
            format!("features-{key}x-00012.safetensors"),
            format!("pixels-{key}-00012.safetensors"),
            format!("2-{key}-.pixels-{key}.safetensors"),
            format!("pixels-{}.safetensors", "0g".repeat(32)),
            "../weights.safetensors".to_owned(),
        ] {
            assert!(!is_name_of_features(&name), "{name}");
        }
    }

    /// Stores a text as `packs/<name>`.
    async fn store(folder: &Path, objects: &Objects, name: &str, text: &str) -> Descriptor {
        let source = folder.join("source");
        fs::write(&source, text).unwrap();
        let stored = objects.put_file(&format!("packs/{name}"), &source).await;
        let entry = ManifestEntry::from(stored.unwrap());
        Descriptor::new("file `f`", "packs/", name, &entry)
    }

    #[tokio::test]
    async fn entries_are_fetched_once_checked_and_evicted_oldest_first() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path().join("objects").to_str().unwrap()).unwrap();
        let cache = open(folder.path(), &objects);
        let mut stored = Vec::new();
        for (index, text) in ["aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"]
            .iter()
            .enumerate()
        {
            let object = store(folder.path(), &objects, &index.to_string(), text).await;
            let target = folder.path().join(format!("linked-{index}"));
            cache.link(Kind::Packs, &object, &target).await.unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), *text);
            let entry = format!("cache/packs/{}.safetensors", object.sha256);
            let entry = folder.path().join(entry);
            let used = SystemTime::now() - Duration::from_secs(1000 - index as u64);
            fs::File::open(entry).unwrap().set_modified(used).unwrap();
            stored.push(object);
        }
        // The object is deleted, the entry is not; its use makes it the newest.
        objects.delete_prefix("packs").await.unwrap();
        let again = folder.path().join("again");
        cache.link(Kind::Packs, &stored[0], &again).await.unwrap();

        cache.trim_at(SystemTime::now(), RECENT).unwrap();
        let left = |object: &Descriptor| {
            let entry = format!("cache/packs/{}.safetensors", object.sha256);
            folder.path().join(entry).exists()
        };
        assert_eq!(
            stored.iter().map(left).collect::<Vec<_>>(),
            [true, false, true]
        );
        assert_eq!(
            fs::read_to_string(folder.path().join("linked-1")).unwrap(),
            "bbbbbbbbbb"
        );
    }

    #[tokio::test]
    async fn a_removed_cache_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path().join("objects").to_str().unwrap()).unwrap();
        let root = folder.path().join("cache");
        let cache = open(folder.path(), &objects);
        let object = store(folder.path(), &objects, "1", "text").await;
        fs::remove_dir_all(&root).unwrap();
        cache.trim().unwrap();
        let target = folder.path().join("target");
        cache.link(Kind::Packs, &object, &target).await.unwrap();
        assert_eq!(fs::read_to_string(target).unwrap(), "text");
    }

    #[tokio::test]
    async fn a_damaged_object_is_refused_and_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path().join("objects").to_str().unwrap()).unwrap();
        let cache = open(folder.path(), &objects);
        let object = store(folder.path(), &objects, "1", "text").await;
        let wrong = Descriptor {
            sha256: "0".repeat(64),
            ..object
        };
        let target = folder.path().join("t");
        let linked = cache.link(Kind::Weights, &wrong, &target).await;
        assert!(
            matches!(linked, Err(ObjectError::Damaged { .. })),
            "{linked:?}"
        );
        let left = fs::read_dir(folder.path().join("cache/weights")).unwrap();
        assert_eq!((left.count(), target.exists()), (0, false));
    }

    /// The cache may lie on another disk than the object store.
    #[tokio::test]
    async fn a_damaged_entry_is_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path().join("objects").to_str().unwrap()).unwrap();
        let cache = open(folder.path(), &objects);
        let object = store(folder.path(), &objects, "1", "text").await;
        let entry = format!("cache/packs/{}.safetensors", object.sha256);
        fs::write(folder.path().join(entry), "tent").unwrap();
        let target = folder.path().join("t");
        cache.link(Kind::Packs, &object, &target).await.unwrap();
        assert_eq!(fs::read_to_string(target).unwrap(), "text");
    }
}
