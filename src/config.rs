//! Every setting and limit: read once, from flags, then the environment, then these defaults. The
//! only module that reads the environment.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::{
    ArgAction, Args,
    builder::{BoolishValueParser, RangedU64ValueParser, TypedValueParser},
};

use time::{Date, Month, OffsetDateTime};
use url::Url;

use crate::domain::{hosts::HostList, role::Role, work::DatasetLimits};

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

/// Reads a number of milliseconds.
fn millis() -> impl TypedValueParser<Value = Duration> {
    clap::value_parser!(u64).map(Duration::from_millis)
}

fn positive(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(weight) if (0.001..=1_000.0).contains(&weight) => Ok(weight),
        _ => Err("must be a number from 0.001 to 1000".to_owned()),
    }
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

/// Hosts that URLs of users may lead to. Must be the same for all processes of an installation.
#[derive(Debug, Clone, Default, Args)]
pub struct OutgoingArgs {
    /// Hosts that files may be downloaded from by URL, and the hub's; `*` is every host, `none`
    /// turns downloads off
    #[arg(
        long,
        env = "REHEAD_DOWNLOAD_HOSTS",
        value_name = "HOSTS",
        default_value = "huggingface.co,*.hf.co"
    )]
    pub download_hosts: HostList,
    /// Hosts that webhooks are sent to, such as `hooks.example.org,*.example.org:8443`; `*:*` is
    /// every host and port, `none` turns webhooks off
    #[arg(
        long,
        env = "REHEAD_WEBHOOK_HOSTS",
        value_name = "HOSTS",
        default_value = "*:*"
    )]
    pub webhook_hosts: HostList,
    /// Hosts that may be reached by URL although their address is private, such as
    /// `localhost:3000,store.lan:*`
    #[arg(
        long,
        env = "REHEAD_PRIVATE_HOSTS",
        value_name = "HOSTS",
        default_value = "none"
    )]
    pub private_hosts: HostList,
    /// Hub whose repositories `POST /v1/base_models` and `POST /v1/files` take by name. Its host,
    /// and those that it redirects to, must be among `--download-hosts`
    #[arg(
        long,
        env = "HF_ENDPOINT",
        value_name = "URL",
        default_value = "https://huggingface.co",
        value_parser = base_url
    )]
    pub hub_endpoint: String,
    /// Token that repositories of the hub are read with
    #[arg(long, env = "HF_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub hub_token: Option<Secret>,
    /// Owners whose repositories may be used, such as `timm,facebook`; `*` is every one
    #[arg(
        long,
        env = "REHEAD_HUB_OWNERS",
        value_name = "OWNERS",
        value_delimiter = ',',
        default_value = "*"
    )]
    pub hub_owners: Vec<String>,
    /// Owners below whose names models may be pushed to the hub with `--hub-token`, such as
    /// `my-org`; `*` is every one that the token may write to, and without this pushes are off
    #[arg(
        long,
        env = "REHEAD_HUB_PUSH_OWNERS",
        value_name = "OWNERS",
        value_delimiter = ','
    )]
    pub hub_push_owners: Vec<String>,
    /// Maximum number of files that the weights of one model of the hub, or a data set, are in
    #[arg(
        long,
        env = "REHEAD_HUB_MAX_FILES",
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=1_000)
    )]
    pub hub_max_files: u32,
    /// Ask no hub
    #[arg(
        long,
        env = "HF_HUB_OFFLINE",
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new()
    )]
    pub hub_offline: bool,
    /// Folder of the cache that the hub's clients share: what is in it is used without the hub,
    /// and what is downloaded from the hub is added (default: `hub` in $HF_HOME; without that, no
    /// cache)
    #[arg(long, env = "HF_HUB_CACHE", value_name = "FOLDER")]
    pub hub_cache: Option<PathBuf>,
    /// Folder of Hugging Face's libraries
    #[arg(long = "hub-home", env = "HF_HOME", value_name = "FOLDER", hide = true)]
    pub hub_home: Option<PathBuf>,
}

impl OutgoingArgs {
    /// True for an owner whose repositories may be used.
    pub fn allows_owner(&self, owner: &str) -> bool {
        self.hub_owners.iter().any(|one| one == "*" || one == owner)
    }

    /// True for an owner below whose name models may be pushed.
    pub fn allows_push_to(&self, owner: &str) -> bool {
        let mut owners = self.hub_push_owners.iter();
        owners.any(|one| one == "*" || one == owner)
    }

    /// True when models may be pushed.
    pub fn pushes(&self) -> bool {
        !self.hub_push_owners.is_empty()
    }

    /// The folder of the cache of repositories, if there is one.
    pub fn hub_cache(&self) -> Option<PathBuf> {
        let of_home = || self.hub_home.as_ref().map(|home| home.join("hub"));
        self.hub_cache.clone().or_else(of_home)
    }

    /// True for a URL of the hub that lies in a repository that may be used.
    pub fn is_of_hub(&self, url: &Url) -> bool {
        let Ok(hub) = Url::parse(&self.hub_endpoint) else {
            return false;
        };
        let path = url.path().strip_prefix(hub.path().trim_end_matches('/'));
        let path = path
            .and_then(|path| path.strip_prefix('/'))
            .unwrap_or_default();
        let routes = [
            "api/models/",
            "api/datasets/",
            "api/resolve-cache/models/",
            "api/resolve-cache/datasets/",
            "datasets/",
        ];
        let of_route = routes.iter().find_map(|route| path.strip_prefix(route));
        let owner = of_route
            .unwrap_or(path)
            .split('/')
            .next()
            .unwrap_or_default();
        url.origin() == hub.origin() && self.allows_owner(owner)
    }
}

/// A text that is not to be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Limits and intervals of webhooks.
#[derive(Debug, Clone, Args)]
pub struct WebhookArgs {
    /// Maximum number of webhooks of a tenant
    #[arg(long, env = "REHEAD_MAX_WEBHOOKS", default_value_t = 16)]
    pub max_webhooks: u32,
    /// Maximum number of webhook deliveries that this process tries at the same time
    #[arg(long, env = "REHEAD_WEBHOOKS_AT_ONCE", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub webhooks_at_once: u32,
    /// Maximum number of deliveries to one webhook that are tried at the same time
    #[arg(long, env = "REHEAD_WEBHOOK_PARALLEL", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub webhook_parallel: u32,
    /// Time for a receiver to answer a webhook (ms)
    #[arg(long = "webhook-timeout-ms", env = "REHEAD_WEBHOOK_TIMEOUT_MS", value_name = "MS", default_value = "5000", value_parser = millis())]
    pub webhook_timeout: Duration,
    /// Wait before a webhook is tried again; it doubles with each try (ms)
    #[arg(long = "webhook-backoff-ms", env = "REHEAD_WEBHOOK_BACKOFF_MS", value_name = "MS", default_value = "5000", value_parser = millis())]
    pub webhook_backoff: Duration,
    /// Longest wait before a webhook is tried again (ms)
    #[arg(long = "webhook-longest-backoff-ms", env = "REHEAD_WEBHOOK_LONGEST_BACKOFF_MS", value_name = "MS", default_value = "10800000", value_parser = millis())]
    pub webhook_longest_backoff: Duration,
    /// Time after which a webhook delivery that always failed is given up (ms)
    #[arg(long = "webhook-give-up-ms", env = "REHEAD_WEBHOOK_GIVE_UP_MS", value_name = "MS", default_value = "86400000", value_parser = millis())]
    pub webhook_give_up: Duration,
    /// Interval between polls for webhook deliveries that are due (ms)
    #[arg(long = "webhook-poll-ms", env = "REHEAD_WEBHOOK_POLL_MS", value_name = "MS", default_value = "1000", value_parser = millis())]
    pub webhook_poll: Duration,
    /// Days after which webhook deliveries that have ended are deleted
    #[arg(long, env = "REHEAD_WEBHOOK_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub webhook_days: u32,
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

/// A layer of the sandbox of child processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxLayer {
    /// Which files a process reaches.
    Landlock,
    /// Which system calls it makes.
    Seccomp,
    /// A user of its own, if root starts it.
    User,
}

impl SandboxLayer {
    pub const ALL: [Self; 3] = [Self::Landlock, Self::Seccomp, Self::User];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::User => "user",
        }
    }
}

/// The layers of the sandbox that are asked for: `on`, `off`, or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxLayers(Vec<SandboxLayer>);

impl SandboxLayers {
    pub fn has(&self, layer: SandboxLayer) -> bool {
        self.0.contains(&layer)
    }
}

impl Default for SandboxLayers {
    fn default() -> Self {
        Self(SandboxLayer::ALL.to_vec())
    }
}

impl FromStr for SandboxLayers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let layer = |name: &str| {
            let found = SandboxLayer::ALL
                .into_iter()
                .find(|layer| layer.as_str() == name.trim());
            found.ok_or_else(|| {
                format!("`{name}` is not a layer; give `on`, `off`, or a list of `landlock`, `seccomp` and `user`")
            })
        };
        match text {
            "on" => Ok(Self::default()),
            "off" => Ok(Self(Vec::new())),
            list => list
                .split(',')
                .map(layer)
                .collect::<Result<_, _>>()
                .map(Self),
        }
    }
}

impl fmt::Display for SandboxLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = *self == Self::default();
        let names: Vec<_> = self.0.iter().map(|layer| layer.as_str()).collect();
        f.write_str(&match &names[..] {
            _ if on => "on".to_owned(),
            [] => "off".to_owned(),
            names => names.join(","),
        })
    }
}

/// The sandbox of child processes, which read what users upload.
#[derive(Debug, Clone, Args)]
pub struct SandboxArgs {
    /// Layers of the sandbox of child processes: `on` (all that this machine has), `off`, or a list
    /// of `landlock`, `seccomp` and `user`
    #[arg(long, env = "REHEAD_SANDBOX", default_value_t = SandboxLayers::default())]
    pub sandbox: SandboxLayers,
    /// Refuse to start when a layer of the sandbox is missing
    #[arg(long, env = "REHEAD_REQUIRE_SANDBOX")]
    pub require_sandbox: bool,
    /// First of 257 user and group ids that no account has, for child processes that root starts
    #[arg(long, env = "REHEAD_SANDBOX_UID", default_value_t = 60_800, value_parser = clap::value_parser!(u32).range(1..=4_000_000_000))]
    pub sandbox_uid: u32,
    /// Maximum memory of a child process (bytes), by default nine tenths of what the service has.
    /// Held by a control group, where the service may make one: with this option, it has to
    #[arg(long, env = "REHEAD_SANDBOX_MEMORY_BYTES", value_parser = clap::value_parser!(u64).range((64 << 20)..))]
    pub sandbox_memory_bytes: Option<u64>,
    /// Maximum number of threads of a child process that has a user or a control group of its own
    #[arg(long, env = "REHEAD_SANDBOX_THREADS", default_value_t = 4_096, value_parser = clap::value_parser!(u64).range(16..))]
    pub sandbox_threads: u64,
    /// Maximum size of a file that a child process writes (bytes)
    #[arg(long, env = "REHEAD_SANDBOX_FILE_BYTES", default_value_t = 256 << 30, value_parser = clap::value_parser!(u64).range((1 << 20)..))]
    pub sandbox_file_bytes: u64,
}

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

/// Metrics without a key.
#[derive(Debug, Clone, Args)]
pub struct MetricsArgs {
    /// Address on which `/metrics` and `/healthz` are served without a key; only operators should
    /// reach it
    #[arg(long, env = "REHEAD_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
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

/// Limits of pushes to the hub.
#[derive(Debug, Clone, Copy, Args)]
pub struct PushLimits {
    /// Maximum time for a push to the hub (ms)
    #[arg(long = "push-ms", env = "REHEAD_PUSH_MS", value_name = "MS", default_value = "14400000", value_parser = millis())]
    pub push_time: Duration,
    /// Time without an answer, or a byte taken, after which a push is ended (ms)
    #[arg(long = "push-idle-ms", env = "REHEAD_PUSH_IDLE_MS", value_name = "MS", default_value = "60000", value_parser = millis())]
    pub push_idle: Duration,
}

/// Limits of downloads by URL.
#[derive(Debug, Clone, Args)]
pub struct DownloadLimits {
    /// Maximum number of downloads at the same time; 0 leaves them to other workers
    #[arg(long, env = "REHEAD_DOWNLOADS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(..=64))]
    pub downloads: u32,
    /// Maximum size of a downloaded file (bytes)
    #[arg(long, env = "REHEAD_MAX_DOWNLOAD_BYTES", default_value_t = 20 << 30)]
    pub max_download_bytes: u64,
    /// Maximum time for a download (ms)
    #[arg(long = "download-ms", env = "REHEAD_DOWNLOAD_MS", value_name = "MS", default_value = "14400000", value_parser = millis())]
    pub download_time: Duration,
    /// Time without data after which a download is ended (ms)
    #[arg(long = "download-idle-ms", env = "REHEAD_DOWNLOAD_IDLE_MS", value_name = "MS", default_value = "60000", value_parser = millis())]
    pub download_idle: Duration,
    /// Least average rate of a download, after its first minute (bytes per second)
    #[arg(long, env = "REHEAD_LEAST_DOWNLOAD_RATE", default_value_t = 10_240)]
    pub least_download_rate: u64,
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

/// The address of the service, and the API key.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// Base URL of the service
    #[arg(long, env = "REHEAD_URL", default_value = "http://127.0.0.1:8080", value_parser = base_url)]
    pub url: String,
    /// API key, when the service requires one
    #[arg(long, env = "REHEAD_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Reads the address of a service, without a slash or `/v1` at its end.
fn base_url(text: &str) -> Result<String, String> {
    let base = text.trim_end_matches('/');
    let base = base.strip_suffix("/v1").unwrap_or(base);
    let host = ["http://", "https://"]
        .iter()
        .find_map(|scheme| base.strip_prefix(scheme));
    match host {
        Some(host) if !host.is_empty() && !host.starts_with(['/', ':']) => Ok(base.to_owned()),
        _ => Err("must be a URL such as http://127.0.0.1:8080".to_owned()),
    }
}

/// The GPUs that this process may use, as CUDA reads it: indices or UUIDs.
pub fn visible_gpus() -> Option<String> {
    std::env::var("CUDA_VISIBLE_DEVICES").ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_given_by_its_url() {
        for (text, base) in [
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("https://host/prefix/v1/", "https://host/prefix"),
            ("http://host/v1", "http://host"),
        ] {
            assert_eq!(base_url(text).as_deref(), Ok(base));
        }
        for wrong in ["", "host:8080", "http://", "http://:80", "ftp://host"] {
            assert!(base_url(wrong).is_err(), "{wrong}");
        }
    }

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

    #[test]
    fn sandbox_is_on_or_off_or_a_list() {
        let layers = |text: &str| text.parse::<SandboxLayers>();
        for text in ["on", "off", "seccomp,user"] {
            assert_eq!(layers(text).unwrap().to_string(), text);
        }
        assert!(layers("landlock, user").unwrap().has(SandboxLayer::User));
        let refused = layers("yes").unwrap_err();
        assert!(
            refused.contains("`yes` is not a layer; give `on`"),
            "{refused}"
        );
    }

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
