//! Folders that only this process's user may enter: objects, scratch and work folders have what
//! tenants uploaded. One that another user made, or a link in its place, is refused, because its
//! owner could read and replace what is written there.

use std::{
    fs::{DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, geteuid};

/// Opens a folder, and creates it and its parents where they are missing. Returns its absolute
/// path.
///
/// # Errors
/// It cannot be created, is a link, or belongs to another user.
pub fn open(path: &Path) -> io::Result<PathBuf> {
    let folder = open_own(path)?;
    if folder.metadata()?.mode() & 0o077 != 0 {
        folder.set_permissions(Permissions::from_mode(0o700))?;
    }
    path.canonicalize()
}

/// Lets the members of a group pass through a folder of `open`, but not list it.
///
/// # Errors
/// As `open`.
pub fn let_pass(path: &Path, group: Gid) -> io::Result<()> {
    let folder = open_own(path)?;
    fchown(&folder, None, Some(group.as_raw()))?;
    folder.set_permissions(Permissions::from_mode(0o710))
}

/// The handle of a folder of this user, so that what is checked is what is changed.
fn open_own(path: &Path) -> io::Result<File> {
    // Without a slash at its end, with which the system follows a link.
    let path: PathBuf = path.components().collect();
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(&path)?;
    if path.is_symlink() {
        let why = "it is a symbolic link; give the path of the folder that it leads to";
        return Err(io::Error::other(why));
    }
    let folder = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)?;
    let (owner, user) = (folder.metadata()?.uid(), geteuid().as_raw());
    if owner != user {
        return Err(io::Error::other(format!(
            "it belongs to user {owner}, but user {user} runs this process; give another folder, or change its owner"
        )));
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn new_folders_and_their_parents_are_closed() {
        let dir = tempfile::tempdir().unwrap();
        let made = open(&dir.path().join("a/b")).unwrap();
        assert_eq!([mode(&made), mode(made.parent().unwrap())], [0o700; 2]);
        fs::set_permissions(&made, Permissions::from_mode(0o755)).unwrap();
        open(&made).unwrap();
        assert_eq!(mode(&made), 0o700);
    }

    #[test]
    fn links_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, link) = (dir.path().join("folder"), dir.path().join("link"));
        fs::create_dir(&folder).unwrap();
        symlink(&folder, &link).unwrap();
        for path in [link.clone(), dir.path().join("link/")] {
            let refused = open(&path).unwrap_err().to_string();
            assert!(refused.contains("symbolic link; give"), "{refused}");
        }
        fs::remove_dir(&folder).unwrap();
        assert!(open(&link).is_err());
    }

    #[test]
    fn folders_of_others_are_refused() {
        if !geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(4_321), None).unwrap();
        let refused = open(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("belongs to user 4321"), "{refused}");
        std::os::unix::fs::chown(dir.path(), Some(0), None).unwrap();
    }
}
