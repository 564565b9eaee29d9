//! The folder, the socket and the user of a private Postgres server. Only the server and this
//! process can reach folder and socket.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    io::ErrorKind,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use nix::unistd::{Gid, User, geteuid};
use sha2::{Digest, Sha256};

/// Folder for servers started by root whose user cannot reach the folder that was asked for, and
/// for copies of programs that the user cannot reach.
pub(super) const REACHABLE: &str = "/var/lib/rehead";
/// Longest path of a socket in bytes (`sockaddr_un`), without its terminator.
const SOCKET_PATH_BYTES: usize = 107;

/// Folders of a server.
#[derive(Debug)]
pub(super) struct Home {
    /// The unprivileged user of a server that root starts; `None` when this process is not root. It
    /// must be in /etc/passwd, where Postgres looks up its own name.
    pub(super) user: Option<User>,
    /// Holds `data`.
    pub(super) folder: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) log: PathBuf,
}

impl Home {
    /// Opens `dir`, and creates the folders that do not exist.
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        let user = unprivileged()?;
        // The server's user must be able to pass through, but not to list it.
        make_folder(dir, 0o711)?;
        let dir = dir
            .canonicalize()
            .with_context(|| format!("cannot open `{}`", dir.display()))?;
        let folder = reachable(&dir, user.as_ref())?;
        let socket = socket(&folder);
        private_folder(&socket, user.as_ref())?;
        Ok(Self {
            user,
            folder,
            socket,
            log: dir.join("postgres.log"),
        })
    }
}

/// The group of the user that runs a server of this process; `None` when that is this process' own
/// user.
///
/// # Errors
/// This process is root, and there is no user to run a server as.
pub fn group() -> anyhow::Result<Option<Gid>> {
    Ok(unprivileged()?.map(|user| user.gid))
}

fn unprivileged() -> anyhow::Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name)? {
            return Ok(Some(user));
        }
    }
    bail!(
        "postgres refuses to run as root, and this machine has no user `postgres` or `nobody` to run it as; \
         create one, or run rehead as another user than root"
    )
}

/// Returns `dir`, or another folder that the server's user can reach, whose path is then recorded
/// in `dir/postgres.path`.
fn reachable(dir: &Path, user: Option<&User>) -> anyhow::Result<PathBuf> {
    let Some(user) = user else {
        return Ok(dir.to_owned());
    };
    let note = dir.join("postgres.path");
    if let Ok(recorded) = fs::read(&note) {
        let folder = PathBuf::from(OsStr::from_bytes(recorded.trim_ascii()));
        ensure!(
            folder.is_dir(),
            "`{}` names the database folder `{}`, which does not exist; restore it, or delete the file to start with \
             an empty database",
            note.display(),
            folder.display()
        );
        return Ok(folder);
    }
    if dir.join("data").exists() || can_enter(dir, user) {
        return Ok(dir.to_owned());
    }
    let folder = Path::new(REACHABLE).join(short_hash(dir));
    make_folder(Path::new(REACHABLE), 0o711)?;
    make_folder(&folder, 0o711)?;
    fs::write(&note, folder.as_os_str().as_bytes())
        .with_context(|| format!("cannot write `{}`", note.display()))?;
    tracing::info!(
        "the database is in `{}`: postgres runs as user `{}`, who cannot reach `{}`",
        folder.display(),
        user.name,
        dir.display()
    );
    Ok(folder)
}

/// True when a user may pass through a folder and all folders above it, by their modes.
pub(super) fn can_enter(folder: &Path, user: &User) -> bool {
    folder.ancestors().all(|part| {
        let Ok(part) = fs::metadata(part) else {
            return false;
        };
        let shift = if part.uid() == user.uid.as_raw() {
            6
        } else if part.gid() == user.gid.as_raw() {
            3
        } else {
            0
        };
        part.mode() >> shift & 1 == 1
    })
}

/// Returns `folder/run`, or a folder below /tmp if that path is too long for a socket.
fn socket(folder: &Path) -> PathBuf {
    let near = folder.join("run");
    if near.as_os_str().len() + "/.s.PGSQL.5432.lock".len() <= SOCKET_PATH_BYTES {
        return near;
    }
    Path::new("/tmp").join(format!("rehead-{}", short_hash(folder)))
}

/// Creates a folder that only the server's user (and root) can enter. An existing one must belong
/// to that user already.
pub(super) fn private_folder(folder: &Path, user: Option<&User>) -> anyhow::Result<()> {
    make_folder(folder, 0o700)?;
    let found = fs::symlink_metadata(folder)?;
    let own = geteuid().as_raw();
    let owner = user.map_or(own, |user| user.uid.as_raw());
    ensure!(
        found.is_dir() && (found.uid() == owner || found.uid() == own),
        "`{}` exists and belongs to another user; remove it",
        folder.display()
    );
    if let Some(user) = user {
        chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())).with_context(|| {
            format!(
                "cannot change the owner of `{}` to `{}`",
                folder.display(),
                user.name
            )
        })?;
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    Ok(())
}

/// Creates a folder and its parents; an existing one keeps its mode.
fn make_folder(folder: &Path, mode: u32) -> anyhow::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create `{}`", parent.display()))?;
    }
    match fs::create_dir(folder) {
        Ok(()) => fs::set_permissions(folder, Permissions::from_mode(mode))
            .with_context(|| format!("cannot set the mode of `{}`", folder.display())),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot create `{}`", folder.display())),
    }
}

pub(super) fn short_hash(path: &Path) -> String {
    hex::encode(&Sha256::digest(path.as_os_str().as_bytes())[..6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_of_a_deep_folder_is_short() {
        assert_eq!(socket(Path::new("/var/lib/x")), Path::new("/var/lib/x/run"));
        let deep = PathBuf::from(format!("/{}", "deep/".repeat(30)));
        assert!(socket(&deep).as_os_str().len() < 40);
        assert_ne!(socket(&deep), socket(&deep.join("other")));
    }

    #[test]
    fn folder_below_a_private_one_cannot_be_entered() {
        let closed = tempfile::tempdir().unwrap();
        // Whatever the umask is.
        fs::set_permissions(closed.path(), Permissions::from_mode(0o700)).unwrap();
        let inner = closed.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let stranger = User {
            uid: nix::unistd::Uid::from_raw(4_000_000),
            gid: nix::unistd::Gid::from_raw(4_000_000),
            ..User::from_name("root").unwrap().unwrap()
        };
        assert!(!can_enter(&inner, &stranger));
        fs::set_permissions(closed.path(), Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(&inner, Permissions::from_mode(0o711)).unwrap();
        assert!(can_enter(&inner, &stranger));
    }
}
