//! The queue of jobs, as workers see it: claim, record, checkpoint, finish.
//!
//! A running job has one row in `work`. Each claim has a new token, which is also the number of the
//! attempt. No transaction stays open while a job runs.

mod claim;
mod finish;
mod records;

pub use claim::{Claimed, ClaimedModel, DEFAULT_CLASS, Offer, Pack, claim};
pub use finish::{NewModel, ResultFile, Trace, finish, lose};
pub use records::{MicroBatch, NewCheckpoint, Records, commit_checkpoint, measured, record};
