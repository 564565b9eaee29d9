//! Remembers which objects this process has compared with their rows.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Semaphore;

/// Objects that are hashed at the same time.
const HASHED_AT_ONCE: usize = 4;
/// Objects that `Verified` remembers.
const REMEMBERED: usize = 10_000;

/// The files that this process has hashed, as they were then: a file that did not change since is
/// not hashed again.
#[derive(Debug)]
pub(super) struct Verified {
    files: Mutex<HashMap<String, (Version, String)>>,
    /// Limits how many are hashed at the same time.
    pub(super) hashing: Semaphore,
}

impl Default for Verified {
    fn default() -> Self {
        Self {
            files: Mutex::default(),
            hashing: Semaphore::new(HASHED_AT_ONCE),
        }
    }
}

/// Changes with every write to a file, and when another takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    inode: u64,
    pub(super) bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Verified {
    pub(super) fn has(&self, key: &str, version: Version, sha256: &str) -> bool {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files
            .get(key)
            .is_some_and(|(seen, hash)| *seen == version && hash == sha256)
    }

    pub(super) fn add(&self, key: &str, version: Version, sha256: &str) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() >= REMEMBERED {
            files.clear();
        }
        files.insert(key.to_owned(), (version, sha256.to_owned()));
    }
}
