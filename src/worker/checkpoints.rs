//! Checkpoints between a job folder and the object store. Objects first, then the row under the token: a row never names
//! objects that are not whole. On the way back every byte is checked against the manifest, and the manifest against the
//! row, so that a damaged checkpoint is set aside for the one before it and never silently loaded.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{Worker, cache::hash_file, hex, relay::Fault};
use crate::db::persist::persist;
use crate::{
    db::{
        self, Page,
        checkpoints::Checkpoint,
        queue::{Claimed, NewCheckpoint},
    },
    domain::checkpoint::Manifest,
    objects::ObjectError,
};

const MANIFEST: &str = "manifest.json";
/// Bytes of a manifest; a real one has a few hundred.
const MANIFEST_BYTES: u64 = 1 << 20;
/// Far above the few that a job keeps.
const MOST_CHECKPOINTS: u32 = 100_000;

/// Stores the files of a saved checkpoint folder under `objects` (with its last `/`), the manifest last.
///
/// # Errors
/// A full disk; files that do not match their manifest.
pub(super) async fn upload(
    worker: &Worker,
    folder: &Path,
    manifest_sha256: &str,
    objects: &str,
) -> Result<(), Fault> {
    let text = read_manifest(&folder.join(MANIFEST)).await?;
    if hex::encode(Sha256::digest(&text)) != manifest_sha256 {
        return Err(Fault::damaged(format!(
            "the manifest of `{}` is not what the trainer saved",
            folder.display()
        )));
    }
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| Fault::damaged(error.to_string()))?;
    for (name, entry) in &manifest.files {
        let stored = worker
            .objects
            .put_file(&format!("{objects}{name}"), &plain_file(folder, name)?)
            .await?;
        if stored.sha256 != entry.sha256 {
            return Err(Fault::damaged(format!(
                "`{name}` of the checkpoint does not match its manifest"
            )));
        }
    }
    worker
        .objects
        .put_file(&format!("{objects}{MANIFEST}"), &folder.join(MANIFEST))
        .await?;
    Ok(())
}

/// A file directly in a child's folder, and no link to somewhere else: the child parses hostile bytes.
pub(super) fn plain_file(folder: &Path, name: &str) -> Result<PathBuf, Fault> {
    let path = folder.join(name);
    let plain_name = matches!(
        Path::new(name).components().collect::<Vec<_>>()[..],
        [Component::Normal(_)]
    );
    let is_file = std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
    if plain_name && is_file {
        Ok(path)
    } else {
        Err(Fault::damaged(format!(
            "`{}` is not a file",
            path.display()
        )))
    }
}

/// A folder in a job folder that the trainer named.
pub(super) fn plain_folder(job_folder: &Path, named: &Path) -> Result<PathBuf, Fault> {
    let inside = named
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if inside {
        Ok(job_folder.join(named))
    } else {
        Err(Fault::damaged(format!(
            "`{}` leaves the job folder",
            named.display()
        )))
    }
}

async fn read_manifest(path: &Path) -> Result<Vec<u8>, Fault> {
    let metadata = tokio::fs::symlink_metadata(path)
        .await
        .map_err(|source| ObjectError::of_file(path, source))?;
    if !metadata.is_file() || metadata.len() > MANIFEST_BYTES {
        return Err(Fault::damaged(format!(
            "`{}` is not a manifest",
            path.display()
        )));
    }
    Ok(tokio::fs::read(path)
        .await
        .map_err(|source| ObjectError::of_file(path, source))?)
}

/// Commits a checkpoint whose objects are complete. Its superseded elders are deleted.
///
/// # Errors
/// `Lost` when another attempt owns the job.
pub(super) async fn commit(
    worker: &Worker,
    claimed: &Claimed,
    new: &NewCheckpoint,
) -> Result<(), Fault> {
    let write = || db::queue::commit_checkpoint(&worker.pool, claimed.job, claimed.token, new);
    match persist("commit a checkpoint", write).await {
        Ok(Some(_)) => {}
        Ok(None) => return Err(Fault::Lost),
        // An earlier try came through though its answer did not: nobody else commits under this token.
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {}
        Err(error) => return Err(error.into()),
    }
    if let Err(error) = delete_superseded(worker, claimed).await {
        tracing::warn!("superseded checkpoints stay for now: {error:#}");
    }
    Ok(())
}

/// Rows first lose their place in the list, then their objects, then themselves: no reader meets a half one.
async fn delete_superseded(worker: &Worker, claimed: &Claimed) -> anyhow::Result<()> {
    for superseded in db::checkpoints::supersede(&worker.pool, claimed.job, claimed.token).await? {
        worker.objects.delete_prefix(&superseded.objects).await?;
        db::checkpoints::forget(&worker.pool, superseded.id).await?;
    }
    Ok(())
}

/// Puts the latest sound checkpoint into `target` and answers its step; `None` when there is none.
///
/// # Errors
/// A full disk; a lost lease. A damaged checkpoint is set aside, not an error.
pub(super) async fn fetch_latest(
    worker: &Worker,
    claimed: &Claimed,
    target: &Path,
) -> Result<Option<u64>, Fault> {
    let mut candidate = claimed.resume.clone();
    while let Some(checkpoint) = candidate {
        match fetch(worker, &checkpoint, target).await? {
            Ok(()) => return Ok(Some(checkpoint.step)),
            Err(damage) => {
                tracing::error!(job.id = %claimed.job, checkpoint.id = %checkpoint.id, "a checkpoint is damaged: {damage}");
                let reject = || {
                    db::checkpoints::reject(&worker.pool, claimed.job, claimed.token, checkpoint.id)
                };
                candidate = persist("set a damaged checkpoint aside", reject).await?;
            }
        }
    }
    Ok(None)
}

/// Fetches one checkpoint; the inner error says what is wrong with it.
async fn fetch(
    worker: &Worker,
    checkpoint: &Checkpoint,
    target: &Path,
) -> Result<Result<(), String>, Fault> {
    match tokio::fs::remove_dir_all(target).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(ObjectError::of_file(target, error).into());
        }
        _ => {}
    }
    tokio::fs::create_dir_all(target)
        .await
        .map_err(|source| ObjectError::of_file(target, source))?;
    let fetched = fetch_and_check(worker, checkpoint, target).await;
    match fetched {
        Ok(()) => Ok(Ok(())),
        Err(Fault::Damaged(damage)) => Ok(Err(damage)),
        Err(fault) => Err(fault),
    }
}

async fn fetch_and_check(
    worker: &Worker,
    checkpoint: &Checkpoint,
    target: &Path,
) -> Result<(), Fault> {
    let Checkpoint {
        objects,
        manifest_sha256,
        ..
    } = checkpoint;
    let manifest = fetch_manifest(worker, objects, manifest_sha256, &target.join(MANIFEST)).await?;
    for (name, entry) in &manifest.files {
        let file = target.join(name);
        fetch_object(worker, &checkpoint.objects, name, &file).await?;
        let (bytes, sha256) = hash_file(&file)
            .await
            .map_err(|source| ObjectError::of_file(&file, source))?;
        if (bytes, &sha256) != (entry.bytes, &entry.sha256) {
            return Err(Fault::damaged(format!(
                "`{name}` does not match the manifest"
            )));
        }
    }
    Ok(())
}

/// Fetches the manifest below `objects` (with its last `/`), which must be the committed one.
///
/// # Errors
/// It is gone, or another.
pub(super) async fn fetch_manifest(
    worker: &Worker,
    objects: &str,
    manifest_sha256: &str,
    target: &Path,
) -> Result<Manifest, Fault> {
    fetch_object(worker, objects, MANIFEST, target).await?;
    let text = read_manifest(target).await?;
    if hex::encode(Sha256::digest(&text)) != manifest_sha256 {
        return Err(Fault::damaged("the manifest is not the committed one"));
    }
    serde_json::from_slice(&text).map_err(|error| Fault::damaged(error.to_string()))
}

async fn fetch_object(
    worker: &Worker,
    objects: &str,
    name: &str,
    target: &Path,
) -> Result<(), Fault> {
    match worker
        .objects
        .fetch(&format!("{objects}{name}"), target)
        .await
    {
        Err(ObjectError::NotFound { key }) => Err(Fault::damaged(format!("`{key}` is missing"))),
        Err(ObjectError::InvalidKey { key }) => {
            Err(Fault::damaged(format!("`{key}` is no name of a file")))
        }
        other => Ok(other?),
    }
}

/// Deletes checkpoint objects that no row names and no attempt will name any more: those of tokens up to `token`, whose
/// leases are gone. What an attempt leaves when it dies between upload and commit.
pub(super) async fn sweep(
    worker: &Worker,
    claimed: &Claimed,
    up_to_token: i64,
) -> anyhow::Result<()> {
    let root = format!("checkpoints/{}/", hex(claimed.job));
    let mut orphans = BTreeSet::new();
    for key in worker.objects.list_prefix(&root).await? {
        let name = key
            .strip_prefix(&root)
            .and_then(|rest| rest.split('/').next())
            .unwrap_or_default();
        let token: Option<i64> = name.rsplit('-').next().and_then(|token| token.parse().ok());
        if token.is_some_and(|token| token <= up_to_token) {
            orphans.insert(format!("{root}{name}/"));
        }
    }
    if orphans.is_empty() {
        return Ok(());
    }
    let all = Page {
        after: None,
        limit: MOST_CHECKPOINTS,
        descending: true,
    };
    for committed in db::checkpoints::list(&worker.pool, claimed.tenant, claimed.job, all)
        .await?
        .rows
    {
        orphans.remove(&committed.objects);
    }
    for orphan in orphans {
        tracing::info!(job.id = %claimed.job, "deleting a checkpoint that was never committed: {orphan}");
        worker.objects.delete_prefix(&orphan).await?;
    }
    Ok(())
}
