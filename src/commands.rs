//! Starts the roles of the command line, and stops them: on SIGTERM or Ctrl-C gracefully, on a
//! second one at once.

use std::{
    fs::{self, File, TryLockError},
    io::Write,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Subcommand;
use futures_util::FutureExt as _;
use nix::sys::{
    prctl,
    stat::{Mode, umask},
};
use rehead::{
    config::{
        self, DatabaseArgs, GcArgs, GrantArgs, MetricsArgs, OutgoingArgs, SandboxArgs, ServeArgs,
        StoreArgs, UpArgs, WorkArgs, WorkDirArgs,
    },
    db,
    exit::Exit,
    garbage_collection::{self, Finding},
    http::{self, Access},
    objects::Objects,
    outgoing::Outgoing,
    postgres::{self, StartOptions},
    private_folder, reaper,
    sandbox::Sandbox,
    serving::predictor::Predictor,
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

/// Runs everything on one machine, in one folder.
pub(crate) fn up(args: &UpArgs) -> anyhow::Result<()> {
    let folder = make_data_dir(args)?;
    close_new_files();
    let sandbox = open_sandbox(&args.work.sandbox)?;
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
        scratch: None,
        serving: args.serving.clone(),
        limits: args.limits.clone(),
        leases: args.work.timing.leases.clone(),
        access: args.access.clone(),
        sandbox: args.work.sandbox.clone(),
        outgoing: args.outgoing.clone(),
        webhooks: args.webhooks.clone(),
    };
    let create_key = create_key_command(args);
    let result = block_on(async |shutdown| {
        let (pool, objects) = open(&store).await?;
        db::migrate(&pool)
            .await
            .context("cannot migrate the database")?;
        serve_metrics(&serve.access.metrics).await?;
        let listener = listen(&serve).await?;
        let address = listener.local_addr()?;
        let url = format!("http://{address}");
        let scratch = open_folder(&folder.join("scratch"))?;
        let state = state((&pool, &objects, &sandbox), &scratch, &serve)?;
        let access = check_access(&state, address, &create_key).await?;
        let written = write_url(&folder, &url)?;
        announce(&format!("rehead is up, listening on {url}"));
        announce_access(access, &create_key);
        let served = http::serve(listener, state, shutdown.clone());
        let parts = worker::Parts {
            pool,
            objects,
            outgoing: Outgoing::new(&args.outgoing),
            sandbox,
            work_dir: open_folder(&folder.join("work"))?,
        };
        let worked = worker::run(parts, &args.work, shutdown.clone());
        let both = both(served, worked, &shutdown).await;
        let _ = fs::remove_file(written);
        both
    });
    drop(postgres);
    result
}

/// Writes the address into the data folder, where other processes look for it.
fn write_url(folder: &Path, url: &str) -> anyhow::Result<PathBuf> {
    let written = folder.join("url");
    // A process that waits for the file must find the whole address in it.
    let staged = folder.join("url.part");
    let published =
        fs::write(&staged, format!("{url}\n")).and_then(|()| fs::rename(&staged, &written));
    published.with_context(|| format!("cannot write `{}`", written.display()))?;
    Ok(written)
}

pub(crate) fn serve(store: &StoreArgs, args: &ServeArgs) -> anyhow::Result<()> {
    close_new_files();
    let sandbox = open_sandbox(&args.sandbox)?;
    let scratch = state_folder(args.scratch.as_deref(), "serve")?;
    block_on_opened(store, async |pool, objects, shutdown| {
        serve_metrics(&args.access.metrics).await?;
        let listener = listen(args).await?;
        let address = listener.local_addr()?;
        let state = state((&pool, &objects, &sandbox), &scratch, args)?;
        let access = check_access(&state, address, CREATE_KEY);
        let Some(access) = shutdown.run_until_cancelled(access).await else {
            return Ok(());
        };
        announce(&format!("listening on http://{address}"));
        announce_access(access?, CREATE_KEY);
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
    outgoing: &OutgoingArgs,
    folder: &WorkDirArgs,
    metrics: &MetricsArgs,
    args: &WorkArgs,
) -> anyhow::Result<()> {
    close_new_files();
    let sandbox = open_sandbox(&args.sandbox)?;
    let work_dir = state_folder(folder.work_dir.as_deref(), "work")?;
    block_on_opened(store, async |pool, objects, shutdown| {
        serve_metrics(metrics).await?;
        let parts = worker::Parts {
            pool,
            objects,
            outgoing: Outgoing::new(outgoing),
            sandbox,
            work_dir,
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
    close_new_files();
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

/// The sandbox of the trainer's processes; logs what it enforces. From here on no other process may
/// look into this one: it knows the database's password.
fn open_sandbox(args: &SandboxArgs) -> anyhow::Result<Sandbox> {
    let sandbox = Sandbox::open(args, &trainer()?)?;
    sandbox.report();
    prctl::set_dumpable(false).context("cannot hide this process' memory from others")?;
    Ok(sandbox)
}

/// Makes every file and folder that this process creates one that only its user may open.
fn close_new_files() {
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
}

/// The state of the API, with its temporary files in `scratch`.
fn state(
    (pool, objects, sandbox): (&sqlx::PgPool, &Objects, &Sandbox),
    scratch: &Path,
    args: &ServeArgs,
) -> anyhow::Result<http::AppState> {
    let predictor = Predictor::new(sandbox.clone(), objects.clone(), scratch, &args.serving)?;
    let (pool, objects) = (pool.clone(), objects.clone());
    Ok(http::AppState::new(pool, objects, predictor, args))
}

/// Opens the folder that was given, or else `name` in the user's state folder.
fn state_folder(given: Option<&Path>, name: &str) -> anyhow::Result<PathBuf> {
    let folder = match (given, config::state_folder()) {
        (Some(given), _) => given.to_owned(),
        (None, Some(state)) => state.join(name),
        (None, None) => bail!(
            "there is no folder for state, because neither XDG_STATE_HOME nor HOME is an absolute path; \
             set one, or give --work-dir (of a worker) or --scratch (of a server)"
        ),
    };
    open_folder(&folder)
}

fn open_folder(folder: &Path) -> anyhow::Result<PathBuf> {
    private_folder::open(folder).with_context(|| format!("cannot use `{}`", folder.display()))
}

/// Opens the data folder. If root starts a private Postgres, the group of its user may pass
/// through: Postgres refuses to run as root.
fn make_data_dir(args: &UpArgs) -> anyhow::Result<PathBuf> {
    let folder = open_folder(&args.data_dir)?;
    if args.database_url.is_none()
        && let Some(group) = postgres::group()?
    {
        private_folder::let_pass(&folder, group)
            .with_context(|| format!("cannot use `{}`", folder.display()))?;
    }
    Ok(folder)
}

/// Locks the folder for one `rehead up` at a time. The lock ends with the process, however it ends.
fn lock(folder: &Path) -> anyhow::Result<File> {
    try_lock(folder)?.with_context(|| {
        format!(
            "another `rehead up` runs in `{}`; stop it, or choose another --data-dir",
            folder.display()
        )
    })
}

/// As `lock`; `None` while another process holds it.
pub(crate) fn try_lock(folder: &Path) -> anyhow::Result<Option<File>> {
    let path = folder.join("lock");
    let file =
        File::create(&path).with_context(|| format!("cannot create `{}`", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
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

/// The command that creates the first key, where `DATABASE_URL` names the database.
const CREATE_KEY: &str = "rehead keys create --tenant default --role admin";

/// The command that creates the first key of `rehead up`.
fn create_key_command(args: &UpArgs) -> String {
    if args.database_url.is_some() {
        return CREATE_KEY.to_owned();
    }
    let folder = args.data_dir.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    let folder = if folder.chars().all(is_plain) {
        folder
    } else {
        format!("'{}'", folder.replace('\'', r"'\''"))
    };
    format!("{CREATE_KEY} --data-dir {folder}")
}

/// Refuses an address that other machines reach as long as there is no key.
async fn check_access(
    state: &http::AppState,
    address: SocketAddr,
    create_key: &str,
) -> anyhow::Result<Access> {
    let access = http::access(state, address).await?;
    if access == Access::Nobody && !address.ip().is_loopback() {
        bail!(
            "cannot listen on {address} without API keys, because other machines can reach it: create one with \
             `{create_key}`, or listen on 127.0.0.1"
        );
    }
    Ok(access)
}

fn announce_access(access: Access, create_key: &str) {
    match access {
        Access::Open => announce(&format!(
            "open to every process of this machine until there is an API key; `{create_key}` creates one"
        )),
        Access::Nobody => announce(&format!(
            "every request needs an API key, and there is none; `{create_key}` creates one"
        )),
        Access::Keys => {}
    }
}

/// Serves metrics without a key, if that was asked for.
async fn serve_metrics(args: &MetricsArgs) -> anyhow::Result<()> {
    if let Some(address) = args.metrics_listen {
        listener::start(address).await?;
    }
    Ok(())
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
pub(crate) fn block_on(
    role: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
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
