//! Conversions between types of Postgres and of the domain.

use std::str::FromStr;

use crate::domain::job::JobStatus;

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

/// Reads the word of an enum. It is unknown where the row was written by a later build.
pub(super) fn parse<T: FromStr>(column: &str, word: &str) -> sqlx::Result<T> {
    word.parse().map_err(|_| {
        sqlx::Error::Decode(format!("{column} holds `{word}`, unknown to this build").into())
    })
}

pub(super) fn status(word: &str) -> sqlx::Result<JobStatus> {
    parse("jobs.status", word)
}
