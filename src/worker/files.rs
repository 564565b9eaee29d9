//! Files that a child wrote into its folder. The child parsed untrusted bytes: its files are read
//! within limits, and no link is followed out of the folder.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::fault::Fault;
use crate::objects::At;

/// A file directly in a child's folder, and no link out of it.
pub(super) fn plain_file(folder: &Path, name: &str) -> Result<PathBuf, Fault> {
    let path = folder.join(name);
    let plain_name = matches!(
        Path::new(name).components().collect::<Vec<_>>()[..],
        [Component::Normal(_)]
    );
    let is_file = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
    if plain_name && is_file {
        Ok(path)
    } else {
        Err(Fault::damaged(format!(
            "`{}` is missing, or not a regular file",
            path.display()
        )))
    }
}

/// A folder inside the job folder, as the trainer named it.
pub(super) fn plain_folder(job_folder: &Path, named: &Path) -> Result<PathBuf, Fault> {
    let inside = named
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if inside {
        Ok(job_folder.join(named))
    } else {
        Err(Fault::damaged(format!(
            "`{}` is outside the job folder",
            named.display()
        )))
    }
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// It cannot be read, or is larger.
pub(super) async fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, Fault> {
    let bytes = tokio::fs::metadata(path).await.at(path)?.len();
    if bytes > limit {
        return Err(Fault::damaged(format!(
            "`{}` has {bytes} bytes, more than {limit}",
            path.display()
        )));
    }
    Ok(tokio::fs::read(path).await.at(path)?)
}

/// Reads a file of a child's folder that has at most `limit` bytes of JSON.
///
/// # Errors
/// It is missing, no plain file, too large, or not such JSON.
pub(super) async fn read_json<T: DeserializeOwned>(
    folder: &Path,
    name: &str,
    limit: u64,
) -> Result<T, Fault> {
    let text = read_limited(&plain_file(folder, name)?, limit).await?;
    serde_json::from_slice(&text)
        .map_err(|error| Fault::damaged(format!("invalid `{name}` in the result: {error}")))
}

/// Size and SHA-256 (lower-case hex) of a file, read off the async threads.
pub(super) async fn hash_file(path: &Path) -> io::Result<(u64, String)> {
    let path = path.to_owned();
    let hash = move || {
        let mut hasher = Sha256::new();
        let mut file = fs::File::open(&path)?;
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            let read = io::Read::read(&mut file, &mut buffer)?;
            if read == 0 {
                return Ok((bytes, hex::encode(hasher.finalize())));
            }
            hasher.update(&buffer[..read]);
            bytes += read as u64;
        }
    };
    tokio::task::spawn_blocking(hash)
        .await
        .map_err(io::Error::other)?
}
