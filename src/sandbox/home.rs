//! The home of a child: its current directory, and all that it sees of users' data. The service
//! puts files into it that the child may only read; `work` in it is the child's own. The child
//! names it `/proc/self/cwd`, which is absolute and leads through no folder above it: those are
//! closed to the child's user.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
    path::{Path, PathBuf},
};

use super::users::User;

/// The home, as the child names it.
const SEEN: &str = "/proc/self/cwd";
/// The folder of files that the child only reads, as the child names it.
pub const INPUTS: &str = "/proc/self/cwd/inputs";
/// The folder that the child writes, as the child names it.
pub const WORK: &str = "/proc/self/cwd/work";

/// A folder with `inputs` and `work` in it.
#[derive(Debug, Clone)]
pub struct Home {
    folder: PathBuf,
    user: Option<User>,
}

impl Home {
    pub(super) fn open(folder: &Path, user: Option<User>) -> io::Result<Self> {
        let home = Self {
            folder: folder.to_owned(),
            user,
        };
        for inner in [home.inputs(), home.work()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(inner)?;
        }
        if let Some(User { id, group }) = user {
            share(&home.folder, group)?;
            share(&home.inputs(), group)?;
            lchown(home.work(), Some(id), Some(group))?;
        }
        Ok(home)
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// The folder of files that the child only reads.
    pub fn inputs(&self) -> PathBuf {
        self.folder.join("inputs")
    }

    /// The folder that the child writes.
    pub fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    /// A folder of this name that the child writes, in its work folder.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create_in_work(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.work().join(name);
        fs::create_dir(&folder)?;
        if let Some(User { id, group }) = self.user {
            lchown(&folder, Some(id), Some(group))?;
        }
        Ok(folder)
    }

    /// A path in it, as the child names it.
    pub fn seen(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.folder)
            .map_or_else(|_| path.to_owned(), |inner| Path::new(SEEN).join(inner))
    }

    pub(super) fn user(&self) -> Option<User> {
        self.user
    }
}

/// Lets a group pass through a folder and list it.
pub(super) fn share(folder: &Path, group: u32) -> io::Result<()> {
    lchown(folder, Some(0), Some(group))?;
    fs::set_permissions(folder, Permissions::from_mode(0o750))
}

/// Lets a group read a file, or a folder with all that is in it; see `Sandbox::give`.
pub(super) fn give(path: &Path, group: u32) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), group)?;
        }
        return share(path, group);
    }
    if metadata.gid() == group && metadata.mode() & 0o777 == 0o440 {
        return Ok(());
    }
    if metadata.nlink() > 1 {
        let mut copy = path.as_os_str().to_owned();
        copy.push(".copy");
        fs::copy(path, &copy)?;
        fs::rename(copy, path)?;
    }
    seal(path, Some(group))
}

/// Makes a file one that no child may write; see `Sandbox::seal`.
pub(super) fn seal(file: &Path, group: Option<u32>) -> io::Result<()> {
    if let Some(group) = group {
        lchown(file, Some(0), Some(group))?;
    }
    fs::set_permissions(file, Permissions::from_mode(0o440))
}

#[cfg(test)]
mod tests {
    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn a_given_link_leaves_its_object_as_it_was() {
        if !geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (object, link) = (dir.path().join("object"), dir.path().join("in/link"));
        fs::create_dir(dir.path().join("in")).unwrap();
        fs::write(&object, "text").unwrap();
        fs::set_permissions(&object, Permissions::from_mode(0o600)).unwrap();
        fs::hard_link(&object, &link).unwrap();
        give(&dir.path().join("in"), 1_234).unwrap();
        let [object, given] = [&object, &link].map(|file| fs::metadata(file).unwrap());
        assert_eq!((object.gid(), object.mode() & 0o777), (0, 0o600));
        assert_eq!((given.gid(), given.mode() & 0o777), (1_234, 0o440));
        assert_eq!(fs::read(&link).unwrap(), b"text");
        // What was given once keeps its links: the cache's own.
        fs::hard_link(&link, dir.path().join("again")).unwrap();
        give(&dir.path().join("again"), 1_234).unwrap();
        assert_eq!(fs::metadata(&link).unwrap().nlink(), 2);
    }
}
