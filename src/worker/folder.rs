//! Folders of running children, one for each attempt. A lock file beside each folder, held by this
//! process, shows that it is in use: locks end with their process, however it ends.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// The folder that holds them.
#[derive(Debug)]
pub(super) struct Folders {
    root: PathBuf,
}

/// One folder. Removed when dropped: end the child that works in it first.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folders {
    /// Opens `root`, and removes folders that dead processes left there.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        for entry in fs::read_dir(root)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "lock")
            {
                remove_if_dead(&path)?;
            }
        }
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Creates an empty folder; no other attempt uses this name.
    pub(super) fn create(&self, name: &str) -> io::Result<Folder> {
        fs::create_dir_all(&self.root)?;
        let path = self.root.join(name);
        let lock = File::create(lock_path(&path))?;
        lock.try_lock().map_err(io::Error::from)?;
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir(&path)?;
        Ok(Folder { path, _lock: lock })
    }
}

impl Folder {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.path) {
            Ok(()) => drop(fs::remove_file(lock_path(&self.path))),
            // The lock file stays, so that the next start removes the folder.
            Err(error) => tracing::warn!("cannot remove `{}`: {error}", self.path.display()),
        }
    }
}

fn lock_path(folder: &Path) -> PathBuf {
    folder.with_extension("lock")
}

fn remove_if_dead(lock_path: &Path) -> io::Result<()> {
    match File::open(lock_path)?.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let folder = lock_path.with_extension("");
    tracing::info!(
        "removing the folder of a dead worker: `{}`",
        folder.display()
    );
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::remove_file(lock_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_removes_dead_folders_and_keeps_live_ones() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::open(root.path()).unwrap();
        let live = folders.create("live-1").unwrap();
        fs::write(live.path().join("x"), "x").unwrap();
        assert!(folders.create("live-1").is_err());

        fs::create_dir(root.path().join("dead-1")).unwrap();
        fs::write(root.path().join("dead-1/x"), "x").unwrap();
        fs::write(root.path().join("dead-1.lock"), "").unwrap();
        Folders::open(root.path()).unwrap();
        assert!(!root.path().join("dead-1").exists() && live.path().join("x").exists());

        fs::remove_dir_all(root.path()).unwrap();
        let again = folders.create("again-1").unwrap();
        assert!(again.path().is_dir());
        drop(again);

        drop(live);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
