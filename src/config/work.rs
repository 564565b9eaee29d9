//! Settings of a worker: devices, leases, limits of data.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, builder::TypedValueParser};

use super::{
    outgoing::{DownloadLimits, PushLimits},
    sandbox::SandboxArgs,
    values::millis,
};
use crate::domain::work::DatasetLimits;

/// The devices of a worker: `auto`, or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// Every visible GPU; the CPU where there is none.
    Auto,
    /// As a plan names them: `cpu`, `cuda:0`. A device may be listed more than once.
    Listed(Vec<String>),
}

impl FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let is_device = |name: &str| {
            let index = name.strip_prefix("cuda:");
            name == "cpu" || index.is_some_and(|index| index.parse::<u16>().is_ok())
        };
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        match names.iter().find(|name| !is_device(name)) {
            Some(name) => Err(format!(
                "`{name}` is not a device; give `auto`, or a list of `cpu` and `cuda:N`, such as `cuda:0,cuda:1`"
            )),
            None => Ok(Self::Listed(names)),
        }
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Listed(names) => f.write_str(&names.join(",")),
        }
    }
}

/// `rehead work`
#[derive(Debug, Clone, Args)]
pub struct WorkDirArgs {
    /// Folder for job folders and the cache of data sets, weights and features (default: work in
    /// the state folder, $XDG_STATE_HOME/rehead or ~/.local/state/rehead)
    #[arg(long, env = "REHEAD_WORK_DIR")]
    pub work_dir: Option<PathBuf>,
}

/// A worker, of `rehead work` and `rehead up`.
#[derive(Debug, Clone, Args)]
pub struct WorkArgs {
    /// Devices to train on: `auto` (every GPU in CUDA_VISIBLE_DEVICES, or else the CPU), or a list
    /// of `cpu` and `cuda:N`, such as cuda:0,cuda:1
    #[arg(long, env = "REHEAD_DEVICE", default_value_t = Devices::Auto)]
    pub device: Devices,
    /// Threads of one trainer; 0 divides the cores among the slots
    #[arg(long, env = "REHEAD_THREADS", default_value_t = 0)]
    pub threads: u32,
    /// Maximum size of the cache of data sets, weights and features (bytes)
    #[arg(long, env = "REHEAD_CACHE_BYTES", default_value_t = 20 << 30)]
    pub cache_bytes: u64,
    /// Training steps recorded for one job; longer jobs record every k-th step
    #[arg(long, env = "REHEAD_STEPS_KEPT", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(2..))]
    pub steps_kept: u64,
    /// Days after a job's creation until its recorded steps are deleted; its evaluations are kept
    #[arg(long, env = "REHEAD_STEPS_DAYS", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub steps_days: u32,
    #[command(flatten)]
    pub admission: AdmissionArgs,
    #[command(flatten)]
    pub timing: Timing,
    #[command(flatten)]
    pub data: DataLimits,
    #[command(flatten)]
    pub sandbox: SandboxArgs,
    #[command(flatten)]
    pub downloads: DownloadLimits,
    #[command(flatten)]
    pub pushes: PushLimits,
}

/// Which jobs a worker claims.
#[derive(Debug, Clone, Args)]
pub struct AdmissionArgs {
    /// Slots for each device: trainings that run there at the same time
    #[arg(long, env = "REHEAD_SLOTS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub slots: u32,
    /// Device memory that is left free (MiB)
    #[arg(long, env = "REHEAD_MEMORY_MARGIN_MB", default_value_t = 256)]
    pub memory_margin_mb: u32,
    /// Queue age after which memory is reserved for a large job and smaller ones are held back (ms)
    #[arg(long = "reserve-ms", env = "REHEAD_RESERVE_MS", value_name = "MS", default_value = "600000", value_parser = millis())]
    pub reserve: Duration,
    /// Number of different jobs that fail fast in a row before a device is quarantined
    #[arg(long, env = "REHEAD_QUARANTINE_AFTER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub quarantine_after: u32,
    /// Duration of a quarantine, in which the device gets no jobs (ms)
    #[arg(long = "quarantine-ms", env = "REHEAD_QUARANTINE_MS", value_name = "MS", default_value = "600000", value_parser = millis())]
    pub quarantine: Duration,
    /// Duration of an attempt up to which its failure counts as fast (ms)
    #[arg(long = "fast-failure-ms", env = "REHEAD_FAST_FAILURE_MS", value_name = "MS", default_value = "30000", value_parser = millis())]
    pub fast_failure: Duration,
}

/// When a worker counts as dead. Must be the same for all processes of an installation.
#[derive(Debug, Clone, Args)]
pub struct LeaseTiming {
    /// Time after its last heartbeat at which a lease expires (ms)
    #[arg(long = "lease-ms", env = "REHEAD_LEASE_MS", value_name = "MS", default_value = "60000", value_parser = millis())]
    pub lease: Duration,
    /// Interval between scans for expired leases (ms)
    #[arg(long = "reap-ms", env = "REHEAD_REAP_MS", value_name = "MS", default_value = "5000", value_parser = millis())]
    pub reap: Duration,
}

/// Intervals and timeouts of a worker.
#[derive(Debug, Clone, Args)]
pub struct Timing {
    #[command(flatten)]
    pub leases: LeaseTiming,
    /// Interval between heartbeats, at most a third of --lease-ms (ms)
    #[arg(long = "heartbeat-ms", env = "REHEAD_HEARTBEAT_MS", value_name = "MS", default_value = "10000", value_parser = millis())]
    pub heartbeat: Duration,
    /// Interval between polls for work when no notification arrives (ms)
    #[arg(long = "poll-ms", env = "REHEAD_POLL_MS", value_name = "MS", default_value = "1500", value_parser = millis())]
    pub poll: Duration,
    /// Time for a trainer to save its state on shutdown or pause (ms)
    #[arg(long = "grace-ms", env = "REHEAD_GRACE_MS", value_name = "MS", default_value = "20000", value_parser = millis())]
    pub grace: Duration,
    /// Time for a trainer to load and pass its self-test (ms)
    #[arg(long = "start-ms", env = "REHEAD_START_MS", value_name = "MS", default_value = "120000", value_parser = millis())]
    pub start: Duration,
    /// Time without progress or computation after which a trainer is stalled and ended (ms); 20
    /// times its median step if that is longer
    #[arg(long = "stall-ms", env = "REHEAD_STALL_MS", value_name = "MS", default_value = "300000", value_parser = millis())]
    pub stall: Duration,
    /// How long training continues while the database is unreachable (ms)
    #[arg(long = "outage-ms", env = "REHEAD_OUTAGE_MS", value_name = "MS", default_value = "3600000", value_parser = millis())]
    pub outage: Duration,
    /// Interval between garbage collections (ms)
    #[arg(long = "sweep-ms", env = "REHEAD_SWEEP_MS", value_name = "MS", default_value = "3600000", value_parser = clap::value_parser!(u64).range(1_000..).map(Duration::from_millis))]
    pub sweep: Duration,
    /// Age without a change at which objects that no row names are removed (ms)
    #[arg(long = "orphan-ms", env = "REHEAD_ORPHAN_MS", value_name = "MS", default_value = "3600000", value_parser = millis())]
    pub orphan: Duration,
}

impl Timing {
    /// The interval between heartbeats: at least three in a lease.
    pub fn heartbeat(&self) -> Duration {
        self.heartbeat.min(self.leases.lease / 3)
    }
}

/// Limits on uploaded data, enforced by the validation process.
#[derive(Debug, Clone, Args)]
pub struct DataLimits {
    /// Maximum number of entries in an archive
    #[arg(long, env = "REHEAD_MAX_ENTRIES", default_value_t = 2_000_000)]
    pub max_entries: u64,
    /// Maximum size of an archive when unpacked (bytes)
    #[arg(long, env = "REHEAD_MAX_UNPACKED_BYTES", default_value_t = 100 << 30)]
    pub max_unpacked_bytes: u64,
    /// Maximum size of one archive entry when unpacked (bytes)
    #[arg(long, env = "REHEAD_MAX_ENTRY_BYTES", default_value_t = 256 << 20)]
    pub max_entry_bytes: u64,
    /// Maximum compression ratio of an archive: unpacked bytes for each packed byte
    #[arg(long, env = "REHEAD_MAX_RATIO", default_value_t = 100)]
    pub max_ratio: u64,
    /// Maximum size of one page of a Parquet file when unpacked (bytes)
    #[arg(long, env = "REHEAD_MAX_PAGE_BYTES", default_value_t = 1 << 30)]
    pub max_page_bytes: u64,
    /// Maximum number of pixels in one image
    #[arg(long, env = "REHEAD_MAX_PIXELS", default_value_t = crate::domain::limits::IMAGE_PIXELS)]
    pub max_pixels: u64,
    /// Maximum number of problems listed in a file's report
    #[arg(long, env = "REHEAD_MAX_REPORT_PROBLEMS", default_value_t = 1_000)]
    pub max_report_problems: u64,
    /// Maximum number of images of a data set for which thumbnails are made; 0 makes none
    #[arg(long, env = "REHEAD_MAX_THUMBNAILS", default_value_t = 200_000)]
    pub max_thumbnails: u64,
    /// Maximum size of uploaded weights (bytes)
    #[arg(long, env = "REHEAD_MAX_WEIGHTS_BYTES", default_value_t = 20 << 30)]
    pub max_weights_bytes: u64,
}

impl DataLimits {
    pub fn dataset(&self) -> DatasetLimits {
        DatasetLimits {
            entries: self.max_entries,
            unpacked_bytes: self.max_unpacked_bytes,
            entry_bytes: self.max_entry_bytes,
            ratio: self.max_ratio,
            page_bytes: self.max_page_bytes,
            pixels: self.max_pixels,
            report_problems: self.max_report_problems,
            thumbnails: self.max_thumbnails,
        }
    }
}

/// The GPUs that this process may use, as CUDA reads it: indices or UUIDs.
pub fn visible_gpus() -> Option<String> {
    std::env::var("CUDA_VISIBLE_DEVICES").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_auto_or_a_list() {
        let devices = |text: &str| text.parse::<Devices>();
        assert_eq!(devices("auto"), Ok(Devices::Auto));
        let listed = Devices::Listed(vec!["cuda:0".to_owned(), "cpu".to_owned()]);
        assert_eq!(devices("cuda:0, cpu").as_ref(), Ok(&listed));
        assert_eq!(listed.to_string(), "cuda:0,cpu");
        for wrong in ["", "gpu", "cuda", "cuda:x", "cpu,auto", "cpu,"] {
            let message = devices(wrong).unwrap_err();
            assert!(
                message.contains("is not a device; give `auto`"),
                "{message}"
            );
        }
    }
}
