//! One attempt: runs a claimed job from its folder to its last row. The trainer lives exactly as
//! long as the attempt.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    child::{Child, Exit, Output},
    db::{
        self,
        persist::persist,
        queue::{Claimed, NewModel, Trace},
        work,
    },
    domain::{
        job::{Failure, JobStatus, Outcome},
        progress::Progress,
        work::{Assignment, TrainerControl},
    },
    garbage_collection,
    sandbox::WORK,
    telemetry::{
        metrics::{
            ATTEMPT_SECONDS, ATTEMPTS, JOB_START_SECONDS, JOBS_ENDED, LEASES_LOST, SLOTS_BUSY,
        },
        traces,
    },
    worker::{
        bundle,
        context::Worker,
        fault::Fault,
        folder::Folder,
        layout,
        lease::Lease,
        relay::{Handled, Relay},
        results, sample_report,
        slot::{Slot, Taken},
        watchdog::Watchdog,
    },
};

/// Slowest rate, in bytes per second, at which the object store may deliver; plus `stall_ms`.
const BYTES_PER_SECOND: u64 = 1 << 20;
/// Time that a trainer has to exit after its last message.
const EXIT_TIME: Duration = Duration::from_secs(10);

/// One attempt of a job, under its lease.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    worker: &'a Worker,
    slot: &'a Slot,
    taken: &'a Taken,
    lease: &'a Lease,
    shutdown: &'a CancellationToken,
}

/// Resources that an attempt holds until it has ended.
#[derive(Default)]
struct Held {
    trainer: Option<Child>,
    /// Removed only after the trainer that writes there has ended.
    folder: Option<Folder>,
    /// The model, if it made one.
    model: Option<NewModel>,
}

/// Runs an attempt to its end, as a trace of its own that is linked to the request of its job.
pub(crate) async fn run(worker: &Worker, slot: &Slot, taken: &Taken, shutdown: &CancellationToken) {
    if !cfg!(feature = "otel") {
        return run_attempt(worker, slot, taken, shutdown).await;
    }
    let (job, token) = (taken.claimed.job, taken.claimed.token);
    let span = tracing::info_span!(parent: None, "attempt", job.id = %job, attempt.n = token);
    let attempt = run_attempt(worker, slot, taken, shutdown);
    attempt.instrument(span.clone()).await;
    match db::traces::of_job(&worker.pool, job).await {
        Ok(request) => traces::link(&span, &request.unwrap_or_default()),
        Err(error) => tracing::debug!("cannot link an attempt to the request of its job: {error}"),
    }
}

async fn run_attempt(worker: &Worker, slot: &Slot, taken: &Taken, shutdown: &CancellationToken) {
    let claimed = &taken.claimed;
    let (job, token) = (claimed.job, claimed.token);
    tracing::info!(job.id = %job, attempt.n = token, "attempt started");
    let first = if token == 1 { "first" } else { "later" };
    JOB_START_SECONDS.record([first.into()], claimed.waited);
    let _busy = SLOTS_BUSY.hold([slot.label()]);
    let since = Instant::now();
    let lease = Lease::hold(worker, work::Lease::of_job(job, token), taken.asked);
    let attempt = Attempt {
        worker,
        slot,
        taken,
        lease: &lease,
        shutdown,
    };
    let mut held = Held::default();
    let status = tokio::select! {
        biased;
        () = lease.lost.cancelled() => None,
        status = attempt.run_under_lease(&mut held) => status,
    };
    if let Some(trainer) = &mut held.trainer {
        trainer.end().await;
    }
    if let Some(folder) = &held.folder {
        worker.cache.keep_features(claimed.into(), &folder.work());
    }
    drop((lease, held));
    let duration_ms = since.elapsed().as_millis() as u64;
    match status {
        Some(status) => {
            tracing::info!(job.id = %job, attempt.n = token, duration_ms, "attempt ended; the job is {}", status.as_str());
        }
        None => {
            LEASES_LOST.add(["train".into()], 1);
            tracing::warn!(job.id = %job, attempt.n = token, duration_ms, "attempt lost its lease; nothing more was written")
        }
    }
    if status.is_some_and(JobStatus::is_terminal) {
        sweep(worker, claimed).await;
        if let Err(error) = tokio::task::block_in_place(|| worker.cache.trim()) {
            tracing::warn!("cannot trim the cache: {error}");
        }
    }
}

impl Attempt<'_> {
    /// Does everything that needs the lease. `None`: the lease is lost.
    async fn run_under_lease(self, held: &mut Held) -> Option<JobStatus> {
        let Self {
            worker,
            slot,
            taken,
            lease,
            shutdown,
        } = self;
        let (claimed, since) = (&taken.claimed, Instant::now());
        let left = claimed.timeout_seconds as f64 - claimed.elapsed_seconds;
        let grace = worker.args.timing.grace;
        let ended = tokio::select! {
            biased;
            () = lease.requests.cancel.cancelled() => Ok(Outcome::Cancelled),
            () = overdue(shutdown, grace) => Ok(Outcome::Yielded),
            () = overdue(&lease.requests.pause, grace) => Ok(Outcome::Yielded),
            () = tokio::time::sleep(Duration::from_secs_f64(left.max(0.0))) => Ok(timed_out(claimed)),
            ended = self.run_trainer(held) => ended,
        };
        let outcome = match ended {
            Ok(outcome) => outcome,
            Err(fault) => fault.outcome()?,
        };
        let mut trace = match &mut held.trainer {
            Some(trainer) => trace(trainer).await,
            None => Trace::default(),
        };
        log(claimed, &outcome);
        let lasted = since.elapsed();
        trace.release_reason =
            slot.health
                .judge(&worker.args.admission, claimed.job, &outcome, lasted);
        let outcome = match &trace.release_reason {
            Some(_) => Outcome::Yielded,
            // The log above has the paths; users see what is stored.
            None => outcome.without_paths(),
        };
        self.record_peak_memory().await;
        lease.end();
        let (pool, job, token) = (&worker.pool, claimed.job, claimed.token);
        let model = held.model.as_ref();
        let write = || db::queue::finish(pool, job, token, &outcome, model, &trace);
        let status = tokio::select! {
            finished = persist("end an attempt", write) => finished.unwrap_or_else(|error| {
                tracing::error!(job.id = %job, "cannot end an attempt; its lease will expire: {error}");
                None
            }),
            // Whoever stops this process has waited long enough; the lease expires.
            () = overdue(shutdown, grace + EXIT_TIME) => None,
        }?;
        count_end(&outcome, status, lasted);
        Some(status)
    }

    /// Lays out the folder, runs a trainer in it, and stores its result.
    async fn run_trainer(self, held: &mut Held) -> Result<Outcome, Fault> {
        let (worker, claimed) = (self.worker, &self.taken.claimed);
        let name = format!("{}-{}", claimed.job.0.simple(), claimed.token);
        let inputs = worker.folders.create(&name)?;
        sweep(worker, claimed).await;
        let packs = claimed.validation.iter().chain([&claimed.training]);
        let bytes: u64 = packs.map(|pack| pack.bytes).sum();
        let patience = worker.args.timing.stall + Duration::from_secs(bytes / BYTES_PER_SECOND);
        let laid_out = layout::lay_out(worker, self.slot, claimed, &inputs);
        let Ok(resumed) = tokio::time::timeout(patience, laid_out).await else {
            return Ok(storage_timed_out(patience));
        };
        let resumed = resumed?;
        if self.should_yield() {
            return Ok(Outcome::Yielded);
        }
        let idle = self.slot.warm_trainer.take().await?;
        let (child, mut output) = (held.trainer.insert(idle.child), idle.output);
        let folder = held.folder.insert(idle.folder);
        self.taken.reserved.bind(child.pid());
        layout::move_in(worker, claimed, &inputs, folder)?;
        let assignment = Assignment::Train {
            folder: WORK.into(),
        };
        child.send(&assignment).await?;
        let work = folder.work();
        let mut relay = Relay::new(worker, self.taken, &work, resumed);
        let outcome = self.handle_messages(&mut relay, child, &mut output).await?;
        // Nobody may change what is stored now.
        child.end_within(EXIT_TIME).await;
        if outcome == Outcome::Succeeded {
            let model = bundle::store(worker, claimed, folder).await?;
            held.model = Some(NewModel {
                results: Some(results::store(worker, claimed).await?),
                ..model
            });
            sample_report::store(&worker.pool, claimed, &work).await?;
        }
        Ok(outcome)
    }

    /// Handles a trainer's messages until its last one, or its exit, or until it stalls.
    async fn handle_messages(
        self,
        relay: &mut Relay<'_>,
        child: &mut Child,
        output: &mut Output,
    ) -> Result<Outcome, Fault> {
        let mut watchdog = Watchdog::new(&self.worker.args.timing, Instant::now());
        let (mut asked_to_yield, mut asked_to_stop_early) = (false, false);
        loop {
            let message = tokio::select! {
                () = self.yield_requested(), if !asked_to_yield => {
                    asked_to_yield = true;
                    child.close_input();
                    continue;
                }
                () = self.lease.requests.stop.cancelled(), if !asked_to_yield && !asked_to_stop_early => {
                    asked_to_stop_early = true;
                    // Fails when the trainer has exited, which its output shows.
                    let _ = child.send(&TrainerControl::StopEarly).await;
                    continue;
                }
                message = tokio::time::timeout_at(watchdog.deadline(), output.receive::<Progress>()) => message,
            };
            let Ok(message) = message else {
                // It makes no progress, so its exit is not waited for.
                child.end().await;
                return Ok(watchdog.outcome());
            };
            let Some(message) = message? else {
                return Ok(classify_exit(child, asked_to_yield).await);
            };
            let (was_ready, received) = (watchdog.is_ready, Instant::now());
            watchdog.observe(&message, received);
            if let Progress::Phase { .. } = message {
                // The next attempt finds them even if this worker dies.
                relay.keep_features();
            }
            let handled = relay.handle(message).await?;
            // The time it took to write is not the trainer's.
            watchdog.exclude(received.elapsed());
            match handled {
                Handled::Continues if watchdog.is_ready && !was_ready && !self.should_yield() => {
                    if let Err(error) = self.slot.warm_trainer.warm().await {
                        tracing::warn!("cannot start a warm trainer for the next job: {error}");
                    }
                }
                Handled::Continues => {}
                Handled::Interrupted if asked_to_yield => return Ok(Outcome::Yielded),
                Handled::Interrupted => {
                    let message = "the trainer stopped without being asked to".to_owned();
                    return Ok(Outcome::Crashed { message });
                }
                Handled::Finished => return Ok(Outcome::Succeeded),
                Handled::Failed(failure) => return Ok(Outcome::Failed(failure)),
            }
        }
    }

    /// Returns when the trainer should save its state and free the device: the worker stops, or the
    /// job is to pause.
    async fn yield_requested(self) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = self.lease.requests.pause.cancelled() => {}
        }
    }

    fn should_yield(self) -> bool {
        self.shutdown.is_cancelled() || self.lease.requests.pause.is_cancelled()
    }

    /// Records the highest memory that the trainer took. Only estimates are worse without it.
    async fn record_peak_memory(self) {
        let (job, token) = (self.taken.claimed.job, self.taken.claimed.token);
        if let Some(peak_mb) = self.taken.reserved.peak_mb()
            && let Err(error) = db::queue::measured(&self.worker.pool, job, token, peak_mb).await
        {
            tracing::warn!(job.id = %job, "cannot record the trainer's peak memory: {error}");
        }
    }
}

/// Ends a trainer that has not exited, and records how it exited.
async fn trace(trainer: &mut Child) -> Trace {
    trainer.end().await;
    Trace {
        exit_code: trainer.exit_code(),
        exit_signal: trainer.exit_signal(),
        log_tail: Some(trainer.log_tail()).filter(|log| !log.is_empty()),
        release_reason: None,
    }
}

/// Counts an attempt whose end is written.
fn count_end(outcome: &Outcome, status: JobStatus, lasted: Duration) {
    ATTEMPTS.add([outcome.as_str().into()], 1);
    ATTEMPT_SECONDS.record([outcome.as_str().into()], lasted);
    if status.is_terminal() {
        JOBS_ENDED.add([status.as_str().into()], 1);
    }
}

fn log(claimed: &Claimed, outcome: &Outcome) {
    match outcome {
        Outcome::Failed(Failure { code, message, .. }) => {
            tracing::warn!(job.id = %claimed.job, "attempt failed: {code}: {message}")
        }
        Outcome::Crashed { message } => {
            tracing::warn!(job.id = %claimed.job, "attempt crashed: {message}")
        }
        _ => {}
    }
}

/// Returns when `grace` has passed since `requested`.
async fn overdue(requested: &CancellationToken, grace: Duration) {
    requested.cancelled().await;
    tokio::time::sleep(grace).await;
}

fn timed_out(claimed: &Claimed) -> Outcome {
    let message = format!(
        "the job's attempts took longer than its timeout_seconds, {}; raise it, or train for fewer epochs",
        claimed.timeout_seconds
    );
    Outcome::Failed(Failure::permanent("timeout", message))
}

fn storage_timed_out(patience: Duration) -> Outcome {
    let message = format!(
        "data set, weights and checkpoint did not arrive from the object store within {} s; check that \
         the store can be read from the worker, and how fast",
        patience.as_secs()
    );
    Outcome::Failed(Failure::retryable("storage_error", message))
}

/// The outcome of a trainer that closed its output without a last message.
async fn classify_exit(child: &mut Child, asked_to_yield: bool) -> Outcome {
    let exit = match tokio::time::timeout(EXIT_TIME, child.wait()).await {
        Ok(Ok(exit)) => exit,
        Ok(Err(error)) => Exit::Crashed(error.to_string()),
        Err(_) => Exit::Crashed("closed its output but did not exit".to_owned()),
    };
    match exit {
        Exit::Yielded if asked_to_yield => Outcome::Yielded,
        Exit::Permanent => Outcome::Failed(Failure::permanent(
            "trainer_failed",
            "the trainer exited with code 64 (permanent failure) and no message; see `attempts[].log`",
        )),
        Exit::Done | Exit::Yielded => Outcome::Crashed {
            message: "the trainer exited without a result; see `attempts[].log`".to_owned(),
        },
        Exit::OutOfMemory(how) => {
            let message = format!(
                "the trainer {how}; take a smaller batch_size or image size, or freeze more of the backbone"
            );
            Outcome::Failed(Failure::retryable("out_of_memory", message))
        }
        Exit::Crashed(how) => Outcome::Crashed {
            message: format!("the trainer {how}"),
        },
    }
}

/// Deletes the objects of earlier attempts that no row names.
async fn sweep(worker: &Worker, claimed: &Claimed) {
    let swept = garbage_collection::sweep_job(&worker.pool, &worker.objects, claimed.job).await;
    if let Err(error) = swept {
        tracing::warn!(job.id = %claimed.job, "cannot delete the objects of unfinished attempts: {error:#}");
    }
}
