//! Settings of `rehead gc`, `keys`, `tenants`, `migrate` and `database`.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use time::{Date, Month, OffsetDateTime};

use super::values::{millis, positive};
use crate::domain::role::Role;

/// `rehead database grant-worker`
#[derive(Debug, Clone, Args)]
pub struct GrantArgs {
    /// Name of the role, as made by `create role NAME login password '…'`
    pub role: String,
    /// Print the statements, and execute nothing
    #[arg(long)]
    pub print: bool,
}

/// The database of commands that manage keys and tenants: that of `DATABASE_URL`, or the private
/// one of `rehead up`.
#[derive(Debug, Clone, Args)]
pub struct AdminArgs {
    /// Data folder of `rehead up`, whose private Postgres is used, and started if it does not run
    #[arg(long, env = "REHEAD_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// URL of the Postgres database, such as postgres://user@host/rehead
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Folder of the Postgres programs (`initdb`, `postgres`), when they are not found by
    /// themselves
    #[arg(long, env = "REHEAD_PG_BIN")]
    pub pg_bin: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `rehead keys create`
#[derive(Debug, Clone, Args)]
pub struct KeyArgs {
    /// Name of the key's tenant, which is created if it does not exist
    #[arg(long)]
    pub tenant: String,
    /// Rights of the key: `user`, the rows of its tenant; `admin`, also keys, workers and metrics
    #[arg(long, default_value_t = Role::User)]
    pub role: Role,
    /// A label for people; the tenant's name by default
    #[arg(long)]
    pub name: Option<String>,
    /// Time until the key expires, such as `90d`, `12h` or `30m`, or a date, such as 2030-01-31;
    /// never by default
    #[arg(long, value_parser = expiry)]
    pub expires: Option<OffsetDateTime>,
    /// Maximum number of requests in a minute, within that of the tenant; none by default
    #[arg(long, value_parser = clap::value_parser!(u32).range(..=1_000_000_000))]
    pub requests_per_minute: Option<u32>,
}

/// Reads a time from now, or the beginning of a day (UTC).
fn expiry(text: &str) -> Result<OffsetDateTime, String> {
    let wrong = || {
        format!("`{text}` is neither a time (`90d`, `12h`, `30m`, `60s`) nor a date (2030-01-31)")
    };
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let seconds = units.iter().find_map(|&(unit, seconds)| {
        let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
        Some(u64::from(number) * seconds)
    });
    let at = match seconds {
        Some(seconds) => OffsetDateTime::now_utc().checked_add(
            Duration::from_secs(seconds)
                .try_into()
                .map_err(|_| wrong())?,
        ),
        None => {
            let mut parts = text.splitn(3, '-');
            let mut part = || parts.next().unwrap_or_default();
            let (year, month, day) = (part().parse(), part().parse(), part().parse());
            let (Ok(year), Ok(month), Ok(day)) = (year, month, day) else {
                return Err(wrong());
            };
            let month: u8 = month;
            let month = Month::try_from(month).map_err(|_| wrong())?;
            let date = Date::from_calendar_date(year, month, day).map_err(|_| wrong())?;
            Some(date.midnight().assume_utc())
        }
    };
    at.ok_or_else(wrong)
}

/// `rehead gc`
#[derive(Debug, Clone, Args)]
pub struct GcArgs {
    /// Print what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print each object, and the total, as one JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Age without a change at which objects that no row names are removed (ms)
    #[arg(long = "orphan-ms", env = "REHEAD_ORPHAN_MS", value_name = "MS", default_value = "3600000", value_parser = millis())]
    pub orphan: Duration,
}

/// `rehead tenants set`
#[derive(Debug, Clone, Args)]
pub struct TenantArgs {
    /// The tenant's name
    pub name: String,
    /// Share of the workers relative to other tenants, from 0.001 to 1000
    #[arg(long, value_parser = positive)]
    pub weight: Option<f32>,
    /// Maximum number of running jobs; 0 starts no further job
    #[arg(long, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub max_running: Option<u32>,
    /// Maximum number of waiting jobs
    #[arg(long, value_parser = clap::value_parser!(u32).range(..=1_000_000_000))]
    pub max_queued: Option<u32>,
    /// `true` starts no further job of this tenant; running jobs continue
    #[arg(long)]
    pub paused: Option<bool>,
    /// Maximum number of requests in a minute; `default`, as below, means that of the service
    #[arg(long)]
    pub requests_per_minute: Option<Override>,
    /// Maximum size of all its files (bytes)
    #[arg(long)]
    pub max_stored_bytes: Option<Override>,
    /// Maximum number of open event streams
    #[arg(long)]
    pub max_streams: Option<Override>,
    /// Maximum number of requests that wait (`wait=`)
    #[arg(long)]
    pub max_waits: Option<Override>,
    /// Maximum number of predictions in progress
    #[arg(long)]
    pub max_predicts: Option<Override>,
    /// Maximum number of uploads in progress
    #[arg(long)]
    pub max_uploads: Option<Override>,
}

/// A limit of a tenant: its own, or that of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Override {
    Default,
    Of(u64),
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "default" {
            return Ok(Self::Default);
        }
        // Postgres' bigint ends there.
        let number = text
            .parse()
            .ok()
            .filter(|&number| number <= i64::MAX as u64);
        number
            .map(Self::Of)
            .ok_or_else(|| format!("`{text}` is neither `default` nor a whole number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_a_time_from_now_or_a_date() {
        let days = expiry("90d").unwrap() - OffsetDateTime::now_utc();
        assert_eq!(days.whole_days(), 89);
        let hours = expiry("12h").unwrap() - OffsetDateTime::now_utc();
        for (text, seconds) in [("30m", 1_800), ("60s", 60)] {
            let left = expiry(text).unwrap() - OffsetDateTime::now_utc();
            assert!(
                (seconds - 5..=seconds).contains(&left.whole_seconds()),
                "{left}"
            );
        }
        assert_eq!(hours.whole_hours(), 11);
        assert_eq!(
            expiry("2030-01-31").unwrap().unix_timestamp(),
            1_896_048_000
        );
        for wrong in [
            "",
            "d",
            "90",
            "-1d",
            "2030-13-01",
            "2030-02-30",
            "soon",
            "9999999999d",
            "é",
        ] {
            assert!(expiry(wrong).is_err(), "{wrong}");
        }
        assert!(expiry("4000000000d").is_err());
    }
}
