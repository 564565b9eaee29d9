//! What nothing needs any more: objects that no row names, checkpoints whose deletion was interrupted, rows whose objects
//! are gone. A process that dies between an object and its row leaves such things; each worker looks for them now and
//! then, and `rehead gc` when somebody asks.
//!
//! Objects are listed before rows are read, and only what has not changed for a grace is touched: a writer always comes
//! to its row within that time. What a live attempt writes is never touched, however old.

use std::{collections::HashSet, fmt, time::Duration};

use sqlx::PgPool;

use crate::{
    db::{
        self,
        retention::{Claimant, Kept},
    },
    domain::id::{CheckpointId, JobId},
    objects::{Objects, Unit},
};

/// Folders of the object store, and how many names below them a unit lies. Nothing else in the store is looked at.
const ROOTS: [(&str, usize); 4] = [
    ("files", 1),
    ("models", 1),
    ("checkpoints", 2),
    ("bundles", 2),
];

/// One thing that nothing needs, or that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Objects without a row, unchanged for `age`.
    Orphan {
        prefix: String,
        bytes: u64,
        age: Duration,
    },
    /// A checkpoint that is no longer listed: superseded, of a deleted job, or damaged.
    Discarded {
        id: CheckpointId,
        prefix: String,
        bytes: u64,
    },
    /// A checkpoint without its objects: no attempt can go on from it.
    LostCheckpoint {
        id: CheckpointId,
        job: JobId,
        prefix: String,
    },
    /// A file or model without its objects. Only said: nothing can bring them back.
    Lost { row: String, prefix: String },
}

impl Finding {
    /// Bytes that its removal gives back.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Orphan { bytes, .. } | Self::Discarded { bytes, .. } => *bytes,
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
                    "{bytes} bytes at {prefix}: no row names them, unchanged for {minutes} minutes"
                )
            }
            Self::Discarded { id, prefix, bytes } => {
                write!(f, "{bytes} bytes at {prefix}: of {id}, which is discarded")
            }
            Self::LostCheckpoint { id, job, prefix } => {
                write!(
                    f,
                    "{id} of {job} has lost its objects at {prefix}: to be marked as bad"
                )
            }
            Self::Lost { row, prefix } => {
                write!(
                    f,
                    "{row} has lost its objects at {prefix}: restore them, or delete it"
                )
            }
        }
    }
}

/// Looks for everything that has not changed for `grace`. Changes nothing.
///
/// # Errors
/// Database or object store cannot be read.
pub async fn look(
    pool: &PgPool,
    objects: &Objects,
    grace: Duration,
) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut there = HashSet::new();
    for (root, depth) in ROOTS {
        let units = objects.units(root, depth).await?;
        findings.extend(orphans(pool, &units, grace).await?);
        there.extend(units.into_iter().map(|unit| unit.prefix));
    }
    for Kept {
        id, objects: at, ..
    } in db::retention::discarded(pool).await?
    {
        let unit = objects.unit(&at).await?;
        findings.push(Finding::Discarded {
            id,
            prefix: at,
            bytes: unit.map_or(0, |unit| unit.bytes),
        });
    }
    for kept in db::retention::committed(pool, grace).await? {
        if !there.contains(&kept.objects) {
            findings.push(Finding::LostCheckpoint {
                id: kept.id,
                job: kept.job,
                prefix: kept.objects,
            });
        }
    }
    for (row, prefix) in db::retention::named(pool, grace).await? {
        if !there.contains(&prefix) {
            findings.push(Finding::Lost { row, prefix });
        }
    }
    Ok(findings)
}

async fn orphans(
    pool: &PgPool,
    units: &[Unit],
    grace: Duration,
) -> anyhow::Result<impl Iterator<Item = Finding> + use<>> {
    let old: Vec<&Unit> = units.iter().filter(|unit| unit.age() >= grace).collect();
    let claimants: Vec<Claimant> = old.iter().map(|unit| claimant(&unit.prefix)).collect();
    let unowned: HashSet<String> = db::retention::unowned(pool, &claimants)
        .await?
        .into_iter()
        .collect();
    let orphans: Vec<Finding> = old
        .into_iter()
        .filter(|unit| unowned.contains(&unit.prefix))
        .map(|unit| Finding::Orphan {
            prefix: unit.prefix.clone(),
            bytes: unit.bytes,
            age: unit.age(),
        })
        .collect();
    Ok(orphans.into_iter())
}

/// Reads job and token from `checkpoints/<job>/<step>-<token>/` and `bundles/<job>/<token>/`.
fn claimant(prefix: &str) -> Claimant {
    let parts: Vec<&str> = prefix.trim_end_matches('/').split('/').collect();
    let attempt = match parts.as_slice() {
        ["checkpoints" | "bundles", job, name] => {
            let token = name.rsplit('-').next().and_then(|token| token.parse().ok());
            job.parse().ok().zip(token)
        }
        _ => None,
    };
    Claimant {
        prefix: prefix.to_owned(),
        attempt,
    }
}

/// Does what one finding asks for. `false`: it is not so any more, or there is nothing to be done.
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
            // Somebody may have written there since, or be about to name it.
            let Some(unit) = objects.unit(prefix).await? else {
                return Ok(false);
            };
            if unit.age() < grace
                || db::retention::unowned(pool, &[claimant(prefix)])
                    .await?
                    .is_empty()
            {
                return Ok(false);
            }
            objects.delete_prefix(prefix).await?;
        }
        Finding::Discarded { id, prefix, .. } => {
            objects.delete_prefix(prefix).await?;
            db::retention::forget_checkpoint(pool, *id).await?;
        }
        Finding::LostCheckpoint { id, .. } => db::retention::mark_bad(pool, *id).await?,
        Finding::Lost { .. } => return Ok(false),
    }
    Ok(true)
}

/// Looks, and removes what it finds; says each.
///
/// # Errors
/// As `look`. What one finding asks for and cannot be done is logged, and the others go on.
pub async fn sweep(pool: &PgPool, objects: &Objects, grace: Duration) -> anyhow::Result<()> {
    for finding in look(pool, objects, grace).await? {
        match remove(pool, objects, &finding, grace).await {
            Ok(true) => tracing::info!("swept: {finding}"),
            Ok(false) => tracing::warn!("{finding}"),
            Err(error) => tracing::warn!("cannot sweep: {finding}: {error:#}"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_read_from_names() {
        let job = "0193a5c0000070008000123456789abc";
        let attempt = |prefix: &str| claimant(prefix).attempt;
        let of = |token| Some((job.parse().unwrap(), token));
        assert_eq!(attempt(&format!("checkpoints/{job}/120-3/")), of(3));
        assert_eq!(attempt(&format!("bundles/{job}/2/")), of(2));
        assert_eq!(attempt(&format!("files/{job}/")), None);
        assert_eq!(attempt("checkpoints/no-job/120-3/"), None);
    }
}
