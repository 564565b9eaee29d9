//! The store of objects, in a folder.

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::body::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, WriteMultipart, local::LocalFileSystem,
    path::Path as Key,
};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::verified::Verified;
use crate::{domain::checkpoint::ManifestEntry, private_folder};

/// Size of one part of an upload in bytes; about two are in memory at once.
const PART_BYTES: usize = 8 << 20;
/// Bytes that are read from a file at once.
const READ_BYTES: usize = 1 << 20;
/// Longest key in characters.
const KEY_CHARACTERS: usize = 512;

/// An object could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The disk or the quota is full. The incomplete object is removed.
    #[error("storage is full: cannot write `{what}`; free space or raise the quota")]
    StorageFull { what: String },
    #[error("object `{key}` does not exist")]
    NotFound { key: String },
    /// An object that is not what its row describes.
    #[error("{object} {why}; restore it from a backup of the object store, or make it again")]
    Damaged { object: String, why: String },
    /// Keys are never made of a user's input: this is a bug or a damaged row.
    #[error("object key `{key}` is not made of names of letters, digits, `.`, `_` and `-`")]
    InvalidKey { key: String },
    #[error("object store `{url}` is not supported; give the path of a folder")]
    Unsupported { url: String },
    /// The bytes to store could not be read; contains the reader's own error.
    #[error("cannot read the bytes to store: {0}")]
    Input(#[source] io::Error),
    #[error("`{path}`: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("object store: cannot access `{key}`: {source}")]
    Store {
        key: String,
        source: object_store::Error,
    },
}

impl ObjectError {
    /// The error of a local file: `StorageFull` if the disk is full, else `File`.
    pub fn of_file(path: &Path, source: io::Error) -> Self {
        if is_storage_full(&source) {
            return Self::StorageFull {
                what: path.display().to_string(),
            };
        }
        Self::File {
            path: path.to_owned(),
            source,
        }
    }
}

/// Adds its place to an error: the path of a file, or the key of an object.
pub trait At<T> {
    type Place: ?Sized;

    /// # Errors
    /// `StorageFull` if the disk is full, else `File`, `NotFound` or `Store`.
    fn at(self, place: &Self::Place) -> Result<T, ObjectError>;
}

impl<T> At<T> for io::Result<T> {
    type Place = Path;

    fn at(self, path: &Path) -> Result<T, ObjectError> {
        self.map_err(|source| ObjectError::of_file(path, source))
    }
}

impl<T> At<T> for object_store::Result<T> {
    type Place = str;

    fn at(self, key: &str) -> Result<T, ObjectError> {
        self.map_err(|source| store_error(key, source))
    }
}

/// Size and hash of a stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub bytes: u64,
    /// SHA-256 of the content in lower-case hex.
    pub sha256: String,
}

impl From<Stored> for ManifestEntry {
    fn from(Stored { bytes, sha256 }: Stored) -> Self {
        Self { bytes, sha256 }
    }
}

/// An object store. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    pub(super) root: PathBuf,
    pub(super) verified: Arc<Verified>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Objects {
    /// Opens a folder, given as a path or a `file://` URL; creates it if it does not exist.
    ///
    /// # Errors
    /// `Unsupported` for every other URL; `File` if the folder cannot be created, or is a link or
    /// another user's.
    pub fn open(url_or_folder: &str) -> Result<Self, ObjectError> {
        let folder = url_or_folder
            .strip_prefix("file://")
            .unwrap_or(url_or_folder);
        if folder.contains("://") || folder.is_empty() {
            return Err(ObjectError::Unsupported {
                url: url_or_folder.to_owned(),
            });
        }
        let folder = Path::new(folder);
        let root = private_folder::open(folder).at(folder)?;
        let store = LocalFileSystem::new_with_prefix(&root)
            .at(url_or_folder)?
            .with_fsync(true)
            .with_automatic_cleanup(true);
        Ok(Self {
            store: Arc::new(store),
            root,
            verified: Arc::default(),
        })
    }

    /// The folder of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Stores a stream under a key and replaces an existing object. Nothing remains if the stream
    /// fails or this future is dropped.
    ///
    /// # Errors
    /// `Input` with the stream's error; `StorageFull`; `Store`.
    pub async fn put_stream(
        &self,
        key: &str,
        mut stream: impl Stream<Item = io::Result<Bytes>> + Unpin,
    ) -> Result<Stored, ObjectError> {
        let path = parse_key(key)?;
        let upload = self.store.put_multipart(&path).await.at(key)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut hash = Sha256::new();
        let mut bytes: u64 = 0;
        let written = loop {
            match stream.next().await {
                None => break Ok(()),
                Some(Err(source)) => break Err(ObjectError::Input(source)),
                Some(Ok(chunk)) => {
                    if let Err(error) = upload.wait_for_capacity(1).await.at(key) {
                        break Err(error);
                    }
                    bytes += chunk.len() as u64;
                    hash.update(&chunk);
                    upload.write(&chunk);
                }
            }
        };
        if let Err(error) = written {
            // If this fails, the upload is removed when it is dropped.
            let _ = upload.abort().await;
            return Err(error);
        }
        upload.finish().await.at(key)?;
        Ok(Stored {
            bytes,
            sha256: hex::encode(hash.finalize()),
        })
    }

    /// Stores a copy of a file under a key and replaces an existing object.
    ///
    /// # Errors
    /// As `put_stream`.
    pub async fn put_file(&self, key: &str, file: &Path) -> Result<Stored, ObjectError> {
        let opened = tokio::fs::File::open(file).await.at(file)?;
        let stream = tokio_util::io::ReaderStream::with_capacity(opened, READ_BYTES);
        self.put_stream(key, stream).await
    }

    /// Puts an object's content at `target`, whose folder must exist: a hard link where possible,
    /// else a copy. The caller must not write to it. `target` is replaced atomically.
    ///
    /// # Errors
    /// `NotFound`, `StorageFull`, `File`, `Store`.
    pub(super) async fn link(&self, key: &str, target: &Path) -> Result<(), ObjectError> {
        let source = self.root.join(parse_key(key)?.as_ref());
        let staged = staged_name(target);
        let _ = tokio::fs::remove_file(&staged).await;
        match tokio::fs::hard_link(&source, &staged).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && !source.exists() => {
                return Err(ObjectError::NotFound {
                    key: key.to_owned(),
                });
            }
            // It is on another file system, or on one without links.
            Err(_) => self.copy_to(key, &staged).await?,
        }
        tokio::fs::rename(&staged, target).await.at(target)
    }

    async fn copy_to(&self, key: &str, staged: &Path) -> Result<(), ObjectError> {
        let mut stream = self.read(key, None).await?;
        let copied = async {
            let mut file = tokio::fs::File::create(staged).await.at(staged)?;
            while let Some(chunk) = stream.try_next().await? {
                file.write_all(&chunk).await.at(staged)?;
            }
            file.flush().await.at(staged)
        };
        let outcome = copied.await;
        if outcome.is_err() {
            let _ = tokio::fs::remove_file(staged).await;
        }
        outcome
    }

    /// Reads an object's bytes, or a range within them.
    ///
    /// # Errors
    /// `NotFound`, `Store`; items of the stream may fail too.
    pub async fn read(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes, ObjectError>>, ObjectError> {
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let path = parse_key(key)?;
        let got = self.store.get_opts(&path, options).await.at(key)?;
        let key = key.to_owned();
        Ok(got.into_stream().map(move |bytes| bytes.at(&key)).boxed())
    }

    /// The size of an object in bytes.
    ///
    /// # Errors
    /// `NotFound`, `Store`.
    pub async fn size(&self, key: &str) -> Result<u64, ObjectError> {
        let path = parse_key(key)?;
        Ok(self.store.head(&path).await.at(key)?.size)
    }

    /// Lists the keys below a prefix (with or without a slash at its end), in no order.
    ///
    /// # Errors
    /// `Store`.
    pub async fn list_prefix(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        let path = parse_key(prefix.strip_suffix('/').unwrap_or(prefix))?;
        let objects = self.store.list(Some(&path));
        let keys = objects.map_ok(|object| object.location.to_string());
        keys.try_collect().await.at(prefix)
    }

    /// Deletes every object below a prefix, and what interrupted uploads left there. It is no error
    /// if there is none.
    ///
    /// # Errors
    /// `File`.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<(), ObjectError> {
        let path = parse_key(prefix.strip_suffix('/').unwrap_or(prefix))?;
        let folder = self.root.join(path.as_ref());
        match tokio::fs::remove_dir_all(&folder).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.at(&folder),
        }
    }

    /// Checks that the store can be read, for `/readyz`.
    ///
    /// # Errors
    /// `File`.
    pub async fn check(&self) -> Result<(), ObjectError> {
        let read = tokio::fs::read_dir(&self.root).await;
        read.map(drop).at(&self.root)
    }
}

/// Parses a key: names of letters, digits, `.`, `_` and `-`, with `/` between them; no name begins
/// with a dot.
pub(super) fn parse_key(key: &str) -> Result<Key, ObjectError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let name_is_plain =
        |name: &str| !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain);
    let invalid = || ObjectError::InvalidKey {
        key: key.chars().take(KEY_CHARACTERS).collect(),
    };
    if key.len() > KEY_CHARACTERS || !key.split('/').all(name_is_plain) {
        return Err(invalid());
    }
    Key::parse(key).map_err(|_| invalid())
}

/// A temporary name beside `target` that no object and no other fetch has.
fn staged_name(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(format!(".{:08x}.part", rand::random::<u32>()));
    PathBuf::from(name)
}

fn store_error(key: &str, source: object_store::Error) -> ObjectError {
    if is_storage_full(&source) {
        return ObjectError::StorageFull {
            what: key.to_owned(),
        };
    }
    match source {
        object_store::Error::NotFound { .. } => ObjectError::NotFound {
            key: key.to_owned(),
        },
        source => ObjectError::Store {
            key: key.to_owned(),
            source,
        },
    }
}

/// True when "no space left" or "quota exceeded" is among an error's causes.
pub fn is_storage_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, Objects) {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path().to_str().unwrap()).unwrap();
        (folder, objects)
    }

    fn chunks(chunks: Vec<io::Result<Bytes>>) -> impl Stream<Item = io::Result<Bytes>> + Unpin {
        futures_util::stream::iter(chunks)
    }

    async fn content(objects: &Objects, key: &str, range: Option<Range<u64>>) -> Vec<u8> {
        let stream = objects.read(key, range).await.unwrap();
        stream.try_collect::<Vec<Bytes>>().await.unwrap().concat()
    }

    #[test]
    fn keys_are_plain_names() {
        for good in [
            "a",
            "files/0a/content",
            "checkpoints/x/12-3/model.safetensors",
        ] {
            assert!(parse_key(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "../a",
            "a/../b",
            "a/.hidden",
            "a b",
            "a%2f",
            "ä",
            "a\\b",
            &"a".repeat(513),
        ] {
            assert!(parse_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unsupported_store_is_refused_by_name() {
        let refused = Objects::open("s3://bucket/x").unwrap_err().to_string();
        assert!(
            refused.contains("s3://bucket/x") && refused.contains("folder"),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn stored_object_can_be_read_linked_listed_and_deleted() {
        let (folder, objects) = open();
        let big = vec![7u8; PART_BYTES * 2 + 5];
        let parts = vec![Ok(Bytes::from_static(b"ab")), Ok(Bytes::from(big.clone()))];
        let stored = objects
            .put_stream("files/1/content", chunks(parts))
            .await
            .unwrap();
        let whole = [b"ab".as_slice(), &big].concat();
        assert_eq!(
            stored,
            Stored {
                bytes: whole.len() as u64,
                sha256: hex::encode(Sha256::digest(&whole))
            }
        );
        assert_eq!(
            objects.size("files/1/content").await.unwrap(),
            whole.len() as u64
        );
        assert_eq!(content(&objects, "files/1/content", None).await, whole);
        assert_eq!(
            content(&objects, "files/1/content", Some(1..4)).await,
            b"b\x07\x07"
        );

        let target = folder.path().join("fetched");
        std::fs::write(&target, "old").unwrap();
        objects.link("files/1/content", &target).await.unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), whole);

        assert_eq!(
            objects.put_file("files/1/copy", &target).await.unwrap(),
            stored
        );
        assert_eq!(objects.list_prefix("files/1/").await.unwrap().len(), 2);
        objects.delete_prefix("files/1/").await.unwrap();
        objects.delete_prefix("files/1").await.unwrap();
        assert!(objects.list_prefix("files/1").await.unwrap().is_empty());
        assert!(matches!(
            objects.size("files/1/content").await,
            Err(ObjectError::NotFound { .. })
        ));
        assert!(matches!(
            objects.read("files/1/content", None).await,
            Err(ObjectError::NotFound { .. })
        ));
        let fetched = objects.link("files/1/content", &target).await;
        assert!(
            matches!(fetched, Err(ObjectError::NotFound { .. })),
            "{fetched:?}"
        );
    }

    #[tokio::test]
    async fn an_empty_object_is_an_object() {
        let (_folder, objects) = open();
        assert_eq!(
            objects
                .put_stream("a/empty", chunks(vec![]))
                .await
                .unwrap()
                .bytes,
            0
        );
        assert_eq!(objects.size("a/empty").await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_stream_that_fails_leaves_nothing_and_keeps_what_was_there() {
        let (folder, objects) = open();
        objects
            .put_stream("a/b", chunks(vec![Ok(Bytes::from_static(b"old"))]))
            .await
            .unwrap();
        let broken = vec![
            Ok(Bytes::from(vec![1; PART_BYTES + 1])),
            Err(io::Error::other("gone")),
        ];
        let failed = objects.put_stream("a/b", chunks(broken)).await;
        assert!(
            matches!(&failed, Err(ObjectError::Input(error)) if error.to_string() == "gone"),
            "{failed:?}"
        );
        assert_eq!(content(&objects, "a/b", None).await, b"old");
        assert_eq!(
            std::fs::read_dir(folder.path().join("a")).unwrap().count(),
            1
        );
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let full = object_store::Error::Generic {
            store: "x",
            source: Box::new(io::Error::from_raw_os_error(libc::ENOSPC)),
        };
        assert!(matches!(
            store_error("k", full),
            ObjectError::StorageFull { .. }
        ));
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        assert!(matches!(
            ObjectError::of_file(Path::new("p"), denied),
            ObjectError::File { .. }
        ));
    }
}
