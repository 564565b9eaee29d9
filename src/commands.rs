//! Starts the roles of the command line, and stops them: on SIGTERM or Ctrl-C gracefully, on a
//! second one at once.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::Write,
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Subcommand;
use futures_util::FutureExt as _;
use rehead::{
    config::{
        DatabaseArgs, GcArgs, GrantArgs, MetricsArgs, ServeArgs, StoreArgs, TenantArgs, UpArgs,
        WorkArgs, WorkDirArgs,
    },
    db,
    exit::Exit,
    garbage_collection::{self, Finding},
    http,
    objects::Objects,
    postgres::{self, StartOptions},
    reaper,
    telemetry::listener,
    worker,
};
use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

/// `rehead keys`
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Create a key and print it; it cannot be shown again
    Create {
        #[command(flatten)]
        database: DatabaseArgs,
        /// Name of the key's tenant, which is created if it does not exist
        #[arg(long)]
        tenant: String,
    },
}

/// `rehead database`
#[derive(Debug, Subcommand)]
pub(crate) enum Database {
    /// Give a role the rights that workers need, and take all others on Rehead's tables
    GrantWorker {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        grant: GrantArgs,
    },
}

/// `rehead tenants`
#[derive(Debug, Subcommand)]
pub(crate) enum Tenants {
    /// List tenants with their shares, limits and jobs
    List(DatabaseArgs),
    /// Change a tenant's share or limits; takes effect at the next claim
    Set {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        tenant: TenantArgs,
    },
}

/// Runs everything on one machine, in one folder.
pub(crate) fn up(args: &UpArgs) -> anyhow::Result<()> {
    let folder = make_data_dir(&args.data_dir)?;
    let _lock = lock(&folder)?;
    let (postgres, database_url) = match &args.database_url {
        Some(url) => (None, url.clone()),
        None => {
            let postgres = postgres::Supervised::start(StartOptions {
                bin: args.pg_bin.clone(),
                dir: folder.join("postgres"),
                fsync: true,
            })?;
            let url = postgres.url().to_owned();
            (Some(postgres), url)
        }
    };
    let store = StoreArgs {
        database_url,
        objects: folder.join("objects").display().to_string(),
        database_connections: 16,
        database_wait: Duration::from_secs(60),
    };
    let serve = ServeArgs {
        listen: args.listen,
        scratch: folder.join("scratch"),
        serving: args.serving.clone(),
        limits: args.limits.clone(),
        leases: args.work.timing.leases.clone(),
    };
    let result = block_on(async |shutdown| {
        let (pool, objects) = open(&store).await?;
        db::migrate(&pool)
            .await
            .context("cannot migrate the database")?;
        let listener = listen(&serve).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let written = folder.join("url");
        // A process that waits for the file must find the whole address in it.
        let staged = folder.join("url.part");
        let published =
            fs::write(&staged, format!("{url}\n")).and_then(|()| fs::rename(&staged, &written));
        published.with_context(|| format!("cannot write `{}`", written.display()))?;
        let state = http::AppState::new(pool.clone(), objects.clone(), trainer()?, &serve);
        announce(&format!("rehead is up, listening on {url}"));
        let served = http::serve(listener, state, shutdown.clone());
        let parts = worker::Parts {
            pool,
            objects,
            trainer_exe: trainer()?,
            work_dir: folder.join("work"),
        };
        let worked = worker::run(parts, &args.work, shutdown.clone());
        let both = both(served, worked, &shutdown).await;
        let _ = fs::remove_file(written);
        both
    });
    drop(postgres);
    result
}

pub(crate) fn serve(store: &StoreArgs, args: &ServeArgs) -> anyhow::Result<()> {
    block_on_opened(store, async |pool, objects, shutdown| {
        let listener = listen(args).await?;
        announce(&format!("listening on http://{}", listener.local_addr()?));
        let state = http::AppState::new(pool.clone(), objects, trainer()?, args);
        // A worker's listener notices lost connections; here the reaper notices slow answers.
        let never = Notify::new();
        tokio::select! {
            served = http::serve(listener, state, shutdown) => served,
            () = reaper::run(&pool, &args.leases, None, &never) => Ok(()),
        }
    })
}

pub(crate) fn work(
    store: &StoreArgs,
    folder: &WorkDirArgs,
    metrics: &MetricsArgs,
    args: &WorkArgs,
) -> anyhow::Result<()> {
    block_on_opened(store, async |pool, objects, shutdown| {
        if let Some(address) = metrics.metrics_listen {
            listener::start(address).await?;
        }
        let parts = worker::Parts {
            pool,
            objects,
            trainer_exe: trainer()?,
            work_dir: folder.work_dir.clone(),
        };
        worker::run(parts, args, shutdown).await
    })
}

pub(crate) fn migrate(args: &DatabaseArgs) -> anyhow::Result<()> {
    block_on(async |_| {
        let pool = connect_once(args).await?;
        db::migrate(&pool)
            .await
            .context("cannot migrate the database")
    })
}

pub(crate) fn database(command: Database) -> anyhow::Result<()> {
    let Database::GrantWorker { database, grant } = command;
    if grant.print {
        for statement in db::grants::statements(&grant.role) {
            announce(&format!("{statement};"));
        }
        return Ok(());
    }
    block_on(async |_| {
        let pool = connect_once(&database).await?;
        let granted = db::grants::grant_worker(&pool, &grant.role).await;
        granted.with_context(|| format!("cannot grant rights to `{}`", grant.role))
    })
}

/// Removes orphaned objects, or lists them: a line for each, and the total. Missing objects are
/// counted separately.
pub(crate) fn gc(store: &StoreArgs, args: &GcArgs) -> anyhow::Result<()> {
    block_on(async |_| {
        let (pool, objects) = open(store).await?;
        let grace = args.orphan;
        let (mut removals, mut bytes, mut missing) = (0_u64, 0, 0_u64);
        for finding in garbage_collection::find(&pool, &objects, grace).await? {
            if matches!(finding, Finding::Lost { .. }) {
                missing += 1;
            } else if args.dry_run
                || garbage_collection::remove(&pool, &objects, &finding, grace).await?
            {
                removals += 1;
                bytes += finding.bytes();
            }
            let text = finding.to_string();
            match args.json {
                true => announce(&json!({"finding": text, "bytes": finding.bytes()}).to_string()),
                false => announce(&text),
            }
        }
        if args.json {
            let total = json!({
                "dry_run": args.dry_run, "removed": removals, "bytes": bytes, "missing": missing,
            });
            announce(&total.to_string());
        } else {
            announce_total(args.dry_run, removals, bytes, missing);
        }
        Ok(())
    })
}

fn announce_total(dry_run: bool, removals: u64, bytes: u64, missing: u64) {
    let verb = if dry_run {
        "would be removed"
    } else {
        "removed"
    };
    let items = if removals == 1 { "item" } else { "items" };
    announce(&format!("{removals} {items}, {bytes} bytes {verb}"));
    if missing > 0 {
        announce(&format!(
            "{missing} row(s) without objects: restore them from a backup, or delete those files and models"
        ));
    }
}

pub(crate) fn keys(command: Keys) -> anyhow::Result<()> {
    let Keys::Create { database, tenant } = command;
    block_on(async |_| {
        let pool = connect_once(&database).await?;
        let tenant_id = db::tenants::find_or_create(&pool, &tenant).await?;
        let key = http::NewKey::new();
        db::keys::create(&pool, tenant_id, &tenant, &key.prefix, &key.sha256).await?;
        announce(&key.text);
        Ok(())
    })
}

pub(crate) fn tenants(command: Tenants) -> anyhow::Result<()> {
    let (Tenants::List(database) | Tenants::Set { database, .. }) = &command;
    block_on(async |_| {
        let pool = connect_once(database).await?;
        if let Tenants::Set { tenant, .. } = &command {
            let change = db::tenants::Change {
                weight: tenant.weight,
                max_running: tenant.max_running,
                max_queued: tenant.max_queued,
                paused: tenant.paused,
            };
            if !db::tenants::change(&pool, &tenant.name, &change).await? {
                bail!(
                    "there is no tenant `{}`; see `rehead tenants list`",
                    tenant.name
                );
            }
        }
        announce("tenant\tweight\trunning\tmax_running\tqueued\tmax_queued\tpaused");
        for tenant in db::tenants::list(&pool).await? {
            let db::tenants::Tenant {
                name,
                weight,
                running,
                max_running,
                queued,
                max_queued,
                paused,
            } = tenant;
            announce(&format!(
                "{name}\t{weight}\t{running}\t{max_running}\t{queued}\t{max_queued}\t{paused}"
            ));
        }
        Ok(())
    })
}

pub(crate) fn openapi(json: bool) -> anyhow::Result<()> {
    let description = http::openapi();
    let text = match json {
        true => description.to_pretty_json().map_err(anyhow::Error::new),
        false => description.to_yaml().map_err(anyhow::Error::new),
    };
    announce(
        text.context("cannot write the OpenAPI description")?
            .trim_end(),
    );
    Ok(())
}

/// Runs a client command. A signal ends it at once; what it requested continues in the service.
pub(crate) fn client(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(command)
}

/// Replaces this process by the trainer, for debugging.
pub(crate) fn child(role: &str, folder: Option<&Path>) -> anyhow::Result<()> {
    let trainer = trainer()?;
    let error = Command::new(&trainer).arg(role).args(folder).exec();
    Err(error).with_context(|| format!("cannot run `{}`", trainer.display()))
}

/// The executable that links torch, beside this one.
fn trainer() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("rehead-trainer");
    if !path.exists() {
        bail!(
            "`{}` does not exist; install `rehead-trainer` in the folder of `rehead`",
            path.display()
        );
    }
    Ok(path)
}

/// Creates the folder and returns its absolute path. Only its owner can list it; if that is root,
/// other users can pass through, because Postgres refuses to run as root and gets another user.
fn make_data_dir(dir: &Path) -> anyhow::Result<PathBuf> {
    let is_root = nix::unistd::geteuid().is_root();
    let mode = if is_root { 0o711 } else { 0o700 };
    let made = DirBuilder::new().recursive(true).mode(mode).create(dir);
    made.and_then(|()| dir.canonicalize())
        .with_context(|| format!("cannot create the data folder `{}`", dir.display()))
}

/// Locks the folder for one `rehead up` at a time. The lock ends with the process, however it ends.
fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let file =
        File::create(&path).with_context(|| format!("cannot create `{}`", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another `rehead up` runs in `{}`; stop it, or choose another --data-dir",
            folder.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock `{}`", path.display()))
        }
    }
}

/// The error of a database that cannot be used.
fn unusable(why: &str) -> anyhow::Error {
    Exit::Unavailable.error(why)
}

/// Connects to a database for a few statements.
async fn connect_once(database: &DatabaseArgs) -> anyhow::Result<sqlx::PgPool> {
    let url = &database.database_url;
    let pool = db::connect(url, 1).await;
    pool.map_err(|error| unusable(&db::connect::explain(url, &error)))
}

async fn open(store: &StoreArgs) -> anyhow::Result<(sqlx::PgPool, Objects)> {
    let url = &store.database_url;
    let pool =
        db::connect::connect_within(store.database_wait, url, store.database_connections).await;
    let pool = pool.map_err(|error| unusable(&db::connect::explain(url, &error)))?;
    Ok((pool, Objects::open(&store.objects)?))
}

async fn listen(args: &ServeArgs) -> anyhow::Result<TcpListener> {
    TcpListener::bind(args.listen)
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
                "cannot listen on {}: another process uses this port; stop it, or choose another --listen",
                args.listen
            ),
            _ => anyhow::Error::new(error).context(format!(
                "cannot listen on {}; choose another --listen",
                args.listen
            )),
        })
}

/// Runs server and worker until both have ended; when one ends, the other is shut down.
async fn both(
    served: impl Future<Output = anyhow::Result<()>>,
    worked: impl Future<Output = anyhow::Result<()>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let stop = |_: &anyhow::Result<()>| shutdown.cancel();
    let (served, worked) = tokio::join!(served.inspect(stop), worked.inspect(stop));
    served.and(worked)
}

/// Runs a role until it ends. The first signal cancels its token, the second ends the process.
fn block_on(role: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let token = shutdown.clone();
        tokio::spawn(async move {
            for first in [true, false] {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                if !first {
                    // Children die with this process; Postgres stops by itself.
                    std::process::exit(130);
                }
                tracing::info!("shutting down; signal again to exit at once");
                token.cancel();
            }
        });
        role(shutdown).await
    })
}

/// Runs a role once the database and the object store are open.
fn block_on_opened(
    store: &StoreArgs,
    role: impl AsyncFnOnce(sqlx::PgPool, Objects, CancellationToken) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    block_on(async |shutdown| {
        let Some(opened) = shutdown.run_until_cancelled(open(store)).await else {
            return Ok(());
        };
        let (pool, objects) = opened?;
        role(pool, objects, shutdown).await
    })
}

/// Prints a line of the command's result. A closed standard output is ignored.
pub(crate) fn announce(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
