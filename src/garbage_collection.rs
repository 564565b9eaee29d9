//! Garbage collection: finds, reports and deletes objects that no row names, checkpoints whose
//! deletion was interrupted, and rows whose objects are missing. A process that dies between
//! writing an object and its row leaves such garbage. Each worker collects it at intervals, and
//! `rehead gc` on request.
//!
//! Objects are listed before rows are read, and only what has not changed for a grace period is
//! deleted: a writer always writes its row within that time. What a live attempt writes is never
//! deleted, however old it is.

use std::{collections::HashSet, fmt, time::Duration};

use sqlx::PgPool;

use crate::{
    db,
    domain::id::{CheckpointId, FileId, JobId, UploadId},
    objects::{Objects, Unit},
};

/// Folders of the object store that are collected, and the depth of a unit below them.
const ROOTS: [(&str, usize); 6] = [
    ("files", 1),
    ("uploads", 1),
    ("models", 1),
    ("checkpoints", 2),
    ("bundles", 2),
    ("scripts", 1),
];

/// Garbage, or a row without its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Objects without a row, unchanged for `age`.
    Orphan {
        prefix: String,
        bytes: u64,
        age: Duration,
    },
    /// A checkpoint that is superseded, damaged, or belongs to a deleted job.
    Discarded {
        id: CheckpointId,
        prefix: String,
        bytes: u64,
    },
    /// A file whose time is over, and that nothing needs.
    ExpiredFile {
        id: FileId,
        prefix: String,
        bytes: u64,
    },
    /// An upload in parts that was not completed in time.
    ExpiredUpload {
        id: UploadId,
        prefix: String,
        bytes: u64,
    },
    /// A checkpoint without its objects: no attempt can resume from it.
    LostCheckpoint {
        id: CheckpointId,
        job: JobId,
        prefix: String,
    },
    /// A file or model without its objects. Only reported: it takes a backup to restore them.
    Lost { row: String, prefix: String },
}

impl Finding {
    /// Bytes that its removal frees.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Orphan { bytes, .. }
            | Self::Discarded { bytes, .. }
            | Self::ExpiredFile { bytes, .. }
            | Self::ExpiredUpload { bytes, .. } => *bytes,
            Self::LostCheckpoint { .. } | Self::Lost { .. } => 0,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Orphan { prefix, bytes, age } => {
                let minutes = age.as_secs() / 60;
                write!(
                    f,
                    "{bytes} bytes at {prefix}: named by no row, unchanged for {minutes} minutes"
                )
            }
            Self::Discarded { id, prefix, bytes } => {
                write!(f, "{bytes} bytes at {prefix}: {id} was discarded")
            }
            Self::ExpiredFile { id, prefix, bytes } => {
                write!(f, "{bytes} bytes at {prefix}: {id} expired")
            }
            Self::ExpiredUpload { id, prefix, bytes } => {
                write!(f, "{bytes} bytes at {prefix}: {id} expired")
            }
            Self::LostCheckpoint { id, job, prefix } => {
                write!(
                    f,
                    "{id} of {job} has no objects at {prefix}: marked as damaged"
                )
            }
            Self::Lost { row, prefix } => {
                write!(
                    f,
                    "{row} has no objects at {prefix}: restore them, or delete it"
                )
            }
        }
    }
}

/// Finds all garbage that has not changed for `grace`. Deletes nothing.
///
/// # Errors
/// Database or object store cannot be read.
pub async fn find(
    pool: &PgPool,
    objects: &Objects,
    grace: Duration,
) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut present = HashSet::new();
    for (root, depth) in ROOTS {
        let units = objects.units(root, depth).await?;
        findings.extend(orphans(pool, &units, grace).await?);
        present.extend(units.into_iter().map(|unit| unit.prefix));
    }
    for discarded in db::checkpoints::discarded(pool).await? {
        let unit = objects.unit(&discarded.objects).await?;
        findings.push(Finding::Discarded {
            id: discarded.id,
            prefix: discarded.objects,
            bytes: unit.map_or(0, |unit| unit.bytes),
        });
    }
    findings.extend(expired(pool, objects).await?);
    for kept in db::checkpoints::committed(pool, grace).await? {
        if !present.contains(&kept.objects) {
            findings.push(Finding::LostCheckpoint {
                id: kept.id,
                job: kept.job,
                prefix: kept.objects,
            });
        }
    }
    for (row, prefix) in db::retention::referenced(pool, grace).await? {
        if !present.contains(&prefix) {
            findings.push(Finding::Lost { row, prefix });
        }
    }
    Ok(findings)
}

/// Files and uploads whose time is over.
async fn expired(pool: &PgPool, objects: &Objects) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for id in db::files::expired(pool).await? {
        let prefix = db::files::prefix(id);
        let unit = objects.unit(&prefix).await?;
        findings.push(Finding::ExpiredFile {
            id,
            prefix,
            bytes: unit.map_or(0, |unit| unit.bytes),
        });
    }
    for id in db::uploads::expired(pool).await? {
        let prefix = format!("uploads/{}/", id.0.simple());
        let unit = objects.unit(&prefix).await?;
        findings.push(Finding::ExpiredUpload {
            id,
            prefix,
            bytes: unit.map_or(0, |unit| unit.bytes),
        });
    }
    Ok(findings)
}

/// The units that are garbage. `units` must have been listed before this reads the rows.
async fn orphans(pool: &PgPool, units: &[Unit], grace: Duration) -> anyhow::Result<Vec<Finding>> {
    let old = units.iter().filter(|unit| unit.age() >= grace);
    let old: Vec<String> = old.map(|unit| unit.prefix.clone()).collect();
    let unreferenced = db::retention::unreferenced(pool, old).await?;
    let unreferenced: HashSet<String> = unreferenced.into_iter().collect();
    let orphans = units
        .iter()
        .filter(|unit| unreferenced.contains(&unit.prefix));
    let orphans = orphans.map(|unit| Finding::Orphan {
        prefix: unit.prefix.clone(),
        bytes: unit.bytes,
        age: unit.age(),
    });
    Ok(orphans.collect())
}

/// Deletes the objects of a job that no row names and no live attempt writes: an attempt that dies
/// between writing objects and their row leaves them.
///
/// # Errors
/// Database or object store cannot be read or written.
pub async fn sweep_job(pool: &PgPool, objects: &Objects, job: JobId) -> anyhow::Result<()> {
    for root in ["checkpoints", "bundles"] {
        let root = format!("{root}/{}", job.0.simple());
        let units = objects.units(&root, 1).await?.into_iter();
        let prefixes = units.map(|unit| unit.prefix).collect();
        for orphan in db::retention::unreferenced(pool, prefixes).await? {
            tracing::info!(job.id = %job, "deleting objects that were never committed: {orphan}");
            objects.delete_prefix(&orphan).await?;
        }
    }
    Ok(())
}

/// Removes the garbage of one finding. `false`: it no longer is garbage, or cannot be removed.
///
/// # Errors
/// Database or object store cannot be written.
pub async fn remove(
    pool: &PgPool,
    objects: &Objects,
    finding: &Finding,
    grace: Duration,
) -> anyhow::Result<bool> {
    match finding {
        Finding::Orphan { prefix, .. } => {
            // It may have been written to since, or a row may be about to name it.
            let Some(unit) = objects.unit(prefix).await? else {
                return Ok(false);
            };
            let unreferenced = db::retention::unreferenced(pool, vec![unit.prefix.clone()]).await?;
            if unit.age() < grace || unreferenced.is_empty() {
                return Ok(false);
            }
            objects.delete_prefix(prefix).await?;
        }
        Finding::Discarded { id, prefix, .. } => {
            objects.delete_prefix(prefix).await?;
            db::checkpoints::forget(pool, *id).await?;
        }
        Finding::ExpiredFile { id, prefix, .. } => {
            // A job may have been created from it since.
            if !db::files::delete_expired(pool, *id).await? {
                return Ok(false);
            }
            objects.delete_prefix(prefix).await?;
        }
        Finding::ExpiredUpload { id, prefix, .. } => {
            if !db::uploads::expire(pool, *id).await? {
                return Ok(false);
            }
            objects.delete_prefix(prefix).await?;
        }
        Finding::LostCheckpoint { id, .. } => db::checkpoints::mark_bad(pool, *id).await?,
        Finding::Lost { .. } => return Ok(false),
    }
    Ok(true)
}

/// Finds garbage and removes it, and logs each finding.
///
/// # Errors
/// As `find`. A finding that cannot be removed is logged, and the others are removed.
pub async fn sweep(pool: &PgPool, objects: &Objects, grace: Duration) -> anyhow::Result<()> {
    for finding in find(pool, objects, grace).await? {
        match remove(pool, objects, &finding, grace).await {
            Ok(true) => tracing::info!("removed: {finding}"),
            Ok(false) => tracing::warn!("{finding}"),
            Err(error) => tracing::warn!("cannot remove: {finding}: {error:#}"),
        }
    }
    Ok(())
}
