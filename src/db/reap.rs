//! Ends leases that expired, of every kind of work, and gives up what crashed too often.

use std::time::Duration;

use sqlx::PgPool;

use super::{
    corrections, downloads, exports, files, models,
    persist::is_outage,
    pushes, queue, rankings, thumbnails,
    work::{self, Kind, Lease, Released},
};
use crate::domain::job::JobStatus;

/// A lease that was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    pub lease: Lease,
    /// The job's state now. Other work waits again, or is given up.
    pub job: Option<JobStatus>,
}

/// Ends one lease that expired more than `grace` ago. Call until `None`.
///
/// # Errors
/// Those of the database; for a lease that cannot be ended, only once there is no other.
pub async fn expired(pool: &PgPool, grace: Duration) -> sqlx::Result<Option<Reaped>> {
    let mut failed = None;
    for lease in work::expired(pool, grace).await? {
        match end(pool, lease, grace).await {
            Ok(Some(reaped)) => return Ok(Some(reaped)),
            // Another reaper was quicker, or a heartbeat came after all.
            Ok(None) => {}
            // Each of the others would fail like it, after its own timeout.
            Err(error) if is_outage(&error) => return Err(error),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(None), Err)
}

async fn end(pool: &PgPool, lease: Lease, grace: Duration) -> sqlx::Result<Option<Reaped>> {
    let job = match lease.kind {
        Kind::Train => match queue::lose(pool, &lease, grace).await? {
            Some(status) => Some(status),
            None => return Ok(None),
        },
        Kind::Validate
        | Kind::Import
        | Kind::Export
        | Kind::Download
        | Kind::Rank
        | Kind::Push
        | Kind::Thumbnails
        | Kind::Correct => {
            if !work::release(pool, &lease, Released::Expired(grace)).await? {
                return Ok(None);
            }
            None
        }
    };
    Ok(Some(Reaped { lease, job }))
}

/// Marks as failed what belongs to work that crashed too often, and ends that work.
///
/// # Errors
/// Those of the database.
pub async fn exhausted(pool: &PgPool) -> sqlx::Result<Vec<Lease>> {
    let mut given_up = Vec::new();
    for lease in work::exhausted(pool).await? {
        let ended = match lease.kind {
            // Jobs have budgets of their own, and end by `queue::lose`.
            Kind::Train => false,
            Kind::Validate => files::give_up(pool, &lease).await?,
            Kind::Import => models::give_up_import(pool, &lease).await?,
            Kind::Export => exports::give_up(pool, &lease).await?,
            Kind::Download => downloads::give_up(pool, &lease).await?,
            Kind::Rank => rankings::give_up(pool, &lease).await?,
            Kind::Push => pushes::give_up(pool, &lease).await?,
            Kind::Thumbnails => thumbnails::give_up(pool, &lease).await?,
            Kind::Correct => corrections::give_up(pool, &lease).await?,
        };
        if ended {
            given_up.push(lease);
        }
    }
    Ok(given_up)
}
