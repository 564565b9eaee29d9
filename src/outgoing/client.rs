//! The clients, the check of a URL's text, and the check of addresses.

use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use reqwest::{
    Client, Method, RequestBuilder, Response,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use url::{Host, Url};

use super::address::{Reach, reach};
use crate::{
    config::OutgoingArgs,
    domain::{hosts::HostList, limits::URL_CHARACTERS, problem::quoted},
};

/// Longest message about a connection, in characters.
const MESSAGE_CHARACTERS: usize = 200;
/// Time to open a connection, including the name's resolution.
const CONNECT: Duration = Duration::from_secs(10);

/// A URL was refused; no packet was sent to its host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("is not a URL ({0}); give one such as `https://example.org/path`")]
    Malformed(String),
    #[error("is longer than {URL_CHARACTERS} bytes; shorten it")]
    TooLong,
    #[error("has the scheme `{0}`; give a URL that starts with `https://` or `http://`")]
    Scheme(String),
    #[error("has a user name or a password before the host, which is not sent; leave it out")]
    UserInfo,
    #[error(
        "names the host `{0}`, which is not in the list of allowed hosts; ask the operator to add it to `{1}`"
    )]
    NotListed(String, &'static str),
    #[error(
        "names the host `{0}`, which does not resolve to a public address; the operator can allow it with `--private-hosts`"
    )]
    NotPublic(String),
}

/// The use of a URL: each has a list of allowed hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Download,
    Webhook,
}

/// A URL whose text was checked.
#[derive(Debug, Clone)]
pub struct Target {
    url: Url,
    /// Its host may have a private address.
    private: bool,
    /// It leads to a repository of the hub, which is read with the operator's token.
    of_hub: bool,
}

impl Target {
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The same, which gets the hub's token or not.
    pub(super) fn with_token(self, of_hub: bool) -> Self {
        Self { of_hub, ..self }
    }

    /// The host as the URL has it; for messages and logs, which must not hold a path or a query.
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }
}

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    #[error("the URL {0}")]
    Refused(Refused),
    #[error("no answer in time")]
    TimedOut,
    #[error("cannot connect: {0}")]
    Unreachable(String),
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl From<reqwest::Error> for Unsent {
    fn from(error: reqwest::Error) -> Self {
        let mut cause: &(dyn Error + 'static) = &error;
        loop {
            if let Some(refused) = cause.downcast_ref::<Refused>() {
                return Self::Refused(refused.clone());
            }
            match cause.source() {
                Some(source) => cause = source,
                None => break,
            }
        }
        if error.is_timeout() {
            Self::TimedOut
        } else if error.is_connect() {
            Self::Unreachable(plain(&cause.to_string()))
        } else {
            Self::Broken(plain(&cause.to_string()))
        }
    }
}

/// A message that may hold words of the other host, as it is stored and shown.
pub(super) fn plain(message: &str) -> String {
    let kept = message.chars().filter(|one| !one.is_control());
    kept.take(MESSAGE_CHARACTERS).collect()
}

/// Resolves names. Tests have names that resolve as they like.
pub trait Lookup: Send + Sync + 'static {
    /// The addresses of a name.
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The resolver of the machine.
struct MachineLookup;

impl Lookup for MachineLookup {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }
}

/// Sends requests to URLs of users. Cheap to clone.
#[derive(Clone)]
pub struct Outgoing(Arc<Inner>);

struct Inner {
    args: OutgoingArgs,
    lookup: Arc<dyn Lookup>,
    public: OnceLock<Client>,
    /// Also connects to private addresses.
    private: OnceLock<Client>,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outgoing").field(&self.0.args).finish()
    }
}

impl Outgoing {
    pub fn new(args: &OutgoingArgs) -> Self {
        Self::with_lookup(args, MachineLookup)
    }

    pub fn with_lookup(args: &OutgoingArgs, lookup: impl Lookup) -> Self {
        Self(Arc::new(Inner {
            args: args.clone(),
            lookup: Arc::new(lookup),
            public: OnceLock::new(),
            private: OnceLock::new(),
        }))
    }

    /// The client, made at its first use: a machine that sends nothing needs no certificates.
    fn client(&self, private: bool) -> Result<&Client, Unsent> {
        let inner = &*self.0;
        let made = if private {
            &inner.private
        } else {
            &inner.public
        };
        if let Some(client) = made.get() {
            return Ok(client);
        }
        let resolver = Checked {
            lookup: Arc::clone(&inner.lookup),
            private,
        };
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT)
            .dns_resolver(Arc::new(resolver))
            .user_agent(concat!("Rehead/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(made.get_or_init(|| client))
    }

    /// The options that it was made with.
    pub fn args(&self) -> &OutgoingArgs {
        &self.0.args
    }

    /// True when the operator allows some host for this use.
    pub fn is_on(&self, of: Use) -> bool {
        !self.list(of).0.is_empty()
    }

    fn list(&self, of: Use) -> (&HostList, &'static str) {
        match of {
            Use::Download => (&self.0.args.download_hosts, "--download-hosts"),
            Use::Webhook => (&self.0.args.webhook_hosts, "--webhook-hosts"),
        }
    }

    /// Checks the text of a URL.
    ///
    /// # Errors
    /// It may not be used.
    pub fn target(&self, text: &str, of: Use) -> Result<Target, Refused> {
        if text.len() > URL_CHARACTERS {
            return Err(Refused::TooLong);
        }
        // A parser passes over some of them, so that the URL would differ from its text.
        if text.contains(char::is_control) {
            let message = "it has a control character, such as a line end";
            return Err(Refused::Malformed(message.to_owned()));
        }
        let url = Url::parse(text).map_err(|error| Refused::Malformed(error.to_string()))?;
        self.target_of(url, of)
    }

    fn target_of(&self, url: Url, of: Use) -> Result<Target, Refused> {
        let port_of_scheme = match url.scheme() {
            "http" => 80,
            "https" => 443,
            other => return Err(Refused::Scheme(quoted(other).to_string())),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::UserInfo);
        }
        let name = url.host_str().unwrap_or_default();
        let port = url.port().unwrap_or(port_of_scheme);
        let (list, flag) = self.list(of);
        if !list.allows(name, port, port_of_scheme) {
            let host = match url.port() {
                Some(port) => format!("{name}:{port}"),
                None => name.to_owned(),
            };
            return Err(Refused::NotListed(quoted(&host).to_string(), flag));
        }
        let private = self.0.args.private_hosts.allows(name, port, port_of_scheme);
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        if address.is_some_and(|address| !may_reach(address, private)) {
            return Err(Refused::NotPublic(name.to_owned()));
        }
        let of_hub = of == Use::Download && self.0.args.is_of_hub(&url);
        Ok(Target {
            url,
            private,
            of_hub,
        })
    }

    /// Checks what the host of a URL resolves to now, so that a user hears of it at once. Each
    /// connection checks again.
    ///
    /// # Errors
    /// It does not resolve, or to an address that may not be used. These are not told apart: names
    /// of the operator's network are not the user's to find out.
    pub async fn check(&self, target: &Target) -> Result<(), Refused> {
        let Some(Host::Domain(name)) = target.url.host() else {
            return Ok(());
        };
        let addresses = checked_addresses(self.0.lookup.as_ref(), name, target.private);
        match tokio::time::timeout(CONNECT, addresses).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Refused::NotPublic(quoted(name).to_string())),
        }
    }

    /// Sends a request to a URL, with what `build` adds, and answers once the response's headers
    /// are there.
    ///
    /// # Errors
    /// There is no response.
    pub async fn send(
        &self,
        method: Method,
        target: &Target,
        build: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Unsent> {
        let client = self.client(target.private)?;
        let mut request = client.request(method, target.url.clone());
        if let Some(token) = self.0.args.hub_token.as_ref().filter(|_| target.of_hub) {
            request = request.bearer_auth(token.expose());
        }
        Ok(build(request).send().await?)
    }
}

fn may_reach(address: IpAddr, private: bool) -> bool {
    match reach(address) {
        Reach::Public => true,
        Reach::Private => private,
        Reach::Forbidden => false,
    }
}

/// The addresses of a name, if all of them may be connected to.
async fn checked_addresses(
    lookup: &dyn Lookup,
    name: &str,
    private: bool,
) -> Result<Vec<IpAddr>, Box<dyn Error + Send + Sync>> {
    let addresses = lookup.lookup(name.to_owned()).await?;
    let refused = addresses.iter().any(|&one| !may_reach(one, private));
    if refused || addresses.is_empty() {
        return Err(Refused::NotPublic(quoted(name).to_string()).into());
    }
    Ok(addresses)
}

/// The resolver of a client: a connection is opened to no other address than those it returns.
struct Checked {
    lookup: Arc<dyn Lookup>,
    private: bool,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, private) = (Arc::clone(&self.lookup), self.private);
        Box::pin(async move {
            let addresses = checked_addresses(lookup.as_ref(), name.as_str(), private).await?;
            // The port is that of the URL.
            let addresses = addresses.into_iter().map(|one| SocketAddr::new(one, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}
