//! Conversions between types of Postgres and of the domain.

use std::{error::Error, str::FromStr, time::Duration};

use crate::domain::job::{JobStatus, Phase};

/// Postgres has no unsigned numbers. No count is negative (constraints) or above 2^63.
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

/// Reads the word of an enum.
pub(super) fn parse<T: FromStr>(column: &str, word: &str) -> sqlx::Result<T> {
    word.parse().map_err(|_| unknown(column, word))
}

pub(super) fn status(word: &str) -> sqlx::Result<JobStatus> {
    parse("jobs.status", word)
}

pub(super) fn phase(word: &str) -> sqlx::Result<Phase> {
    parse("jobs.phase", word)
}

/// The error of a word that this build does not know, since the row was written by a later one.
pub(super) fn unknown(column: &str, word: &str) -> sqlx::Error {
    sqlx::Error::Decode(Box::<dyn Error + Send + Sync>::from(format!(
        "{column} holds `{word}`, unknown to this build"
    )))
}
