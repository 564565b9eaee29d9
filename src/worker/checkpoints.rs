//! Stores and fetches checkpoints. Objects are stored first, then the row under the token: a row
//! never names objects that are incomplete. When a checkpoint is fetched, every byte is checked
//! against the manifest, and the manifest against the row, so that a damaged checkpoint is rejected
//! in favor of the one before it, and never silently loaded.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use sha2::{Digest, Sha256};
use sqlx::PgPool;

use super::{cache::hash_file, fault::Fault};
use crate::db::persist::persist;
use crate::{
    db::{
        self, Page,
        checkpoints::Checkpoint,
        queue::{Claimed, NewCheckpoint},
    },
    domain::checkpoint::Manifest,
    objects::{ObjectError, Objects},
};

const MANIFEST: &str = "manifest.json";
/// Largest manifest in bytes; a real one has a few hundred.
const MANIFEST_BYTES: u64 = 1 << 20;
/// Far above the few that a job keeps.
const MOST_CHECKPOINTS: u32 = 100_000;

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
    let text = read_manifest(&folder.join(MANIFEST)).await?;
    if hex::encode(Sha256::digest(&text)) != manifest_sha256 {
        return Err(Fault::damaged(format!(
            "the manifest in `{}` is not the one that the trainer saved",
            folder.display()
        )));
    }
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| Fault::damaged(error.to_string()))?;
    for (name, entry) in &manifest.files {
        let stored = objects
            .put_file(&format!("{prefix}{name}"), &plain_file(folder, name)?)
            .await?;
        if stored.sha256 != entry.sha256 {
            return Err(Fault::damaged(format!(
                "`{name}` of the checkpoint does not match its manifest"
            )));
        }
    }
    objects
        .put_file(&format!("{prefix}{MANIFEST}"), &folder.join(MANIFEST))
        .await?;
    Ok(())
}

/// A file directly in a child's folder, and no link out of it: the child parses untrusted bytes.
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

async fn read_manifest(path: &Path) -> Result<Vec<u8>, Fault> {
    let metadata = tokio::fs::symlink_metadata(path)
        .await
        .map_err(|source| ObjectError::of_file(path, source))?;
    if !metadata.is_file() || metadata.len() > MANIFEST_BYTES {
        return Err(Fault::damaged(format!(
            "`{}` is not a manifest: not a file, or longer than {MANIFEST_BYTES} bytes",
            path.display()
        )));
    }
    Ok(tokio::fs::read(path)
        .await
        .map_err(|source| ObjectError::of_file(path, source))?)
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
        match fetch(objects, &checkpoint, target).await? {
            Ok(()) => return Ok(Some(checkpoint.step)),
            Err(damage) => {
                tracing::error!(job.id = %claimed.job, checkpoint.id = %checkpoint.id, "checkpoint is damaged: {damage}");
                let reject =
                    || db::checkpoints::reject(pool, claimed.job, claimed.token, checkpoint.id);
                candidate = persist("reject a damaged checkpoint", reject).await?;
            }
        }
    }
    Ok(None)
}

/// Fetches one checkpoint; the inner error says what is wrong with it.
async fn fetch(
    objects: &Objects,
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
    let fetched = fetch_and_check(objects, checkpoint, target).await;
    match fetched {
        Ok(()) => Ok(Ok(())),
        Err(Fault::Damaged(damage)) => Ok(Err(damage)),
        Err(fault) => Err(fault),
    }
}

async fn fetch_and_check(
    objects: &Objects,
    checkpoint: &Checkpoint,
    target: &Path,
) -> Result<(), Fault> {
    let Checkpoint {
        objects: prefix,
        manifest_sha256,
        ..
    } = checkpoint;
    let manifest = fetch_manifest(objects, prefix, manifest_sha256, &target.join(MANIFEST)).await?;
    for (name, entry) in &manifest.files {
        let file = target.join(name);
        fetch_object(objects, prefix, name, &file).await?;
        let (bytes, sha256) = hash_file(&file)
            .await
            .map_err(|source| ObjectError::of_file(&file, source))?;
        if (bytes, &sha256) != (entry.bytes, &entry.sha256) {
            return Err(Fault::damaged(format!(
                "`{prefix}{name}` does not match its manifest"
            )));
        }
    }
    Ok(())
}

/// Fetches the manifest below `prefix` (with its last `/`), which must be the committed one.
///
/// # Errors
/// It is missing, or another.
pub(super) async fn fetch_manifest(
    objects: &Objects,
    prefix: &str,
    manifest_sha256: &str,
    target: &Path,
) -> Result<Manifest, Fault> {
    fetch_object(objects, prefix, MANIFEST, target).await?;
    let text = read_manifest(target).await?;
    if hex::encode(Sha256::digest(&text)) != manifest_sha256 {
        return Err(Fault::damaged(format!(
            "`{prefix}{MANIFEST}` is not the manifest that was committed"
        )));
    }
    serde_json::from_slice(&text).map_err(|error| Fault::damaged(error.to_string()))
}

async fn fetch_object(
    objects: &Objects,
    prefix: &str,
    name: &str,
    target: &Path,
) -> Result<(), Fault> {
    match objects.fetch(&format!("{prefix}{name}"), target).await {
        Err(ObjectError::NotFound { key }) => Err(Fault::damaged(format!("`{key}` is missing"))),
        Err(ObjectError::InvalidKey { key }) => {
            Err(Fault::damaged(format!("`{key}` is not the name of a file")))
        }
        other => Ok(other?),
    }
}

/// Deletes the checkpoint objects of tokens up to `up_to_token` that no row names. Their leases are
/// gone: an attempt leaves such objects when it dies between upload and commit.
pub(super) async fn sweep(
    pool: &PgPool,
    objects: &Objects,
    claimed: &Claimed,
    up_to_token: i64,
) -> anyhow::Result<()> {
    let root = format!("checkpoints/{}/", claimed.job.0.simple());
    let mut orphans = BTreeSet::new();
    for key in objects.list_prefix(&root).await? {
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
    for committed in db::checkpoints::list(pool, claimed.tenant, claimed.job, all)
        .await?
        .rows
    {
        orphans.remove(&committed.objects);
    }
    for orphan in orphans {
        tracing::info!(job.id = %claimed.job, "deleting a checkpoint that was never committed: {orphan}");
        objects.delete_prefix(&orphan).await?;
    }
    Ok(())
}
