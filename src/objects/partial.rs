//! Objects under way: bytes that are appended over several tries, by several processes, before they
//! become an object. They lie beside it under a name of their own, locked by who writes them, and
//! outlive a process that is killed.

use std::{
    fs::{File, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;

use super::{
    store::{At, ObjectError, Objects, Stored, parse_key},
    verify::{hash, hash_file},
};

/// A version of a file whose bytes are appended: where they begin, and its tag on its server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    pub start: u64,
    pub tag: String,
}

/// An object under way.
#[derive(Debug)]
pub struct Partial {
    file: tokio::fs::File,
    path: PathBuf,
    bytes: u64,
    tag: Option<Tag>,
}

impl Objects {
    /// Opens what is there of an object under way, or begins it.
    ///
    /// A process that was given up may still hold the lock, such as one that was stopped. It keeps
    /// its file, which has no name any more, and a new one is begun.
    ///
    /// # Errors
    /// `StorageFull`, `File`.
    pub async fn partial(&self, key: &str) -> Result<Partial, ObjectError> {
        let path = self.root.join(parse_key(&format!("{key}.part"))?.as_ref());
        let opened = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || open_locked(&path))
        };
        let file = opened
            .await
            .map_err(io::Error::other)
            .at(&path)?
            .at(&path)?;
        let bytes = file.metadata().at(&path)?.len();
        let tag = tokio::fs::read(tag_path(&path)).await.ok();
        Ok(Partial {
            file: file.into(),
            bytes,
            tag: tag.and_then(|text| serde_json::from_slice(&text).ok()),
            path,
        })
    }
}

impl Partial {
    /// Bytes that are there.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The tag of the file whose bytes begin at `start`.
    pub fn tag(&self, start: u64) -> Option<&str> {
        let tag = self.tag.as_ref().filter(|tag| tag.start == start);
        tag.map(|tag| tag.tag.as_str())
    }

    /// Keeps the tag of a file whose bytes follow.
    ///
    /// # Errors
    /// `StorageFull`, `File`.
    pub async fn set_tag(&mut self, tag: Option<Tag>) -> Result<(), ObjectError> {
        let path = tag_path(&self.path);
        let text = serde_json::to_vec(&tag)
            .map_err(io::Error::other)
            .at(&path)?;
        tokio::fs::write(&path, text).await.at(&path)?;
        self.tag = tag;
        Ok(())
    }

    /// Appends bytes. They outlive the process from the next `flush` on.
    ///
    /// # Errors
    /// `StorageFull`, `File`.
    pub async fn append(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        self.file.write_all(bytes).await.at(&self.path)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Writes what is still in memory.
    ///
    /// # Errors
    /// `StorageFull`, `File`.
    pub async fn flush(&mut self) -> Result<(), ObjectError> {
        self.file.flush().await.at(&self.path)
    }

    /// Cuts off what lies behind so many bytes.
    ///
    /// # Errors
    /// `File`.
    pub async fn truncate(&mut self, bytes: u64) -> Result<(), ObjectError> {
        self.flush().await?;
        self.file.set_len(bytes).await.at(&self.path)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Reads and hashes so many bytes from `start` on.
    ///
    /// # Errors
    /// `File`.
    pub async fn hash(&mut self, start: u64, count: u64) -> Result<Stored, ObjectError> {
        self.flush().await?;
        let path = self.path.clone();
        let hashed = tokio::task::spawn_blocking(move || {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(start))?;
            hash(&mut file.take(count), &mut io::sink())
        });
        let hashed = hashed.await.map_err(io::Error::other);
        hashed.at(&self.path)?.at(&self.path)
    }

    /// Returns what copies so many bytes from `start` on, once they are flushed.
    pub fn copy(&self, start: u64, count: u64) -> impl FnOnce(&Path) -> io::Result<()> + use<> {
        let path = self.path.clone();
        move |target| {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(start))?;
            io::copy(&mut file.take(count), &mut File::create(target)?)?;
            Ok(())
        }
    }

    /// Makes the object of the bytes, flushed to disk, and replaces an existing one.
    ///
    /// # Errors
    /// `StorageFull`; `File`, also where another process has begun anew meanwhile.
    pub async fn finish(mut self) -> Result<Stored, ObjectError> {
        self.flush().await?;
        self.file.sync_all().await.at(&self.path)?;
        let own = self.file.metadata().await.at(&self.path)?;
        let named = tokio::fs::metadata(&self.path).await.at(&self.path)?;
        if (own.dev(), own.ino()) != (named.dev(), named.ino()) {
            let error = io::Error::other("another process has begun this object anew");
            return Err(ObjectError::of_file(&self.path, error));
        }
        let stored = hash_file(&self.path).await.at(&self.path)?;
        let object = self.path.with_extension("");
        tokio::fs::rename(&self.path, &object).await.at(&object)?;
        let _ = tokio::fs::remove_file(tag_path(&self.path)).await;
        let folder = object.parent().unwrap_or(&object).to_owned();
        let synced = tokio::task::spawn_blocking(move || File::open(folder)?.sync_all());
        synced
            .await
            .map_err(io::Error::other)
            .at(&object)?
            .at(&object)?;
        Ok(stored)
    }
}

/// Where the tag of a file under way is kept.
fn tag_path(path: &Path) -> PathBuf {
    path.with_extension("tag")
}

/// Opens the file to append to, and locks it until it is closed.
fn open_locked(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    loop {
        let options = File::options().append(true).create(true).clone();
        let file = options.open(path)?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::fs::remove_file(path)?,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn open() -> (tempfile::TempDir, Objects) {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path().to_str().unwrap()).unwrap();
        (folder, objects)
    }

    const KEY: &str = "files/1/content";

    #[tokio::test]
    async fn an_object_under_way_outlives_who_began_it() {
        let (folder, objects) = open();
        let mut partial = objects.partial(KEY).await.unwrap();
        let tag = Tag {
            start: 0,
            tag: "\"v1\"".to_owned(),
        };
        partial.set_tag(Some(tag)).await.unwrap();
        partial.append(b"0123456789").await.unwrap();
        partial.flush().await.unwrap();
        drop(partial);
        assert!(objects.size(KEY).await.is_err());

        let mut partial = objects.partial(KEY).await.unwrap();
        assert_eq!((partial.bytes(), partial.tag(0)), (10, Some("\"v1\"")));
        assert_eq!(partial.tag(5), None);
        partial.truncate(4).await.unwrap();
        partial.append(b"abc").await.unwrap();
        let rest = partial.hash(4, 3).await.unwrap();
        assert_eq!(rest.sha256, hex::encode(Sha256::digest(b"abc")));
        let stored = partial.finish().await.unwrap();
        assert_eq!(stored.bytes, 7);
        assert_eq!(stored.sha256, hex::encode(Sha256::digest(b"0123abc")));
        let files = std::fs::read_dir(folder.path().join("files/1")).unwrap();
        assert_eq!(files.count(), 1);
    }

    #[tokio::test]
    async fn who_lost_an_object_under_way_does_not_finish_it() {
        let (_folder, objects) = open();
        let mut old = objects.partial(KEY).await.unwrap();
        old.append(b"old").await.unwrap();
        old.flush().await.unwrap();
        let mut new = objects.partial(KEY).await.unwrap();
        assert_eq!(new.bytes(), 0);
        new.append(b"new").await.unwrap();
        old.append(b"er").await.unwrap();
        assert!(old.finish().await.is_err());
        assert_eq!(new.finish().await.unwrap().bytes, 3);
    }
}
