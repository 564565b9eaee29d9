//! Homes of running children. A lock file beside each folder, held by this process, shows that it
//! is in use: locks end with their process, however it ends.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io,
    ops::Deref,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::sandbox::{Home, Sandbox};

/// The folder that holds them.
#[derive(Debug)]
pub(super) struct Folders {
    root: PathBuf,
    sandbox: Sandbox,
}

/// One home. Removed when dropped: end the child that works in it first.
#[derive(Debug)]
pub(super) struct Folder {
    home: Home,
    _lock: File,
}

impl Folders {
    /// Opens `root`, and removes folders that dead processes left there.
    pub(super) fn open(root: &Path, sandbox: Sandbox) -> io::Result<Self> {
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
            sandbox,
        })
    }

    /// Creates an empty folder; no other attempt uses this name.
    pub(super) fn create(&self, name: &str) -> io::Result<Folder> {
        fs::create_dir_all(&self.root)?;
        let path = self.root.join(name);
        let lock = File::create(lock_path(&path))?;
        lock.try_lock().map_err(io::Error::from)?;
        if path.exists() {
            remove(&path)?;
        }
        fs::create_dir(&path)?;
        let home = self.sandbox.home(&path)?;
        Ok(Folder { home, _lock: lock })
    }
}

impl Deref for Folder {
    type Target = Home;

    fn deref(&self) -> &Home {
        &self.home
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let path = self.path();
        match remove(path) {
            Ok(()) => drop(fs::remove_file(lock_path(path))),
            // The lock file stays, so that the next start removes the folder.
            Err(error) => tracing::warn!("cannot remove `{}`: {error}", path.display()),
        }
    }
}

/// Removes a folder with all that is in it, also folders that a child has closed to its own user.
fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_all(folder)?;
            fs::remove_dir_all(folder)
        }
        removed => removed,
    }
}

fn open_all(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_all(&entry.path())?;
        }
    }
    Ok(())
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
    match remove(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::remove_file(lock_path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox;

    fn folders(root: &Path) -> Folders {
        Folders::open(root, sandbox::tests::own()).unwrap()
    }

    #[test]
    fn closed_folders_are_removed_too() {
        let root = tempfile::tempdir().unwrap();
        let folder = folders(root.path()).create("closed-1").unwrap();
        fs::create_dir_all(folder.work().join("a/b")).unwrap();
        fs::set_permissions(folder.work().join("a"), Permissions::from_mode(0o000)).unwrap();
        drop(folder);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn open_removes_dead_folders_and_keeps_live_ones() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        let live = folders.create("live-1").unwrap();
        fs::write(live.path().join("x"), "x").unwrap();
        assert!(folders.create("live-1").is_err());

        fs::create_dir(root.path().join("dead-1")).unwrap();
        fs::write(root.path().join("dead-1/x"), "x").unwrap();
        fs::write(root.path().join("dead-1.lock"), "").unwrap();
        Folders::open(root.path(), sandbox::tests::own()).unwrap();
        assert!(!root.path().join("dead-1").exists() && live.path().join("x").exists());

        fs::remove_dir_all(root.path()).unwrap();
        let again = folders.create("again-1").unwrap();
        assert!(again.path().is_dir());
        drop(again);

        drop(live);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
