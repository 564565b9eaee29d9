//! Claims work, holds its lease, runs a child on it, and stores what the child makes.
//!
//! A worker has slots for training, one for validations (data sets and base models), so that a long
//! training delays no upload, and one for exports. Every write carries the token of its claim; a
//! worker that lost a lease kills its child and writes nothing. In reading order: `slot` (claims a
//! job), `kinds` (does the work), `lease`, `sweeper`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::{context::Worker, slot::Slot, status::Status};
use crate::{
    config::WorkArgs,
    db::{self, persist::persist},
    domain::id::WorkerId,
    objects::Objects,
    outgoing::Outgoing,
    reaper,
    sandbox::Sandbox,
    telemetry::recorder,
};

mod bundle;
mod cache;
mod checkpoints;
mod context;
mod devices;
mod fault;
mod files;
mod folder;
mod health;
mod kinds;
mod layout;
mod lease;
mod listen;
mod measure;
mod memory;
mod parent;
mod relay;
mod results;
mod sample_report;
mod slot;
mod status;
mod sweeper;
mod warm_trainer;
mod watchdog;

/// The resources that a worker is started with.
pub struct Parts {
    pub pool: PgPool,
    pub objects: Objects,
    pub outgoing: Outgoing,
    pub sandbox: Sandbox,
    /// An absolute path.
    pub work_dir: PathBuf,
}

/// Runs a worker until `shutdown`: then nothing more is claimed, running trainers save their state,
/// and their jobs go back to the queue. Returns at most a little after `grace_ms`. A process that
/// cannot wait may exit: children die with it, and its leases expire.
///
/// # Errors
/// A folder in the work folder cannot be created, the database refuses the worker, or a part of it
/// panicked.
pub async fn run(parts: Parts, args: &WorkArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let starting = start(parts, args);
    let Some(started) = shutdown.run_until_cancelled(starting).await else {
        return Ok(());
    };
    let (worker, slots) = started?;
    let worker = Arc::new(worker);
    tracing::info!(worker.id = %worker.id, threads = worker.threads, slots = slots.len(), "worker started");
    // The background serves the slots until they have ended.
    let background_ends = CancellationToken::new();
    let mut background = tokio::spawn({
        let (worker, ends) = (Arc::clone(&worker), background_ends.clone());
        let slots = slots.clone();
        async move { ends.run_until_cancelled(background(&worker, &slots)).await }
    });
    let mut running = JoinSet::new();
    for slot in &slots {
        running.spawn(train(Arc::clone(&worker), slot.clone(), shutdown.clone()));
    }
    running.spawn(kinds::run(Arc::clone(&worker), shutdown.clone()));

    tokio::select! {
        () = shutdown.cancelled() => {
            tracing::info!("shutting down: claiming nothing more, saving what runs");
            let _ = db::workers::drain(&worker.pool, worker.id).await;
        }
        Some(Err(panicked)) = running.join_next() => return Err(panicked).context("a slot of the worker panicked"),
        Err(panicked) = &mut background => return Err(panicked).context("a part of the worker panicked"),
    }
    while let Some(ended) = running.join_next().await {
        ended.context("a slot of the worker panicked")?;
    }
    background_ends.cancel();
    background.await.context("a part of the worker panicked")?;
    for slot in &slots {
        slot.warm_trainer.stop().await;
    }
    let stop = db::workers::stop(&worker.pool, worker.id);
    let _ = tokio::time::timeout(Duration::from_secs(2), stop).await;
    tracing::info!("worker stopped");
    Ok(())
}

async fn start(parts: Parts, args: &WorkArgs) -> anyhow::Result<(Worker, Vec<Slot>)> {
    let Parts {
        pool,
        objects,
        outgoing,
        sandbox,
        work_dir,
    } = parts;
    recorder::install()?;
    let folders = folder::Folders::open(&work_dir.join("jobs"), sandbox.clone())
        .with_context(|| format!("cannot open `{}`", work_dir.join("jobs").display()))?;
    let folders = Arc::new(folders);
    let sources = (objects.clone(), sandbox.clone());
    let cache = cache::Cache::open(&work_dir.join("cache"), args.cache_bytes, sources)
        .with_context(|| format!("cannot open `{}`", work_dir.join("cache").display()))?;
    let devices = devices::resolve(&args.device, &sandbox, args.timing.start).await;
    let slots = Slot::of_devices(&devices, args, (&sandbox, &folders));
    let n_slots = u32::try_from(slots.len()).context("too many slots")?;
    // One connection for each slot, one each for validations, exports, rankings and pushes, and
    // those of downloads.
    let connections = n_slots + 4 + args.downloads.downloads;
    let connect = || db::connect_beside(&pool, connections);
    let heartbeats = persist("reaching the database", connect)
        .await
        .context("cannot reach the database")?;
    let id = WorkerId::new();
    let worker = Worker {
        id,
        pool,
        heartbeats,
        objects,
        outgoing,
        sandbox,
        args: args.clone(),
        threads: threads(args.threads, n_slots),
        folders,
        work_dir,
        devices: devices.clone(),
        cache,
        status: Status::new(id, &devices, args.admission.slots),
        wakeups: listen::Wakeups::default(),
    };
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let row = db::workers::NewWorker {
        id,
        host: hostname.unwrap_or_default().trim().to_owned(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: devices.join(","),
        slots: n_slots,
    };
    let register = || db::workers::register(&worker.pool, &row);
    persist("registering the worker", register)
        .await
        .context("cannot register the worker")?;
    Ok((worker, slots))
}

/// Threads of one child: as set, or a slot's share of the cores.
fn threads(set: u32, slots: u32) -> u32 {
    if set > 0 {
        return set;
    }
    let cores = std::thread::available_parallelism()
        .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    (cores / slots).max(1)
}

/// Serves the slots: notifications, the reaper, garbage collection, metrics. Never returns.
async fn background(worker: &Worker, slots: &[Slot]) {
    let Worker {
        pool,
        objects,
        args,
        wakeups,
        ..
    } = worker;
    tokio::join!(
        listen::run(pool, wakeups),
        reaper::run(
            pool,
            &args.timing.leases,
            Some(worker.id),
            &wakeups.reconnected
        ),
        sweeper::run(pool, objects, args),
        measure::run(worker, slots),
    );
}

/// Trains in one slot until `shutdown`: one job after the other, each in a trainer of its own.
async fn train(worker: Arc<Worker>, slot: Slot, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        match slot.next(&worker, &shutdown).await {
            Ok(Some(taken)) => {
                // One notification may stand for several jobs: wake another slot.
                worker.wakeups.jobs.notify_one();
                kinds::train::run(&worker, &slot, &taken, &shutdown).await;
                tracing::debug!(job.id = %taken.claimed.job, "slot is free");
                continue;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("cannot claim a job: {error:#}"),
        }
        worker.wait_for_work(&worker.wakeups.jobs, &shutdown).await;
    }
}
