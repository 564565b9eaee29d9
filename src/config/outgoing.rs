//! Settings of connections to other machines: webhooks, downloads, the hub.

use std::{fmt, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, builder::BoolishValueParser};
use url::Url;

use super::values::{base_url, millis};
use crate::domain::hosts::HostList;

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
