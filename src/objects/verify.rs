//! Descriptors: what rows say of objects. An object is compared with its descriptor before anyone
//! uses its bytes, so that a disk that alters, cuts off or loses one causes an error, never a wrong
//! result.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    path::Path,
};

use axum::body::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use sha2::{Digest, Sha256};

use super::{
    store::{At, ObjectError, Objects, Stored, parse_key},
    verified::Version,
};
use crate::domain::{
    checkpoint::{Manifest, ManifestEntry},
    object::{Bundle, Descriptor, MANIFEST, MODEL},
    parent::ParentWeights,
};

/// Largest manifest in bytes; a real one has a few hundred.
const MANIFEST_BYTES: u64 = 1 << 20;
/// Bytes that are hashed at once.
const CHUNK_BYTES: usize = 1 << 20;

fn damaged(object: &Descriptor, why: &str) -> ObjectError {
    let named = format!("`{}` of {}", object.name(), object.owner);
    tracing::error!(object.key = object.key, "object is damaged: {named} {why}");
    ObjectError::Damaged {
        object: named,
        why: why.to_owned(),
    }
}

/// # Errors
/// `Damaged`: these are not the bytes that the row describes.
fn check(object: &Descriptor, found: &Stored) -> Result<(), ObjectError> {
    check_size(object, found.bytes)?;
    if found.sha256 == object.sha256 {
        return Ok(());
    }
    Err(damaged(object, "has other bytes than when it was stored"))
}

/// # Errors
/// `Damaged`: this is not the size that the row describes.
fn check_size(object: &Descriptor, bytes: u64) -> Result<(), ObjectError> {
    match object.bytes {
        Some(expected) if expected != bytes => {
            let why = format!("has {bytes} bytes instead of {expected}");
            Err(damaged(object, &why))
        }
        _ => Ok(()),
    }
}

/// `NotFound` as what it means where a row names the object.
fn missing(object: &Descriptor, error: ObjectError) -> ObjectError {
    match error {
        ObjectError::NotFound { .. } => damaged(object, "is missing"),
        other => other,
    }
}

impl Objects {
    /// Checks that an object is what its row describes, and returns its size. It is read, unless
    /// this process has read it and its file did not change since.
    ///
    /// # Errors
    /// `Damaged`; `File`.
    pub async fn verify(&self, object: &Descriptor) -> Result<u64, ObjectError> {
        let path = self.root.join(parse_key(&object.key)?.as_ref());
        let version = || match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(damaged(object, "is missing"))
            }
            metadata => Ok(Version::of(&metadata.at(&path)?)),
        };
        check_size(object, version()?.bytes)?;
        let _permit = self.verified.hashing.acquire().await;
        // It is taken before the bytes are read: a file that changes meanwhile is read again.
        let version = version()?;
        if !self.verified.has(&object.key, version, &object.sha256) {
            check(object, &hash_file(&path).await.at(&path)?)?;
            self.verified.add(&object.key, version, &object.sha256);
        }
        Ok(version.bytes)
    }

    /// Puts an object's content at `target`, as `link` does, and checks it.
    ///
    /// # Errors
    /// `Damaged`, `StorageFull`, `File`, `Store`; then there is no `target`.
    pub async fn fetch(&self, object: &Descriptor, target: &Path) -> Result<(), ObjectError> {
        let linked = self.link(&object.key, target).await;
        linked.map_err(|error| missing(object, error))?;
        let checked = match hash_file(target).await.at(target) {
            Ok(found) => check(object, &found),
            Err(error) => Err(error),
        };
        if checked.is_err() {
            let _ = tokio::fs::remove_file(target).await;
        }
        checked
    }

    /// Copies an object to `target`, whose bytes do not change with the object's, and checks it.
    ///
    /// # Errors
    /// `Damaged`, `StorageFull`, `File`; then `target` is of no use.
    pub async fn copy(&self, object: &Descriptor, target: &Path) -> Result<(), ObjectError> {
        let source = self.root.join(parse_key(&object.key)?.as_ref());
        let to = target.to_owned();
        let copied = tokio::task::spawn_blocking(move || {
            let mut reader = match fs::File::open(&source) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file.at(&source)?,
            };
            // A link would write into the object that it was made of.
            let _ = fs::remove_file(&to);
            let mut writer = fs::File::create_new(&to).at(&to)?;
            hash(&mut reader, &mut writer).at(&to).map(Some)
        });
        match copied
            .await
            .expect("copying does not panic: this is a bug")?
        {
            Some(found) => check(object, &found),
            None => Err(damaged(object, "is missing")),
        }
    }

    /// Reads an object's bytes. After the last there is an error if they are not those that its row
    /// describes.
    ///
    /// # Errors
    /// `Damaged`, `Store`; items of the stream may fail too.
    pub async fn read_checked(
        &self,
        object: &Descriptor,
    ) -> Result<BoxStream<'static, Result<Bytes, ObjectError>>, ObjectError> {
        let bytes = self.read(&object.key, None).await;
        let bytes = bytes.map_err(|error| missing(object, error))?;
        let start = (bytes, Sha256::new(), 0, object.clone());
        let checked =
            stream::try_unfold(start, |(mut rest, mut hasher, seen, object)| async move {
                if let Some(chunk) = rest.try_next().await? {
                    hasher.update(&chunk);
                    let seen = seen + chunk.len() as u64;
                    return Ok(Some((chunk, (rest, hasher, seen, object))));
                }
                let found = Stored {
                    bytes: seen,
                    sha256: hex::encode(hasher.finalize()),
                };
                check(&object, &found).map(|()| None)
            });
        Ok(checked.boxed())
    }

    /// The weights of a model or checkpoint that something starts from; `owner` is that, in words.
    ///
    /// # Errors
    /// `Damaged`: a checkpoint's manifest is missing, not as described, or names no weights.
    pub async fn parent_weights(
        &self,
        owner: &str,
        weights: &ParentWeights,
    ) -> Result<Descriptor, ObjectError> {
        match weights {
            ParentWeights::Model { objects, sha256 } => {
                Ok(Descriptor::of_hash(owner, objects, MODEL, sha256))
            }
            ParentWeights::Checkpoint {
                objects,
                manifest_sha256,
            } => {
                let manifest = Descriptor::of_hash(owner, objects, MANIFEST, manifest_sha256);
                let weights = self.checkpoint(&manifest).await?.remove(MODEL);
                weights.ok_or_else(|| damaged(&manifest, "names no weights"))
            }
        }
    }

    /// The files of a checkpoint by name, `manifest.json` among them, with their hashes from the
    /// manifest.
    ///
    /// # Errors
    /// `Damaged`: the manifest is missing, or not the one that the row describes.
    pub async fn checkpoint(
        &self,
        manifest: &Descriptor,
    ) -> Result<BTreeMap<String, Descriptor>, ObjectError> {
        let text = self.read_small(manifest, MANIFEST_BYTES).await?;
        let Manifest { files, .. } = serde_json::from_slice(&text)
            .map_err(|error| damaged(manifest, &format!("is no manifest: {error}")))?;
        let files = files.iter();
        let files = files.map(|(name, entry)| (name.clone(), manifest.beside(name, entry)));
        Ok(files
            .chain([(MANIFEST.to_owned(), manifest.clone())])
            .collect())
    }

    /// All files of a model. Those of version 0.1.0, of which the row has the hash of the weights
    /// only, are described as they are now.
    ///
    /// # Errors
    /// `Store`, `File`.
    pub async fn bundle(&self, bundle: &Bundle) -> Result<Vec<Descriptor>, ObjectError> {
        let mut files = bundle.described();
        if bundle.files.is_some() {
            return Ok(files);
        }
        let weights = &bundle.weights;
        for key in self.list_prefix(weights.prefix()).await? {
            let path = self.root.join(&key);
            if key != weights.key {
                let Stored { bytes, sha256 } = hash_file(&path).await.at(&path)?;
                let name = key.strip_prefix(weights.prefix()).unwrap_or(&key);
                files.push(weights.beside(name, &ManifestEntry { bytes, sha256 }));
            }
        }
        Ok(files)
    }

    /// Reads a file of a model that has at most `limit` bytes, and checks it.
    ///
    /// # Errors
    /// `Damaged`, also where the model has no such file; `Store`, `File`.
    pub async fn bundle_file(
        &self,
        bundle: &Bundle,
        name: &str,
        limit: u64,
    ) -> Result<Vec<u8>, ObjectError> {
        let mut files = self.bundle(bundle).await?.into_iter();
        match files.find(|file| file.name() == name) {
            Some(file) => self.read_small(&file, limit).await,
            None => Err(damaged(
                &bundle.weights,
                &format!("has no `{name}` beside it"),
            )),
        }
    }

    /// Reads an object of at most `limit` bytes, and checks it.
    async fn read_small(&self, object: &Descriptor, limit: u64) -> Result<Vec<u8>, ObjectError> {
        let size = self.size(&object.key).await;
        let size = size.map_err(|error| missing(object, error))?;
        if size > limit {
            return Err(damaged(
                object,
                &format!("has {size} bytes, more than {limit}"),
            ));
        }
        let path = self.root.join(parse_key(&object.key)?.as_ref());
        let bytes = tokio::fs::read(&path).await.at(&path)?;
        check(
            object,
            &Stored {
                bytes: bytes.len() as u64,
                sha256: hex::encode(Sha256::digest(&bytes)),
            },
        )?;
        Ok(bytes)
    }
}

/// Size and hash of a file, read off the async threads.
///
/// # Errors
/// It cannot be read.
pub async fn hash_file(path: &Path) -> io::Result<Stored> {
    let path = path.to_owned();
    let hashed = move || hash(&mut fs::File::open(path)?, &mut io::sink());
    let hashed = tokio::task::spawn_blocking(hashed).await;
    hashed.map_err(io::Error::other)?
}

/// Copies bytes and hashes them.
pub(super) fn hash(reader: &mut impl Read, writer: &mut impl Write) -> io::Result<Stored> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        let count = match reader.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        if count == 0 {
            let sha256 = hex::encode(hasher.finalize());
            return Ok(Stored { bytes, sha256 });
        }
        hasher.update(&buffer[..count]);
        writer.write_all(&buffer[..count])?;
        bytes += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn stored(objects: &Objects, text: &str) -> Descriptor {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        let stream = stream::iter([Ok(bytes)]);
        let stored = objects
            .put_stream("models/1/labels.json", stream)
            .await
            .unwrap();
        Descriptor {
            owner: "model `m`".to_owned(),
            key: "models/1/labels.json".to_owned(),
            bytes: Some(stored.bytes),
            sha256: stored.sha256,
        }
    }

    #[track_caller]
    fn damage<T: std::fmt::Debug>(result: Result<T, ObjectError>) -> String {
        match result {
            Err(error @ ObjectError::Damaged { .. }) => error.to_string(),
            other => panic!("not damaged: {other:?}"),
        }
    }

    #[tokio::test]
    async fn an_object_that_is_not_as_described_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path().join("o").to_str().unwrap()).unwrap();
        let object = stored(&objects, "[\"cat\"]").await;
        let file = folder.path().join("o").join(&object.key);
        let target = folder.path().join("target");
        assert_eq!(objects.verify(&object).await.unwrap(), 7);
        objects.fetch(&object, &target).await.unwrap();
        objects.copy(&object, &target).await.unwrap();

        for (bytes, why) in [
            (Some("[\"dog\"]"), "other bytes"),
            (Some("[\"ca"), "4 bytes instead of 7"),
            (Some(""), "0 bytes instead of 7"),
            (None, "is missing"),
        ] {
            match bytes {
                Some(bytes) => fs::write(&file, bytes).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            let said = [
                damage(objects.verify(&object).await),
                damage(objects.fetch(&object, &target).await),
                damage(objects.copy(&object, &target).await),
            ];
            for said in said {
                assert!(said.contains("`labels.json` of model `m`"), "{said}");
                assert!(said.contains(why), "{said}");
            }
        }
        let object = stored(&objects, "[\"cat\"]").await;
        objects.verify(&object).await.unwrap();
    }

    /// A link would change with the object.
    #[tokio::test]
    async fn a_copy_keeps_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path().join("o").to_str().unwrap()).unwrap();
        let object = stored(&objects, "one").await;
        let target = folder.path().join("target");
        objects.copy(&object, &target).await.unwrap();
        fs::write(folder.path().join("o").join(&object.key), "two").unwrap();
        assert_eq!(fs::read_to_string(target).unwrap(), "one");
    }
}
