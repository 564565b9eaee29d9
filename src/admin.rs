//! Commands that manage keys and tenants, in the database itself: whoever can reach it is an
//! operator.

use std::{fs::File, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use rehead::{
    config::{AdminArgs, KeyArgs, Override, TenantArgs},
    db::{self, Page, keys::KeyId},
    domain::problem::Problem,
    exit::Exit,
    keys::Grant,
    postgres::{self, Postgres, StartOptions},
};
use serde_json::Value;
use sqlx::PgPool;
use time::OffsetDateTime;

use crate::commands::{announce, block_on, try_lock};

/// Time for a `rehead up` that is starting to start its Postgres.
const STARTING: Duration = Duration::from_secs(30);
/// Keys in one page of a query.
const KEYS_PER_PAGE: u32 = 1_000;

/// `rehead keys`
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Create a key and print it; it cannot be shown again
    Create {
        #[command(flatten)]
        key: KeyArgs,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// List keys, without their secrets
    List(AdminArgs),
    /// Revoke a key: it is refused at once, and for good
    Revoke {
        /// The key's id, `rh_` and 12 digits, as `rehead keys list` shows it
        id: KeyId,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// `rehead tenants`
#[derive(Debug, Subcommand)]
pub(crate) enum Tenants {
    /// List tenants with their shares, limits and jobs
    List(AdminArgs),
    /// Change a tenant's share or limits; takes effect at the next claim
    Set {
        #[command(flatten)]
        tenant: TenantArgs,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

pub(crate) fn keys(command: &Keys) -> anyhow::Result<()> {
    match command {
        Keys::Create { key, admin } => with_database(admin, async |pool| {
            let grant = Grant {
                tenant: key.tenant.clone(),
                name: key.name.clone(),
                role: key.role,
                expires_at: key.expires,
                requests_per_minute: key.requests_per_minute,
            };
            refuse_any(&grant.problems())?;
            let (row, text) = grant.create(pool).await.map_err(explain)?;
            if !admin.json {
                announce(&text);
                return Ok(());
            }
            let mut object = serde_json::to_value(row)?;
            object["value"] = text.into();
            announce_json(&object)
        }),
        Keys::List(admin) => with_database(admin, async |pool| list_keys(pool, admin).await),
        Keys::Revoke { id, admin } => with_database(admin, async |pool| {
            let Some(key) = db::keys::revoke(pool, id).await.map_err(explain)? else {
                let why = format!("there is no key `{id}`; see `rehead keys list`");
                return Err(Exit::NotFound.error(why));
            };
            if admin.json {
                return announce_json(&serde_json::to_value(key)?);
            }
            announce(&format!("{id} is revoked"));
            Ok(())
        }),
    }
}

fn refuse_any(problems: &[Problem]) -> anyhow::Result<()> {
    match problems.first() {
        Some(Problem { path, message, .. }) => bail!("--{path} {message}"),
        None => Ok(()),
    }
}

async fn list_keys(pool: &PgPool, admin: &AdminArgs) -> anyhow::Result<()> {
    let mut keys = Vec::new();
    loop {
        let page = Page {
            after: keys.last().map(|key: &db::keys::Key| key.id.clone()),
            limit: KEYS_PER_PAGE,
            descending: false,
        };
        let slice = db::keys::list(pool, page).await.map_err(explain)?;
        keys.extend(slice.rows);
        if !slice.has_more {
            break;
        }
    }
    if admin.json {
        return announce_json(&serde_json::to_value(keys)?);
    }
    announce("id\ttenant\trole\tname\tcreated\tlast_used\texpires\tstate");
    let now = OffsetDateTime::now_utc();
    for key in keys {
        let state = match (key.revoked_at, key.expires_at) {
            (Some(_), _) => "revoked",
            (None, Some(at)) if at <= now => "expired",
            _ => "valid",
        };
        let minute = |at: Option<OffsetDateTime>| at.map_or("never".to_owned(), minute);
        let (created, used, expires) = (
            minute(Some(key.created_at)),
            minute(key.last_used_at),
            minute(key.expires_at),
        );
        announce(&format!(
            "{}\t{}\t{}\t{}\t{created}\t{used}\t{expires}\t{state}",
            key.id, key.tenant, key.role, key.name
        ));
    }
    Ok(())
}

/// `2030-01-31T12:00Z`
fn minute(at: OffsetDateTime) -> String {
    format!("{}T{:02}:{:02}Z", at.date(), at.hour(), at.minute())
}

pub(crate) fn tenants(command: &Tenants) -> anyhow::Result<()> {
    let (Tenants::List(admin) | Tenants::Set { admin, .. }) = command;
    with_database(admin, async |pool| {
        if let Tenants::Set { tenant, .. } = command {
            let change = db::tenants::Change {
                weight: tenant.weight,
                max_running: tenant.max_running,
                max_queued: tenant.max_queued,
                paused: tenant.paused,
                requests_per_minute: tenant.requests_per_minute.map(own),
                max_stored_bytes: tenant.max_stored_bytes.map(own),
                max_streams: tenant.max_streams.map(own),
                max_waits: tenant.max_waits.map(own),
                max_predicts: tenant.max_predicts.map(own),
                max_uploads: tenant.max_uploads.map(own),
            };
            let changed = db::tenants::change(pool, &tenant.name, &change).await;
            if !changed.map_err(explain)? {
                let name = &tenant.name;
                let why = format!("there is no tenant `{name}`; see `rehead tenants list`");
                return Err(Exit::NotFound.error(why));
            }
        }
        let tenants = db::tenants::list(pool).await.map_err(explain)?;
        if admin.json {
            return announce_json(&serde_json::to_value(tenants)?);
        }
        announce("tenant\tweight\trunning\tmax_running\tqueued\tmax_queued\tpaused\tlimits");
        for tenant in &tenants {
            announce(&row(tenant));
        }
        Ok(())
    })
}

/// A line of the list of tenants; at its end, limits that are not those of the service.
fn row(tenant: &db::tenants::Tenant) -> String {
    let db::tenants::Tenant {
        name,
        weight,
        running,
        max_running,
        queued,
        max_queued,
        paused,
        overrides,
    } = tenant;
    let limits = [
        (
            "requests_per_minute",
            overrides.requests_per_minute.map(u64::from),
        ),
        ("max_stored_bytes", overrides.max_stored_bytes),
        ("max_streams", overrides.max_streams.map(u64::from)),
        ("max_waits", overrides.max_waits.map(u64::from)),
        ("max_predicts", overrides.max_predicts.map(u64::from)),
        ("max_uploads", overrides.max_uploads.map(u64::from)),
    ];
    let limits = limits
        .iter()
        .filter_map(|(name, limit)| Some(format!("{name}={}", (*limit)?)));
    let limits: Vec<String> = limits.collect();
    format!(
        "{name}\t{weight}\t{running}\t{max_running}\t{queued}\t{max_queued}\t{paused}\t{}",
        limits.join(" ")
    )
}

/// The limit of its own that a tenant gets; `None`: that of the service.
fn own(limit: Override) -> Option<u64> {
    match limit {
        Override::Default => None,
        Override::Of(number) => Some(number),
    }
}

fn announce_json(value: &Value) -> anyhow::Result<()> {
    announce(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A database, for the time of a command.
struct Database {
    url: String,
    /// A private server that the command has started, and the lock on its folder.
    started: Option<(Postgres, File)>,
}

impl Database {
    fn open(args: &AdminArgs) -> anyhow::Result<Self> {
        // In this order, as `rehead up` does.
        if let Some(url) = &args.database_url {
            let url = url.clone();
            return Ok(Self { url, started: None });
        }
        let Some(folder) = &args.data_dir else {
            bail!(
                "no database: give --data-dir, the folder of `rehead up`, or --database-url (or set DATABASE_URL)"
            );
        };
        let dir = folder.join("postgres");
        if !dir.is_dir() {
            bail!(
                "`{}` is not the data folder of a `rehead up`; check the path, or start `rehead up` there first",
                folder.display()
            );
        }
        Self::open_private(folder, &dir, args)
    }

    /// Uses the server of a running `rehead up`, or starts one.
    fn open_private(folder: &Path, dir: &Path, args: &AdminArgs) -> anyhow::Result<Self> {
        let Some(lock) = try_lock(folder)? else {
            let url = postgres::url_in(dir)?;
            return Ok(Self { url, started: None });
        };
        let postgres = Postgres::start(&StartOptions {
            bin: args.pg_bin.clone(),
            dir: dir.to_owned(),
            fsync: true,
        })?;
        let url = postgres.url();
        let started = Some((postgres, lock));
        Ok(Self { url, started })
    }

    async fn connect(&self, is_private: bool) -> anyhow::Result<PgPool> {
        let deadline = tokio::time::Instant::now() + STARTING;
        let pool = loop {
            match db::connect(&self.url, 1).await {
                Ok(pool) => break pool,
                // `rehead up` holds the lock before its Postgres runs.
                Err(_) if is_private && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(error) => {
                    let why = db::connect::explain(&self.url, &error);
                    return Err(Exit::Unavailable.error(why));
                }
            }
        };
        if self.started.is_some() {
            let migrated = db::migrate(&pool).await;
            migrated.context("cannot migrate the database")?;
        }
        Ok(pool)
    }
}

/// Runs a command on the database that its arguments name.
fn with_database(
    args: &AdminArgs,
    command: impl AsyncFnOnce(&PgPool) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let database = Database::open(args)?;
    block_on(async |_| {
        let pool = database.connect(args.database_url.is_none()).await?;
        let result = command(&pool).await;
        pool.close().await;
        result
    })
}

/// The error of a statement, with what to do where that is known.
fn explain(error: sqlx::Error) -> anyhow::Error {
    let code = error.as_database_error().and_then(|error| error.code());
    // Undefined table or column.
    if matches!(code.as_deref(), Some("42P01" | "42703")) {
        let why = "the database lacks tables of this version; run `rehead migrate` first";
        return Exit::Unavailable.error(why);
    }
    anyhow::Error::new(error).context("the database refused")
}
