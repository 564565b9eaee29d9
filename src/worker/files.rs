//! Files that a child wrote into its folder. The child parsed untrusted bytes: its files are read
//! within limits, and no link is followed out of the folder.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use serde::de::DeserializeOwned;

use super::fault::Fault;
use crate::{
    objects::{At, ObjectError},
    sandbox::Sandbox,
};

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
        Err(Fault::result(format!(
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
        Err(Fault::result(format!(
            "`{}` is outside the job folder",
            named.display()
        )))
    }
}

/// Lets a child read what lies in its home, off the async threads: see `Sandbox::give`.
pub(super) async fn give(sandbox: &Sandbox, path: &Path) -> Result<(), ObjectError> {
    let (sandbox, given) = (sandbox.clone(), path.to_owned());
    let give = tokio::task::spawn_blocking(move || sandbox.give(&given));
    give.await.map_err(io::Error::other).flatten().at(path)
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// It cannot be read, or is larger.
pub(super) async fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, Fault> {
    let bytes = tokio::fs::metadata(path).await.at(path)?.len();
    if bytes > limit {
        return Err(Fault::result(format!(
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
        .map_err(|error| Fault::result(format!("invalid `{name}` in the result: {error}")))
}
