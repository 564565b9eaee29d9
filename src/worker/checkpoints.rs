//! Stores and fetches checkpoints. Objects are stored first, then the row under the token: a row
//! never names objects that are incomplete. A checkpoint that is damaged is rejected in favor of
//! the one before it.

use std::path::Path;

use sha2::{Digest, Sha256};
use sqlx::PgPool;

use super::{
    fault::Fault,
    files::{plain_file, read_limited},
};
use crate::{
    db::{
        self,
        checkpoints::Checkpoint,
        persist::persist,
        queue::{Claimed, NewCheckpoint},
    },
    domain::{checkpoint::Manifest, object::MANIFEST},
    objects::{At, ObjectError, Objects},
};

/// Largest manifest in bytes; a real one has a few hundred.
const MANIFEST_BYTES: u64 = 1 << 20;

/// Stores the files of a saved checkpoint folder below `prefix` (with its last `/`), the manifest
/// last.
///
/// # Errors
/// A full disk; files that do not match their manifest.
pub(super) async fn upload(
    objects: &Objects,
    folder: &Path,
    manifest_sha256: &str,
    prefix: &str,
) -> Result<(), Fault> {
    let manifest_file = plain_file(folder, MANIFEST)?;
    let manifest = read_manifest(&manifest_file, manifest_sha256).await?;
    for (name, entry) in &manifest.files {
        let stored = objects
            .put_file(&format!("{prefix}{name}"), &plain_file(folder, name)?)
            .await?;
        if stored.sha256 != entry.sha256 {
            return Err(Fault::result(format!(
                "`{name}` of the checkpoint does not match its manifest"
            )));
        }
    }
    objects
        .put_file(&format!("{prefix}{MANIFEST}"), &manifest_file)
        .await?;
    Ok(())
}

/// Reads a manifest, which must be the one with this hash.
async fn read_manifest(path: &Path, sha256: &str) -> Result<Manifest, Fault> {
    let text = read_limited(path, MANIFEST_BYTES).await?;
    if hex::encode(Sha256::digest(&text)) != sha256 {
        return Err(Fault::result(format!(
            "`{}` is not the manifest that the trainer saved: its SHA-256 is not {sha256}",
            path.display()
        )));
    }
    serde_json::from_slice(&text)
        .map_err(|error| Fault::result(format!("invalid `{}`: {error}", path.display())))
}

/// Commits a checkpoint whose objects are complete, and deletes those that it supersedes.
///
/// # Errors
/// `Lost` when another attempt owns the job.
pub(super) async fn commit(
    pool: &PgPool,
    objects: &Objects,
    claimed: &Claimed,
    new: &NewCheckpoint,
) -> Result<(), Fault> {
    let write = || db::queue::commit_checkpoint(pool, claimed.job, claimed.token, new);
    match persist("commit a checkpoint", write).await {
        Ok(Some(_)) => {}
        Ok(None) => return Err(Fault::Lost),
        // An earlier try was committed though its answer was lost: nobody else has this token.
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {}
        Err(error) => return Err(error.into()),
    }
    if let Err(error) = delete_superseded(pool, objects, claimed).await {
        tracing::warn!("cannot delete superseded checkpoints: {error:#}");
    }
    Ok(())
}

/// Takes rows out of the list first, then deletes their objects, then the rows: no reader meets an
/// incomplete checkpoint.
async fn delete_superseded(
    pool: &PgPool,
    objects: &Objects,
    claimed: &Claimed,
) -> anyhow::Result<()> {
    for superseded in db::checkpoints::supersede(pool, claimed.job, claimed.token).await? {
        objects.delete_prefix(&superseded.objects).await?;
        db::checkpoints::forget(pool, superseded.id).await?;
    }
    Ok(())
}

/// Puts the latest undamaged checkpoint into `target` and returns its step; `None` when there is
/// none.
///
/// # Errors
/// A full disk; a lost lease. A damaged checkpoint is rejected, and not an error.
pub(super) async fn fetch_latest(
    pool: &PgPool,
    objects: &Objects,
    claimed: &Claimed,
    target: &Path,
) -> Result<Option<u64>, Fault> {
    let mut candidate = claimed.resume.clone();
    while let Some(checkpoint) = candidate {
        match fetch(objects, &checkpoint, target).await {
            Ok(()) => return Ok(Some(checkpoint.step)),
            Err(ObjectError::Damaged { .. }) => {
                let reject =
                    || db::checkpoints::reject(pool, claimed.job, claimed.token, checkpoint.id);
                candidate = persist("reject a damaged checkpoint", reject).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Fetches one checkpoint into an empty folder.
async fn fetch(
    objects: &Objects,
    checkpoint: &Checkpoint,
    target: &Path,
) -> Result<(), ObjectError> {
    match tokio::fs::remove_dir_all(target).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        removed => removed.at(target)?,
    }
    tokio::fs::create_dir_all(target).await.at(target)?;
    let files = objects.checkpoint(&checkpoint.manifest()).await?;
    for (name, object) in &files {
        objects.fetch(object, &target.join(name)).await?;
    }
    Ok(())
}
