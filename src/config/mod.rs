//! Every setting and limit: read once, from flags, then the environment, then these defaults.
//! Nothing else reads the environment.

mod admin;
mod client;
mod outgoing;
mod sandbox;
mod serve;
mod values;
mod work;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

pub use self::{
    admin::{AdminArgs, GcArgs, GrantArgs, KeyArgs, Override, TenantArgs},
    client::ClientArgs,
    outgoing::{DownloadLimits, OutgoingArgs, PushLimits, Secret, WebhookArgs},
    sandbox::{SandboxArgs, SandboxLayer, SandboxLayers},
    serve::{
        AccessArgs, HttpLimits, MetricsArgs, ServeArgs, ServingArgs, SessionArgs, TenantLimits,
    },
    work::{
        AdmissionArgs, DataLimits, Devices, LeaseTiming, Timing, WorkArgs, WorkDirArgs,
        visible_gpus,
    },
};

use self::values::millis;

/// The database and the object store.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// URL of the Postgres database, such as postgres://user@host/rehead
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
    /// Folder (or file:// URL) of uploads, checkpoints and models
    #[arg(long, env = "REHEAD_OBJECTS")]
    pub objects: String,
    /// Maximum number of connections of this process to Postgres
    #[arg(long, env = "REHEAD_DATABASE_CONNECTIONS", default_value_t = 16)]
    pub database_connections: u32,
    /// How long to wait at the start until Postgres answers (ms)
    #[arg(long = "database-wait-ms", env = "REHEAD_DATABASE_WAIT_MS", value_name = "MS", default_value = "60000", value_parser = millis())]
    pub database_wait: Duration,
}

/// `rehead migrate`
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// URL of the Postgres database, such as postgres://user@host/rehead
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
}

/// The log on standard error.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// Log level, or levels by module, such as `info` or `rehead=debug`
    #[arg(long, env = "RUST_LOG", default_value = "info", global = true)]
    pub log: String,
    /// Write the log as one JSON object a line
    #[arg(long, env = "REHEAD_LOG_JSON", global = true)]
    pub log_json: bool,
    /// URL of the OpenTelemetry collector that receives traces (OTLP over HTTP), such as
    /// http://127.0.0.1:4318
    #[cfg(feature = "otel")]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", global = true)]
    pub otlp_endpoint: Option<String>,
}

/// `rehead up`
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Folder for all data: the database, the object store, the work folder
    #[arg(long, env = "REHEAD_DATA_DIR", default_value = "rehead-data")]
    pub data_dir: PathBuf,
    /// URL of an existing Postgres database; without it, a private server is started
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Folder of the Postgres programs (`initdb`, `postgres`), when they are not found by
    /// themselves
    #[arg(long, env = "REHEAD_PG_BIN")]
    pub pg_bin: Option<PathBuf>,
    /// Address to listen on; port 0 picks a free one
    #[arg(long, env = "REHEAD_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    #[command(flatten)]
    pub serving: ServingArgs,
    #[command(flatten)]
    pub limits: HttpLimits,
    #[command(flatten)]
    pub access: AccessArgs,
    #[command(flatten)]
    pub outgoing: OutgoingArgs,
    #[command(flatten)]
    pub webhooks: WebhookArgs,
    #[command(flatten)]
    pub work: WorkArgs,
}

/// The folder for state of this user, which is no part of a backup.
pub fn state_folder() -> Option<PathBuf> {
    let absolute = |name: &str| {
        let folder = PathBuf::from(std::env::var_os(name)?);
        folder.is_absolute().then_some(folder)
    };
    let state = absolute("XDG_STATE_HOME");
    let state = state.or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Some(state?.join("rehead"))
}

/// The folders of `PATH`.
pub fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map_or_else(Vec::new, |path| std::env::split_paths(&path).collect())
}
