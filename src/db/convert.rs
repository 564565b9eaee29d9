//! Between Postgres' types and the domain's.

use std::{error::Error, time::Duration};

use crate::domain::job::{JobStatus, Phase};

/// Postgres counts with a sign. No count here is negative (constraints) or past 2^63.
pub(super) fn to_count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn to_small(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

pub(super) fn from_count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn from_small(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// For `make_interval(secs => …)`.
pub(super) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

pub(super) fn status(word: &str) -> sqlx::Result<JobStatus> {
    word.parse().map_err(|_| unknown("jobs.status", word))
}

pub(super) fn phase(word: &str) -> sqlx::Result<Phase> {
    word.parse().map_err(|_| unknown("jobs.phase", word))
}

/// A word that this build does not know: the row was written by a later one.
pub(super) fn unknown(column: &str, word: &str) -> sqlx::Error {
    sqlx::Error::Decode(Box::<dyn Error + Send + Sync>::from(format!(
        "{column} holds `{word}`, unknown to this build"
    )))
}
