//! Settings of the service: addresses, access, and limits of requests and tenants.

use std::{net::IpAddr, net::SocketAddr, path::PathBuf};

use clap::{Args, builder::RangedU64ValueParser};

use super::{
    outgoing::{OutgoingArgs, WebhookArgs},
    sandbox::SandboxArgs,
    work::LeaseTiming,
};

/// `rehead serve`
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, env = "REHEAD_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Folder for temporary files: images to predict, models that are served (default: serve in
    /// the state folder, $XDG_STATE_HOME/rehead or ~/.local/state/rehead)
    #[arg(long, env = "REHEAD_SCRATCH")]
    pub scratch: Option<PathBuf>,
    #[command(flatten)]
    pub serving: ServingArgs,
    #[command(flatten)]
    pub limits: HttpLimits,
    #[command(flatten)]
    pub leases: LeaseTiming,
    #[command(flatten)]
    pub access: AccessArgs,
    #[command(flatten)]
    pub sandbox: SandboxArgs,
    #[command(flatten)]
    pub outgoing: OutgoingArgs,
    #[command(flatten)]
    pub webhooks: WebhookArgs,
}

/// Who may use the service.
#[derive(Debug, Clone, Args)]
pub struct AccessArgs {
    /// Require an API key even on loopback, and even if none exists
    #[arg(long, env = "REHEAD_REQUIRE_KEYS")]
    pub require_keys: bool,
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// Addresses of reverse proxies whose `x-forwarded-for` is believed, separated by commas
    #[arg(long, env = "REHEAD_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpAddr>,
    /// Maximum number of wrong API keys from one address in a minute; further ones are answered 429
    #[arg(long, env = "REHEAD_FAILED_KEYS_PER_MINUTE", default_value_t = 20)]
    pub failed_keys_per_minute: u32,
    #[command(flatten)]
    pub sessions: SessionArgs,
}

/// Sessions of browsers, which hold a cookie instead of a key.
#[derive(Debug, Clone, Copy, Args)]
pub struct SessionArgs {
    /// Time without a request after which a session of the dashboard ends (s)
    #[arg(long, env = "REHEAD_SESSION_IDLE_SECONDS", default_value_t = 43_200, value_parser = clap::value_parser!(u64).range(300..=31_536_000))]
    pub session_idle_seconds: u64,
    /// Time after which a session of the dashboard ends in any case (s)
    #[arg(long, env = "REHEAD_SESSION_SECONDS", default_value_t = 2_592_000, value_parser = clap::value_parser!(u64).range(300..=31_536_000))]
    pub session_seconds: u64,
    /// Maximum number of sessions of one API key; a further one ends the one that was not used for
    /// longest
    #[arg(long, env = "REHEAD_MAX_SESSIONS_PER_KEY", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_sessions_per_key: u32,
}

/// Settings of predictions.
#[derive(Debug, Clone, Args)]
pub struct ServingArgs {
    /// Device of the inference process: `cpu`, `cuda:N`, or `auto` (a GPU if there is one)
    #[arg(long, env = "REHEAD_PREDICT_DEVICE", default_value = "cpu")]
    pub predict_device: String,
    /// Memory of the models that the inference process keeps loaded (bytes); those used last stay
    #[arg(long, env = "REHEAD_PREDICT_MEMORY_BYTES", default_value_t = 1 << 30)]
    pub predict_memory_bytes: u64,
    /// Maximum number of predictions that wait for the inference process; further ones are answered
    /// 503
    #[arg(long, env = "REHEAD_MAX_PREDICT_WAITING", default_value_t = 128)]
    pub max_predict_waiting: usize,
    /// Maximum time for one prediction, including loading the model (s)
    #[arg(long, env = "REHEAD_PREDICT_SECONDS", default_value_t = 60)]
    pub predict_seconds: u64,
}

#[derive(Debug, Clone, Args)]
pub struct HttpLimits {
    /// Maximum size of a JSON body (bytes)
    #[arg(long, env = "REHEAD_MAX_JSON_BYTES", default_value_t = 1 << 20)]
    pub max_json_bytes: usize,
    /// Maximum size of an uploaded file (bytes)
    #[arg(long, env = "REHEAD_MAX_UPLOAD_BYTES", default_value_t = 20 << 30)]
    pub max_upload_bytes: u64,
    /// Maximum number of a tenant's downloads that have not ended
    #[arg(long, env = "REHEAD_MAX_DOWNLOADS", default_value_t = 16)]
    pub max_downloads: u32,
    /// Maximum size of one part of an upload (bytes)
    #[arg(long, env = "REHEAD_MAX_PART_BYTES", default_value_t = 64 << 20)]
    pub max_part_bytes: u64,
    /// Maximum number of parts of one upload
    #[arg(long, env = "REHEAD_MAX_UPLOAD_PARTS", default_value_t = 10_000)]
    pub max_upload_parts: u32,
    /// Maximum number of open uploads in parts of one tenant; further ones are answered 429
    #[arg(long, env = "REHEAD_MAX_UPLOADS", default_value_t = 100)]
    pub max_uploads: u32,
    /// Time in which an upload in parts must be completed (s)
    #[arg(long, env = "REHEAD_UPLOAD_SECONDS", default_value_t = 3_600)]
    pub upload_seconds: u64,
    /// Maximum number of rankings of one tenant that wait or run; further ones are answered 429
    #[arg(long, env = "REHEAD_MAX_RANKINGS", default_value_t = 20)]
    pub max_rankings: u32,
    /// Maximum number of pushes of one tenant that wait or run; further ones are answered 429
    #[arg(long, env = "REHEAD_MAX_PUSHES", default_value_t = 20)]
    pub max_pushes: u32,
    /// Maximum number of a tenant's corrected data sets that workers have not made yet; further
    /// ones are answered 429
    #[arg(long, env = "REHEAD_MAX_CORRECTIONS", default_value_t = 16)]
    pub max_corrections: u32,
    /// Maximum number of images in one prediction
    #[arg(long, env = "REHEAD_MAX_PREDICT_IMAGES", default_value_t = 64, value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub max_predict_images: usize,
    /// Maximum size of one image in a prediction (bytes)
    #[arg(long, env = "REHEAD_MAX_PREDICT_IMAGE_BYTES", default_value_t = 32 << 20)]
    pub max_predict_image_bytes: usize,
    /// Maximum size of the images of all predictions in progress (bytes); further ones are answered
    /// 503
    #[arg(long, env = "REHEAD_MAX_PREDICT_BYTES", default_value_t = 2 << 30)]
    pub max_predict_bytes: u64,
    /// Maximum number of rows in one page of a list
    #[arg(long, env = "REHEAD_MAX_PAGE", default_value_t = 100)]
    pub max_page: u32,
    /// Maximum number of rows in one page of files or models
    #[arg(long, env = "REHEAD_MAX_LONG_PAGE", default_value_t = 10_000)]
    pub max_long_page: u32,
    /// Maximum time that `wait` may delay an answer (s)
    #[arg(long, env = "REHEAD_MAX_WAIT_SECONDS", default_value_t = 60)]
    pub max_wait_seconds: u64,
    /// Maximum number of open event streams; further ones are answered 503
    #[arg(long, env = "REHEAD_MAX_STREAMS", default_value_t = 2_000)]
    pub max_streams: usize,
    /// Maximum time in which a request's body must arrive, except uploads (s)
    #[arg(long, env = "REHEAD_BODY_SECONDS", default_value_t = 30)]
    pub body_seconds: u64,
    /// Time without data after which an upload is ended (s)
    #[arg(long, env = "REHEAD_UPLOAD_IDLE_SECONDS", default_value_t = 30)]
    pub upload_idle_seconds: u64,
    /// Maximum time in which a request's headers must arrive, and for which an idle connection is
    /// kept (s)
    #[arg(long, env = "REHEAD_HEADER_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub header_seconds: u64,
    /// Minimum speed of clients that send a body or read a response (bytes per second); slower ones
    /// are disconnected
    #[arg(long, env = "REHEAD_MIN_BYTES_PER_SECOND", default_value_t = 1_024)]
    pub min_bytes_per_second: u64,
    /// Time spent waiting for a client over which its speed is measured (s)
    #[arg(long, env = "REHEAD_SLOW_CLIENT_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub slow_client_seconds: u64,
    /// Maximum number of open connections; at the limit, the one that has waited longest for its
    /// client makes room
    #[arg(long, env = "REHEAD_MAX_CONNECTIONS", default_value_t = 8_192)]
    pub max_connections: usize,
    /// The same for the connections of one address (of IPv6, a network of 64 bits)
    #[arg(
        long,
        env = "REHEAD_MAX_CONNECTIONS_PER_ADDRESS",
        default_value_t = 2_048
    )]
    pub max_connections_per_address: usize,
    #[command(flatten)]
    pub tenant: TenantLimits,
}

/// Limits of each tenant, where `rehead tenants set` gives it no others. Each server process counts
/// for itself.
#[derive(Debug, Clone, Copy, Args)]
pub struct TenantLimits {
    /// Maximum number of requests of a tenant in a minute; further ones are answered 429
    #[arg(long, env = "REHEAD_REQUESTS_PER_MINUTE", default_value_t = 6_000)]
    pub requests_per_minute: u32,
    /// Maximum size of all files that a tenant stores (bytes)
    #[arg(long, env = "REHEAD_MAX_STORED_BYTES", default_value_t = 1 << 40)]
    pub max_stored_bytes: u64,
    /// Maximum number of open event streams of a tenant
    #[arg(long, env = "REHEAD_MAX_STREAMS_PER_TENANT", default_value_t = 500)]
    pub max_streams_per_tenant: u32,
    /// Maximum number of a tenant's requests that wait (`wait=`)
    #[arg(long, env = "REHEAD_MAX_WAITS_PER_TENANT", default_value_t = 500)]
    pub max_waits_per_tenant: u32,
    /// Maximum number of a tenant's predictions in progress
    #[arg(long, env = "REHEAD_MAX_PREDICTS_PER_TENANT", default_value_t = 32)]
    pub max_predicts_per_tenant: u32,
    /// Maximum number of a tenant's uploads in progress
    #[arg(long, env = "REHEAD_MAX_UPLOADS_PER_TENANT", default_value_t = 32)]
    pub max_uploads_per_tenant: u32,
    /// Maximum number of contents of files, checkpoints and models that are sent to a tenant at the
    /// same time
    #[arg(long, env = "REHEAD_MAX_READS_PER_TENANT", default_value_t = 32)]
    pub max_reads_per_tenant: u32,
    /// Maximum size of the images of a tenant's predictions in progress, and of one prediction
    /// (bytes)
    #[arg(long, env = "REHEAD_MAX_PREDICT_BYTES_PER_TENANT", default_value_t = 512 << 20)]
    pub max_predict_bytes_per_tenant: u64,
}

/// Metrics without a key.
#[derive(Debug, Clone, Args)]
pub struct MetricsArgs {
    /// Address on which `/metrics` and `/healthz` are served without a key; only operators should
    /// reach it
    #[arg(long, env = "REHEAD_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
}
