//! The cache that the hub's clients share (`HF_HOME`): a folder per repository with `refs` (the
//! commits of branches and tags), `blobs` (contents, by SHA-256 or git's hash) and `snapshots` (the
//! files of a commit, as links to blobs). What is in it is used without the hub, and what comes of
//! the hub is added.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::client::Outgoing;

/// Files of one snapshot that are listed.
const FILES: usize = 10_000;

/// The content of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Dataset,
}

impl Kind {
    /// Its word in the hub's routes, and in the names of the cache's folders.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }

    /// The text before a repository's name in the URLs of its files.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Model => "",
            Self::Dataset => "datasets/",
        }
    }
}

/// A repository of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repository<'a> {
    pub kind: Kind,
    /// Owner and name.
    pub name: &'a str,
}

/// A file of a repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub repository: Repository<'a>,
    pub commit: &'a str,
    pub name: &'a str,
}

/// A file in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cached {
    pub name: String,
    pub bytes: u64,
    /// Where the blob is named by it.
    pub sha256: Option<String>,
}

impl Outgoing {
    /// The file in the cache that a URL of the hub leads to.
    pub fn cached(&self, url: &str) -> Option<PathBuf> {
        let place = self.place(url)?;
        let path = self.cached_at(&place)?;
        path.is_file().then_some(path)
    }

    pub(super) fn cached_at(&self, place: &Place<'_>) -> Option<PathBuf> {
        let snapshot = self.snapshot(place.repository, place.commit)?;
        is_plain_path(place.name).then(|| snapshot.join(place.name))
    }

    /// The file that a URL such as `https://hub/org/name/resolve/COMMIT/file` names, of an owner
    /// whose repositories may be used.
    fn place<'a>(&self, url: &'a str) -> Option<Place<'a>> {
        let endpoint = self.args().hub_endpoint.trim_end_matches('/');
        let path = url.strip_prefix(endpoint)?.strip_prefix('/')?;
        let (name, rest) = path.split_once("/resolve/")?;
        let (kind, repository) = match name.strip_prefix(Kind::Dataset.prefix()) {
            Some(name) => (Kind::Dataset, name),
            None => (Kind::Model, name),
        };
        let (commit, name) = rest.split_once('/')?;
        let (owner, _) = repository.split_once('/')?;
        self.args().allows_owner(owner).then_some(Place {
            repository: Repository {
                kind,
                name: repository,
            },
            commit,
            name,
        })
    }

    fn folder(&self, repository: Repository<'_>) -> Option<PathBuf> {
        let cache = self.args().hub_cache()?;
        let (owner, name) = repository.name.split_once('/')?;
        let kind = repository.kind.word();
        let are_plain = is_plain(owner) && is_plain(name);
        are_plain.then(|| cache.join(format!("{kind}--{owner}--{name}")))
    }

    fn snapshot(&self, repository: Repository<'_>, commit: &str) -> Option<PathBuf> {
        let folder = self.folder(repository)?.join("snapshots");
        is_plain(commit).then(|| folder.join(commit))
    }

    /// The commit that a branch or tag has in the cache; the revision itself where it has none.
    pub(super) fn cached_commit(&self, repository: Repository<'_>, revision: &str) -> String {
        match self.reference(repository, revision).map(fs::read_to_string) {
            Some(Ok(commit)) => commit.trim().to_owned(),
            _ => revision.to_owned(),
        }
    }

    /// The commit that a revision is in the cache, and its files.
    pub(super) fn cached_revision(
        &self,
        repository: Repository<'_>,
        revision: &str,
    ) -> Option<(String, Vec<Cached>)> {
        let commit = self.cached_commit(repository, revision);
        let snapshot = self.snapshot(repository, &commit)?;
        let mut files = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(snapshot.join(&folder)).ok()?;
            for entry in entries.take(FILES - files.len()) {
                let Ok(entry) = entry else { continue };
                let name = format!("{folder}{}", entry.file_name().to_str().unwrap_or_default());
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && is_plain_path(&name) => {
                        folders.push(format!("{name}/"));
                    }
                    _ => files.extend(cached_file(&entry.path(), name)),
                }
            }
        }
        Some((commit, files))
    }

    /// The file that has the commit of a branch or tag.
    fn reference(&self, repository: Repository<'_>, revision: &str) -> Option<PathBuf> {
        let folder = self.folder(repository)?.join("refs");
        is_plain_path(revision).then(|| folder.join(revision))
    }

    /// Adds the commit of a branch or tag to the cache, if there is one.
    pub(super) fn cache_revision(&self, repository: Repository<'_>, revision: &str, commit: &str) {
        let Some(path) = self.reference(repository, revision) else {
            return;
        };
        if revision != commit && is_plain(commit) {
            report(replace(&path, |partial| fs::write(partial, commit)));
        }
    }

    /// Adds a file that a URL of the hub led to, written by `write`, under the hash that names its
    /// blob. What is there stays unless it is damaged. A cache that is full or read-only is left as
    /// it is.
    pub fn cache(
        &self,
        url: &str,
        (hash, is_damaged): (&str, bool),
        write: impl FnOnce(&Path) -> io::Result<()>,
    ) {
        let Some(place) = self.place(url) else {
            return;
        };
        let snapshot = self.snapshot(place.repository, place.commit);
        let folder = self.folder(place.repository);
        let (Some(snapshot), Some(folder)) = (snapshot, folder) else {
            return;
        };
        if is_plain(hash) && is_plain_path(place.name) {
            let blob = folder.join("blobs").join(hash);
            let link = snapshot.join(place.name);
            if is_damaged {
                report(replace(&blob, write));
            } else if !link.exists() {
                let up = "../".repeat(2 + place.name.matches('/').count());
                report(add(&blob, &link, &up, write));
            }
        }
    }
}

/// The file at `path` in a snapshot.
fn cached_file(path: &Path, name: String) -> Option<Cached> {
    let blob = fs::read_link(path).ok();
    let blob = blob.as_deref().and_then(Path::file_name);
    let blob = blob.and_then(|blob| blob.to_str());
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(Cached {
        name,
        bytes: metadata.len(),
        sha256: blob.filter(|blob| is_sha256(blob)).map(str::to_owned),
    })
}

/// Adds a blob, and the link to it, from whose folder `up` leads to the repository's.
fn add(
    blob: &Path,
    link: &Path,
    up: &str,
    write: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    if !blob.exists() {
        replace(blob, write)?;
    }
    let name = blob.file_name().unwrap_or_default();
    replace(link, |partial| {
        symlink(Path::new(up).join("blobs").join(name), partial)
    })
}

/// Makes a file under a temporary name beside it, and renames it.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{:08x}.incomplete", rand::random::<u32>()));
    let partial = PathBuf::from(partial);
    let made = make(&partial).and_then(|()| fs::rename(&partial, path));
    if made.is_err() {
        let _ = fs::remove_file(&partial);
    }
    made
}

fn report(added: io::Result<()>) {
    if let Err(error) = added {
        tracing::warn!("cannot write to the hub's cache: {error}");
    }
}

/// A path of such names.
fn is_plain_path(path: &str) -> bool {
    path.split('/').all(is_plain)
}

/// A name that stays in its folder.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}

fn is_sha256(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
