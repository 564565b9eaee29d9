//! Claims work, holds its lease, runs a child, keeps what the child makes.
//!
//! A worker has slots for training (one, where it is not told otherwise) and one for validations (data sets and base
//! models), so that a long training holds up no upload. Every write carries the token of its claim; a worker that lost a claim kills its child and writes
//! nothing. In reading order: `attempt` (one try of a job), `validate`, `lease`, `sweeper`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use sqlx::PgPool;
use tokio::{
    sync::{Mutex, Notify},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::WorkArgs,
    db::{self, persist::persist, workers::State},
    domain::id::{JobId, WorkerId},
    objects::Objects,
    reaper,
};

mod attempt;
mod bundle;
mod cache;
mod capacity;
mod checkpoints;
mod folder;
mod health;
mod layout;
mod lease;
mod listen;
mod parent;
mod relay;
mod sample_report;
mod sweeper;
mod validate;
mod warm_trainer;
mod watchdog;

/// What the parts of one worker process share.
struct Worker {
    id: WorkerId,
    pool: PgPool,
    heartbeats: PgPool,
    objects: Objects,
    trainer_exe: PathBuf,
    args: WorkArgs,
    /// Of a child; `args.threads`, or a slot's share of the cores.
    threads: u32,
    folders: folder::Folders,
    cache: cache::Cache,
    warm_trainer: warm_trainer::WarmTrainer,
    health: health::Health,
    promises: capacity::Promises,
    /// Held from measuring memory until the claim's trainer has its promise.
    claiming: Mutex<()>,
    wakes: Wakes,
}

/// Rung by notifications. A ring that nobody waits for is kept for the next one who does, but for `control`.
#[derive(Default)]
struct Wakes {
    jobs: Notify,
    validations: Notify,
    /// The user of a running job asks for something: heartbeats look at once.
    control: Arc<Notify>,
    /// The connection to Postgres was lost for a while: every lease may only look dead.
    reconnected: Notify,
}

/// Runs a worker until `shutdown`: then nothing more is claimed, running trainers save their state, and their jobs go
/// back to the queue. Returns soon after `grace_ms` at the latest. Who cannot wait may exit: children die with the
/// process, and their leases run out.
///
/// # Errors
/// When the work folder cannot be made, the database refuses the worker, or a part of the worker panicked.
pub async fn run(
    pool: PgPool,
    objects: Objects,
    trainer_exe: PathBuf,
    args: &WorkArgs,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let starting = Worker::start(pool, objects, trainer_exe, args);
    let Some(started) = shutdown.run_until_cancelled(starting).await else {
        return Ok(());
    };
    let worker = Arc::new(started?);
    tracing::info!(worker.id = %worker.id, threads = worker.threads, device = %args.device, "worker started");
    // The background serves the slots until they have ended.
    let background_ends = CancellationToken::new();
    let mut background = JoinSet::new();
    background.spawn(until(
        background_ends.clone(),
        Arc::clone(&worker),
        |worker| async move { listen::run(&worker).await },
    ));
    background.spawn(until(
        background_ends.clone(),
        Arc::clone(&worker),
        |worker| async move {
            let (leases, reconnected) = (&worker.args.timing.leases, &worker.wakes.reconnected);
            reaper::run(&worker.pool, leases, Some(worker.id), reconnected).await;
        },
    ));
    background.spawn(until(
        background_ends.clone(),
        Arc::clone(&worker),
        |worker| async move { sweeper::run(&worker).await },
    ));
    let mut slots = JoinSet::new();
    for _ in 0..worker.args.admission.slots {
        slots.spawn(train(Arc::clone(&worker), shutdown.clone()));
    }
    slots.spawn(validate::run(Arc::clone(&worker), shutdown.clone()));

    tokio::select! {
        () = shutdown.cancelled() => {
            tracing::info!("stopping: nothing more is claimed, what runs is saved");
            let _ = db::workers::drain(&worker.pool, worker.id).await;
        }
        Some(Err(panicked)) = slots.join_next() => return Err(panicked).context("a slot of the worker ended"),
        Some(Err(panicked)) = background.join_next() => return Err(panicked).context("a part of the worker ended"),
    }
    while let Some(ended) = slots.join_next().await {
        ended.context("a slot of the worker ended")?;
    }
    background_ends.cancel();
    background.join_all().await;
    worker.warm_trainer.stop().await;
    let _ = tokio::time::timeout(
        Duration::from_secs(2),
        db::workers::stop(&worker.pool, worker.id),
    )
    .await;
    tracing::info!("worker stopped");
    Ok(())
}

/// Runs a part until it is told to end.
async fn until<F: Future<Output = ()>>(
    end: CancellationToken,
    worker: Arc<Worker>,
    part: impl FnOnce(Arc<Worker>) -> F,
) {
    end.run_until_cancelled(part(worker)).await;
}

impl Worker {
    async fn start(
        pool: PgPool,
        objects: Objects,
        trainer_exe: PathBuf,
        args: &WorkArgs,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&args.work_dir).with_context(|| {
            format!("cannot make the work folder `{}`", args.work_dir.display())
        })?;
        // Plans hold absolute paths.
        let work_dir = args
            .work_dir
            .canonicalize()
            .context("cannot resolve the work folder")?;
        let folders = folder::Folders::open(&work_dir.join("jobs"))
            .context("cannot open the folder of job folders")?;
        let cache = cache::Cache::open(&work_dir.join("cache"), args.cache_bytes)
            .context("cannot open the cache")?;
        // One for each slot, and one for validations: they carry nothing but heartbeats.
        let connect = || db::connect_beside(&pool, args.admission.slots + 1);
        let heartbeats = persist("reaching the database", connect)
            .await
            .context("cannot reach the database")?;
        let cores = std::thread::available_parallelism()
            .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
        let worker = Self {
            id: WorkerId::new(),
            pool,
            heartbeats,
            objects,
            warm_trainer: warm_trainer::WarmTrainer::new(
                trainer_exe.clone(),
                &args.device,
                args.timing.start(),
            ),
            health: health::Health::default(),
            promises: capacity::Promises::default(),
            claiming: Mutex::default(),
            trainer_exe,
            args: args.clone(),
            threads: if args.threads == 0 {
                (cores / args.admission.slots).max(1)
            } else {
                args.threads
            },
            folders,
            cache,
            wakes: Wakes::default(),
        };
        let row = db::workers::NewWorker {
            id: worker.id,
            host: std::fs::read_to_string("/proc/sys/kernel/hostname")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: args.device.clone(),
            slots: args.admission.slots,
        };
        let register = || db::workers::register(&worker.pool, &row);
        persist("registering the worker", register)
            .await
            .context("cannot register the worker")?;
        Ok(worker)
    }

    /// The poll interval, from half to one and a half of it: workers that started together do not ask together.
    fn poll_with_jitter(&self) -> Duration {
        self.args
            .timing
            .poll()
            .mul_f64(rand::random_range(0.5..1.5))
    }

    /// Claims the next job that fits beside what runs, and says at which boot time it asked.
    async fn claim(&self, device: &str) -> anyhow::Result<Option<Taken>> {
        let admission = &self.args.admission;
        let room = self
            .promises
            .room(device, admission.memory_margin_mb)
            .await
            .context("cannot measure what memory is free")?;
        let memory = (room.free_mb, room.capacity_mb);
        db::workers::offer(&self.pool, self.id, device, memory, admission.reserve()).await?;
        let offer = db::queue::Offer {
            worker: self.id,
            class: db::queue::DEFAULT_CLASS,
            device_mb: room.free_mb,
            capacity_mb: room.capacity_mb,
            reserve: admission.reserve(),
            ttl: self.args.timing.lease(),
        };
        let asked = lease::since_boot();
        let claimed = db::queue::claim(&self.pool, offer).await?;
        Ok(claimed.map(|claimed| Taken {
            promised: self.promises.make(claimed.job, claimed.device_mb),
            claimed,
            asked,
        }))
    }

    /// Takes the next job, if this worker may be given any: its device works, and it is not in quarantine.
    async fn next(&self, shutdown: &CancellationToken) -> anyhow::Result<Option<Taken>> {
        if let Some(reason) = self.health.quarantine() {
            self.tell(State::Quarantined, Some(&reason)).await;
            return Ok(None);
        }
        // A worker whose trainer does not work claims nothing, or it would fail every job in the queue in turn.
        let device = match shutdown
            .run_until_cancelled(self.warm_trainer.ready())
            .await
        {
            None => return Ok(None),
            Some(Ok(device)) => device,
            Some(Err(error)) => {
                self.tell(State::Unfit, Some(&error.to_string())).await;
                return Ok(None);
            }
        };
        self.tell(State::Active, None).await;
        // One slot after the other: what one is about to take is not free for the next.
        let _claiming = self.claiming.lock().await;
        if shutdown.is_cancelled() {
            return Ok(None);
        }
        self.claim(&device).await
    }
}

/// A claimed job.
struct Taken {
    claimed: db::queue::Claimed,
    /// The boot time at which it was asked for.
    asked: Duration,
    /// The memory it may take.
    promised: capacity::Promised,
}

/// A training slot: one job after the other, each in a trainer of its own.
async fn train(worker: Arc<Worker>, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        match worker.next(&shutdown).await {
            Ok(Some(taken)) => {
                // One ring may be of several jobs: let another slot look.
                if worker.args.admission.slots > 1 {
                    worker.wakes.jobs.notify_one();
                }
                attempt::run(&worker, &taken, &shutdown).await;
                tracing::debug!(job.id = %taken.claimed.job, "slot is free");
                continue;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("cannot take a job: {error:#}"),
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = worker.wakes.jobs.notified() => {}
            () = tokio::time::sleep(worker.poll_with_jitter()) => {}
        }
    }
}

/// The name of an attempt's folder, and of its objects.
fn hex(job: JobId) -> String {
    job.0.simple().to_string()
}
