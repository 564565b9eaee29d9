//! Every setting and limit, read once: from flags, then from the environment, then these defaults.
//! The only module that reads the environment.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use crate::domain::work::DatasetLimits;

/// Where the state is. Shared by every role but the children, which know neither.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// Postgres, such as postgres://user@host/rehead
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
    /// Where uploads, checkpoints and models are kept: a folder, or a URL that this build supports
    #[arg(long, env = "REHEAD_OBJECTS")]
    pub objects: String,
    /// Connections to Postgres that this process may hold
    #[arg(long, env = "REHEAD_DATABASE_CONNECTIONS", default_value_t = 16)]
    pub database_connections: u32,
    /// How long to wait at the start for a Postgres that is not there yet, in milliseconds
    #[arg(long, env = "REHEAD_DATABASE_WAIT_MS", default_value_t = 60_000)]
    pub database_wait_ms: u64,
}

/// `rehead migrate`
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// Postgres, such as postgres://user@host/rehead
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
}

/// `rehead gc`
#[derive(Debug, Clone, Args)]
pub struct GcArgs {
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Milliseconds that objects without a row must have lain unchanged before they are removed
    #[arg(long, env = "REHEAD_ORPHAN_MS", default_value_t = 3_600_000)]
    pub orphan_ms: u64,
}

/// `rehead tenants set`
#[derive(Debug, Clone, Args)]
pub struct TenantArgs {
    /// The tenant's name
    pub name: String,
    /// Share of the workers, against other tenants
    #[arg(long, value_parser = positive)]
    pub weight: Option<f32>,
    /// Jobs that may run at once; 0 stops claims
    #[arg(long, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub max_running: Option<u32>,
    /// Jobs that may wait at once
    #[arg(long, value_parser = clap::value_parser!(u32).range(..=1_000_000_000))]
    pub max_queued: Option<u32>,
    /// Whether its jobs wait until this is taken back; what runs goes on
    #[arg(long)]
    pub paused: Option<bool>,
}

fn positive(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(weight) if (0.001..=1_000.0).contains(&weight) => Ok(weight),
        _ => Err("must be a number from 0.001 to 1000".to_owned()),
    }
}

/// What is written to standard error, and how.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// Which events are logged, such as `info` or `rehead=debug`
    #[arg(long, env = "RUST_LOG", default_value = "info", global = true)]
    pub log: String,
    /// One JSON object a line instead of text
    #[arg(long, env = "REHEAD_LOG_JSON", global = true)]
    pub log_json: bool,
}

/// `rehead serve`
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, env = "REHEAD_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Folder for bytes on their way through: predicted images, models being served
    #[arg(long, env = "REHEAD_SCRATCH", default_value = "/var/tmp/rehead-serve")]
    pub scratch: PathBuf,
    #[command(flatten)]
    pub limits: HttpLimits,
    #[command(flatten)]
    pub leases: LeaseTiming,
}

#[derive(Debug, Clone, Args)]
pub struct HttpLimits {
    /// Bytes of a JSON body
    #[arg(long, env = "REHEAD_MAX_JSON_BYTES", default_value_t = 1 << 20)]
    pub max_json_bytes: usize,
    /// Bytes of an uploaded file
    #[arg(long, env = "REHEAD_MAX_UPLOAD_BYTES", default_value_t = 20 << 30)]
    pub max_upload_bytes: u64,
    /// Images of one prediction
    #[arg(long, env = "REHEAD_MAX_PREDICT_IMAGES", default_value_t = 64)]
    pub max_predict_images: usize,
    /// Bytes of one predicted image
    #[arg(long, env = "REHEAD_MAX_PREDICT_IMAGE_BYTES", default_value_t = 32 << 20)]
    pub max_predict_image_bytes: usize,
    /// Predictions waiting for the inference child; one more is answered 503
    #[arg(long, env = "REHEAD_MAX_PREDICT_WAITING", default_value_t = 64)]
    pub max_predict_waiting: usize,
    /// Seconds that one prediction may take, loading the model included
    #[arg(long, env = "REHEAD_PREDICT_SECONDS", default_value_t = 60)]
    pub predict_seconds: u64,
    /// Rows of one page of a list
    #[arg(long, env = "REHEAD_MAX_PAGE", default_value_t = 100)]
    pub max_page: u32,
    /// Seconds that `wait` may hold an answer back
    #[arg(long, env = "REHEAD_MAX_WAIT_SECONDS", default_value_t = 60)]
    pub max_wait_seconds: u64,
    /// Event streams open at once; one more is answered 503
    #[arg(long, env = "REHEAD_MAX_STREAMS", default_value_t = 1_000)]
    pub max_streams: usize,
    /// Seconds a request's body may take to arrive, uploads apart
    #[arg(long, env = "REHEAD_BODY_SECONDS", default_value_t = 30)]
    pub body_seconds: u64,
    /// Seconds of silence in an upload before it is given up
    #[arg(long, env = "REHEAD_UPLOAD_IDLE_SECONDS", default_value_t = 60)]
    pub upload_idle_seconds: u64,
}

/// `rehead work`
#[derive(Debug, Clone, Args)]
pub struct WorkArgs {
    /// Folder for job folders and the cache of packs, weights and features
    #[arg(long, env = "REHEAD_WORK_DIR", default_value = "/var/tmp/rehead-work")]
    pub work_dir: PathBuf,
    /// Device to train on: auto, cpu, cuda:0
    #[arg(long, env = "REHEAD_DEVICE", default_value = "auto")]
    pub device: String,
    /// Threads of a trainer; 0 divides the cores among the slots
    #[arg(long, env = "REHEAD_THREADS", default_value_t = 0)]
    pub threads: u32,
    /// Bytes that the cache of packs, weights and features may take
    #[arg(long, env = "REHEAD_CACHE_BYTES", default_value_t = 20 << 30)]
    pub cache_bytes: u64,
    /// Steps of one job whose losses are kept; of a longer job every k-th
    #[arg(long, env = "REHEAD_STEPS_KEPT", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(2..))]
    pub steps_kept: u64,
    /// Days after a job's creation that its steps are kept; its evaluations stay as long as the job
    #[arg(long, env = "REHEAD_STEPS_DAYS", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub steps_days: u32,
    #[command(flatten)]
    pub admission: AdmissionArgs,
    #[command(flatten)]
    pub timing: Timing,
    #[command(flatten)]
    pub data: DataLimits,
}

/// What a worker takes on.
#[derive(Debug, Clone, Args)]
pub struct AdmissionArgs {
    /// Trainings at once; the cores are divided among them
    #[arg(long, env = "REHEAD_SLOTS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub slots: u32,
    /// MiB of the device's free memory that are left alone
    #[arg(long, env = "REHEAD_MEMORY_MARGIN_MB", default_value_t = 256)]
    pub memory_margin_mb: u32,
    /// Milliseconds that a job waits for more memory than is free, until smaller ones wait for it
    #[arg(long, env = "REHEAD_RESERVE_MS", default_value_t = 600_000)]
    pub reserve_ms: u64,
    /// Different jobs that fail fast one after the other before this worker is taken for broken
    #[arg(long, env = "REHEAD_QUARANTINE_AFTER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub quarantine_after: u32,
    /// Milliseconds that it then claims nothing
    #[arg(long, env = "REHEAD_QUARANTINE_MS", default_value_t = 600_000)]
    pub quarantine_ms: u64,
    /// Milliseconds within which a failure is fast
    #[arg(long, env = "REHEAD_FAST_FAILURE_MS", default_value_t = 30_000)]
    pub fast_failure_ms: u64,
}

impl AdmissionArgs {
    pub fn reserve(&self) -> Duration {
        Duration::from_millis(self.reserve_ms)
    }

    pub fn quarantine(&self) -> Duration {
        Duration::from_millis(self.quarantine_ms)
    }

    pub fn fast_failure(&self) -> Duration {
        Duration::from_millis(self.fast_failure_ms)
    }
}

/// When a worker counts as dead; the same for all processes of an installation.
#[derive(Debug, Clone, Args)]
pub struct LeaseTiming {
    /// Milliseconds after its last heartbeat that a lease ends
    #[arg(long, env = "REHEAD_LEASE_MS", default_value_t = 60_000)]
    pub lease_ms: u64,
    /// Milliseconds between two looks for dead leases
    #[arg(long, env = "REHEAD_REAP_MS", default_value_t = 5_000)]
    pub reap_ms: u64,
}

impl LeaseTiming {
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    pub fn reap(&self) -> Duration {
        Duration::from_millis(self.reap_ms)
    }
}

/// Times of the queue. All are measured by the database's clock, but for the self-fence.
#[derive(Debug, Clone, Args)]
pub struct Timing {
    #[command(flatten)]
    pub leases: LeaseTiming,
    /// Milliseconds between heartbeats; at most a third of the lease
    #[arg(long, env = "REHEAD_HEARTBEAT_MS", default_value_t = 10_000)]
    pub heartbeat_ms: u64,
    /// Milliseconds between two looks for work, when no notification comes
    #[arg(long, env = "REHEAD_POLL_MS", default_value_t = 1_500)]
    pub poll_ms: u64,
    /// Milliseconds that a trainer gets to save its state when asked to stop
    #[arg(long, env = "REHEAD_GRACE_MS", default_value_t = 20_000)]
    pub grace_ms: u64,
    /// Milliseconds that a trainer gets to say that it is ready
    #[arg(long, env = "REHEAD_START_MS", default_value_t = 120_000)]
    pub start_ms: u64,
    /// Milliseconds in which a running trainer gets no further before it is taken for stuck; 20 times its median step where
    /// that is longer
    #[arg(long, env = "REHEAD_STALL_MS", default_value_t = 300_000)]
    pub stall_ms: u64,
    /// Milliseconds without an answer of the database that a trainer goes on, in the hope that its lease still holds then
    #[arg(long, env = "REHEAD_OUTAGE_MS", default_value_t = 3_600_000)]
    pub outage_ms: u64,
    /// Milliseconds between two looks for objects that nothing needs
    #[arg(long, env = "REHEAD_SWEEP_MS", default_value_t = 3_600_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub sweep_ms: u64,
    /// Milliseconds that objects without a row must have lain unchanged before they are removed
    #[arg(long, env = "REHEAD_ORPHAN_MS", default_value_t = 3_600_000)]
    pub orphan_ms: u64,
}

impl Timing {
    pub fn lease(&self) -> Duration {
        self.leases.lease()
    }

    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms.min(self.leases.lease_ms / 3))
    }

    pub fn poll(&self) -> Duration {
        Duration::from_millis(self.poll_ms)
    }

    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }

    pub fn start(&self) -> Duration {
        Duration::from_millis(self.start_ms)
    }

    pub fn stall(&self) -> Duration {
        Duration::from_millis(self.stall_ms)
    }

    pub fn outage(&self) -> Duration {
        Duration::from_millis(self.outage_ms)
    }

    pub fn sweep(&self) -> Duration {
        Duration::from_millis(self.sweep_ms)
    }

    pub fn orphan(&self) -> Duration {
        Duration::from_millis(self.orphan_ms)
    }
}

/// Bounds on uploaded data, enforced by the validation process.
#[derive(Debug, Clone, Args)]
pub struct DataLimits {
    /// Entries of an archive
    #[arg(long, env = "REHEAD_MAX_ENTRIES", default_value_t = 2_000_000)]
    pub max_entries: u64,
    /// Bytes of an archive, unpacked
    #[arg(long, env = "REHEAD_MAX_UNPACKED_BYTES", default_value_t = 100 << 30)]
    pub max_unpacked_bytes: u64,
    /// Bytes of one entry, unpacked
    #[arg(long, env = "REHEAD_MAX_ENTRY_BYTES", default_value_t = 256 << 20)]
    pub max_entry_bytes: u64,
    /// Unpacked bytes for each packed one
    #[arg(long, env = "REHEAD_MAX_RATIO", default_value_t = 100)]
    pub max_ratio: u64,
    /// Pixels of one image
    #[arg(long, env = "REHEAD_MAX_PIXELS", default_value_t = 50_000_000)]
    pub max_pixels: u64,
    /// Problems listed in a file's report
    #[arg(long, env = "REHEAD_MAX_REPORT_PROBLEMS", default_value_t = 1_000)]
    pub max_report_problems: u64,
    /// Bytes of uploaded weights
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
            pixels: self.max_pixels,
            report_problems: self.max_report_problems,
        }
    }
}

/// `rehead up`
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Folder for everything: Postgres, objects, work
    #[arg(long, env = "REHEAD_DATA_DIR", default_value = "rehead-data")]
    pub data_dir: PathBuf,
    /// An existing Postgres to use instead of a private one
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Folder of Postgres' programs (`initdb`, `postgres`), when they are in none of the usual places
    #[arg(long, env = "REHEAD_PG_BIN")]
    pub pg_bin: Option<PathBuf>,
    /// Address to listen on; port 0 picks a free one
    #[arg(long, env = "REHEAD_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Device to train on: auto, cpu, cuda:0
    #[arg(long, env = "REHEAD_DEVICE", default_value = "auto")]
    pub device: String,
    /// Threads of a trainer; 0 divides the cores among the slots
    #[arg(long, env = "REHEAD_THREADS", default_value_t = 0)]
    pub threads: u32,
    /// Bytes that the cache of packs, weights and features may take
    #[arg(long, env = "REHEAD_CACHE_BYTES", default_value_t = 20 << 30)]
    pub cache_bytes: u64,
    /// Steps of one job whose losses are kept; of a longer job every k-th
    #[arg(long, env = "REHEAD_STEPS_KEPT", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(2..))]
    pub steps_kept: u64,
    /// Days after a job's creation that its steps are kept; its evaluations stay as long as the job
    #[arg(long, env = "REHEAD_STEPS_DAYS", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub steps_days: u32,
    #[command(flatten)]
    pub limits: HttpLimits,
    #[command(flatten)]
    pub admission: AdmissionArgs,
    #[command(flatten)]
    pub timing: Timing,
    #[command(flatten)]
    pub data: DataLimits,
}

/// The client commands: where the service is, and who asks.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// The service's base URL
    #[arg(long, env = "REHEAD_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// API key, when the service asks for one
    #[arg(long, env = "REHEAD_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
}

/// The folders of `PATH`.
pub fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map_or_else(Vec::new, |path| std::env::split_paths(&path).collect())
}
