//! What each role of the command line starts, and how it stops: on SIGTERM or Ctrl-C in good order, on a second one at
//! once.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{IsTerminal, Write},
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Subcommand;
use rehead::{
    config::{DatabaseArgs, GcArgs, LogArgs, ServeArgs, StoreArgs, TenantArgs, UpArgs, WorkArgs},
    db,
    garbage_collection::{self, Finding},
    http,
    objects::Objects,
    postgres::{self, StartOptions},
    reaper, worker,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// `rehead keys`
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make a key and print it, once
    Create {
        #[command(flatten)]
        database: DatabaseArgs,
        /// Who the key is for; made when new
        #[arg(long)]
        tenant: String,
    },
}

/// `rehead tenants`
#[derive(Debug, Subcommand)]
pub(crate) enum Tenants {
    /// Print every tenant with its share, its caps and what it has
    List(DatabaseArgs),
    /// Change a tenant's share or caps; from the next claim on
    Set {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        tenant: TenantArgs,
    },
}

/// Logs to standard error, so that standard output stays the command's own.
pub(crate) fn start_log(args: &LogArgs) {
    let filter = EnvFilter::try_new(&args.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if args.log_json {
        log.json().init();
    } else {
        log.with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .init();
    }
}

/// Everything on one machine, in one folder.
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
        database_wait_ms: 60_000,
    };
    let serve = ServeArgs {
        listen: args.listen,
        scratch: folder.join("scratch"),
        limits: args.limits.clone(),
        leases: args.timing.leases.clone(),
    };
    let work = WorkArgs {
        work_dir: folder.join("work"),
        device: args.device.clone(),
        threads: args.threads,
        cache_bytes: args.cache_bytes,
        steps_kept: args.steps_kept,
        steps_days: args.steps_days,
        admission: args.admission.clone(),
        timing: args.timing.clone(),
        data: args.data.clone(),
    };
    let result = block_on(async |shutdown| {
        let (pool, objects) = open(&store).await?;
        db::migrate(&pool)
            .await
            .context("cannot migrate the database")?;
        let listener = listen(&serve).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let written = folder.join("url");
        // Whoever waits for the file finds the whole address in it.
        let staged = folder.join("url.part");
        let published =
            fs::write(&staged, format!("{url}\n")).and_then(|()| fs::rename(&staged, &written));
        published.with_context(|| format!("cannot write {}", written.display()))?;
        let state = http::AppState::new(pool.clone(), objects.clone(), trainer()?, &serve);
        announce(&format!("rehead is up, listening on {url}"));
        let served = http::serve(listener, state, shutdown.clone());
        let worked = worker::run(pool, objects, trainer()?, &work, shutdown.clone());
        let both = both(served, worked, &shutdown).await;
        let _ = fs::remove_file(written);
        both
    });
    drop(postgres);
    result
}

pub(crate) fn serve(store: &StoreArgs, args: &ServeArgs) -> anyhow::Result<()> {
    block_on(async |shutdown| {
        let Some(opened) = shutdown.run_until_cancelled(open(store)).await else {
            return Ok(());
        };
        let (pool, objects) = opened?;
        let listener = listen(args).await?;
        announce(&format!("listening on http://{}", listener.local_addr()?));
        let state = http::AppState::new(pool.clone(), objects, trainer()?, args);
        // Workers ring on lost connections; here a slow answer is what tells.
        let never = Notify::new();
        tokio::select! {
            served = http::serve(listener, state, shutdown) => served,
            () = reaper::run(&pool, &args.leases, None, &never) => Ok(()),
        }
    })
}

pub(crate) fn work(store: &StoreArgs, args: &WorkArgs) -> anyhow::Result<()> {
    block_on(async |shutdown| {
        let Some(opened) = shutdown.run_until_cancelled(open(store)).await else {
            return Ok(());
        };
        let (pool, objects) = opened?;
        worker::run(pool, objects, trainer()?, args, shutdown).await
    })
}

pub(crate) fn migrate(args: &DatabaseArgs) -> anyhow::Result<()> {
    block_on(async |_| {
        let pool = db::connect(&args.database_url, 1)
            .await
            .context("cannot reach the database")?;
        db::migrate(&pool)
            .await
            .context("cannot migrate the database")
    })
}

/// Removes what nothing needs, or says what that would be: a line for each thing, and the sum. What is missing is counted
/// apart: there is nothing to be removed.
pub(crate) fn gc(store: &StoreArgs, args: &GcArgs) -> anyhow::Result<()> {
    block_on(async |_| {
        let (pool, objects) = open(store).await?;
        let grace = Duration::from_millis(args.orphan_ms);
        let (mut things, mut bytes, mut missing) = (0_u64, 0, 0_u64);
        for finding in garbage_collection::find(&pool, &objects, grace).await? {
            let is_missing = matches!(finding, Finding::Lost { .. });
            let removed = !is_missing
                && (args.dry_run
                    || garbage_collection::remove(&pool, &objects, &finding, grace).await?);
            announce(&finding.to_string());
            missing += u64::from(is_missing);
            if removed {
                things += 1;
                bytes += finding.bytes();
            }
        }
        let verb = if args.dry_run {
            "would be removed"
        } else {
            "removed"
        };
        announce(&format!("{things} things, {bytes} bytes {verb}"));
        if missing > 0 {
            announce(&format!(
                "{missing} objects that rows name are missing: restore them, or delete those files and models"
            ));
        }
        Ok(())
    })
}

pub(crate) fn keys(command: Keys) -> anyhow::Result<()> {
    let Keys::Create { database, tenant } = command;
    block_on(async |_| {
        let pool = db::connect(&database.database_url, 1)
            .await
            .context("cannot reach the database")?;
        let tenant_id = db::tenants::find_or_create(&pool, &tenant).await?;
        let key = http::NewKey::new();
        db::keys::create(&pool, tenant_id, &tenant, &key.prefix, &key.sha256).await?;
        announce(&key.text);
        Ok(())
    })
}

pub(crate) fn tenants(command: Tenants) -> anyhow::Result<()> {
    let url = match &command {
        Tenants::List(database) | Tenants::Set { database, .. } => database.database_url.clone(),
    };
    block_on(async |_| {
        let pool = db::connect(&url, 1)
            .await
            .context("cannot reach the database")?;
        if let Tenants::Set { tenant, .. } = command {
            let change = db::tenants::Change {
                weight: tenant.weight,
                max_running: tenant.max_running,
                max_queued: tenant.max_queued,
                paused: tenant.paused,
            };
            if !db::tenants::change(&pool, &tenant.name, &change).await? {
                bail!("there is no tenant `{}`", tenant.name);
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

pub(crate) fn openapi() -> anyhow::Result<()> {
    announce(
        http::openapi()
            .to_yaml()
            .context("cannot write YAML")?
            .trim_end(),
    );
    Ok(())
}

/// Runs a command of the client. A signal simply ends it: what it asked for goes on in the service.
pub(crate) fn client(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(command)
}

/// Becomes the trainer, for a person who runs a job folder by hand.
pub(crate) fn child(role: &str, folder: Option<&Path>) -> anyhow::Result<()> {
    let trainer = trainer()?;
    let error = Command::new(&trainer).arg(role).args(folder).exec();
    Err(error).with_context(|| format!("cannot run {}", trainer.display()))
}

/// The executable that works with torch, beside this one.
fn trainer() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("rehead-trainer");
    if !path.exists() {
        bail!(
            "no {}: install `rehead-trainer` beside `rehead`",
            path.display()
        );
    }
    Ok(path)
}

/// Makes the folder and gives its absolute path. Only its owner can look into it; when that is root, others can pass
/// through, because Postgres refuses to run as root and gets another user.
fn make_data_dir(dir: &Path) -> anyhow::Result<PathBuf> {
    let mode = if nix::unistd::geteuid().is_root() {
        0o711
    } else {
        0o700
    };
    let made = DirBuilder::new().recursive(true).mode(mode).create(dir);
    made.and_then(|()| dir.canonicalize())
        .with_context(|| format!("cannot make {}", dir.display()))
}

/// One `rehead up` at a time in a folder. The lock goes with the process, however it ends.
fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another `rehead up` runs in {}; stop it, or choose another --data-dir",
            folder.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

async fn open(store: &StoreArgs) -> anyhow::Result<(sqlx::PgPool, Objects)> {
    let wait = Duration::from_millis(store.database_wait_ms);
    let pool = db::connect_within(wait, &store.database_url, store.database_connections)
        .await
        .context("cannot reach the database")?;
    Ok((pool, Objects::open(&store.objects)?))
}

async fn listen(args: &ServeArgs) -> anyhow::Result<TcpListener> {
    TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))
}

/// Runs server and worker until both have ended; when one ends, the other is told to.
async fn both(
    served: impl Future<Output = anyhow::Result<()>>,
    worked: impl Future<Output = anyhow::Result<()>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let stop_after = async |part: anyhow::Result<()>| {
        shutdown.cancel();
        part
    };
    let (served, worked) = tokio::join!(async { stop_after(served.await).await }, async {
        stop_after(worked.await).await
    });
    served.and(worked)
}

/// Runs a role until it ends; the token it gets is cancelled by the first signal, the process exits at the second.
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
                    // Children die with us; Postgres stops by itself.
                    std::process::exit(130);
                }
                tracing::info!("stopping; once more to stop at once");
                token.cancel();
            }
        });
        role(shutdown).await
    })
}

/// The command's own words, on standard output. Nobody may be reading: that is no reason to stop.
fn announce(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
