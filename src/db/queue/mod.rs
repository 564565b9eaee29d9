//! The queue, as workers see it: claim, heartbeat, record, checkpoint, finish, reap.
//!
//! A running job has one row in `job_leases`; whoever deletes it ends the attempt, once. Each claim has a new token, and
//! every write of a worker carries it: one with an older token writes nothing. No transaction stays open while a job
//! runs. All times are the database's.

use std::time::Duration;

use sqlx::PgPool;

use super::{convert, retry};
use crate::domain::id::JobId;

mod claim;
mod ending;
mod records;

pub use claim::{Claimed, ClaimedModel, DEFAULT_CLASS, Offer, Pack, claim};
pub use ending::{NewModel, Trace, finish, reap};
pub use records::{MicroBatch, NewCheckpoint, Records, commit_checkpoint, measured, record};

/// The answer to a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    pub cancel_requested: bool,
    pub pause_requested: bool,
    pub stop_requested: bool,
}

/// Keeps a lease for another `ttl`. `None`: it is lost, end the trainer.
pub async fn heartbeat(
    pool: &PgPool,
    job: JobId,
    token: i64,
    ttl: Duration,
) -> sqlx::Result<Option<Heartbeat>> {
    let heartbeat = || {
        sqlx::query_as!(
            Heartbeat,
            r#"update job_leases l set expires_at = now() + make_interval(secs => $3) from jobs j
            where l.job_id = $1 and l.token = $2 and j.id = l.job_id
            returning j.cancel_requested_at is not null as "cancel_requested!",
                j.status = 'pausing' as "pause_requested!", j.stop_requested_at is not null as "stop_requested!""#,
            job.0,
            token,
            convert::seconds(ttl)
        )
        .fetch_optional(pool)
    };
    retry(heartbeat).await
}
