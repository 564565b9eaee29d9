//! One attempt: a claimed job, from its folder to its last row. The trainer lives exactly as long as the attempt.

use std::{path::Path, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Taken, Worker, bundle, checkpoints,
    folder::Folder,
    hex, layout,
    lease::{Claim, Lease},
    relay::{Fault, Heard, Relay},
    sample_report,
    watchdog::Watchdog,
};
use crate::db::persist::persist;
use crate::{
    child::{Child, Exit, Output},
    db::{
        self,
        queue::{Claimed, NewModel, Trace},
    },
    domain::{
        job::{JobStatus, Outcome},
        progress::{Failure, Progress},
        work::{Assignment, Order},
    },
};

/// Bytes that come from the object store in a second, at the least; there is `stall_ms` besides.
const BYTES_PER_SECOND: u64 = 1 << 20;
/// Time a trainer has to end after its last word.
const LAST_WORD: Duration = Duration::from_secs(10);

/// How an attempt ended, and the model where it made one.
struct Ended {
    outcome: Outcome,
    model: Option<NewModel>,
}

/// Runs an attempt to its end.
pub(super) async fn run(worker: &Worker, taken: &Taken, shutdown: &CancellationToken) {
    let Taken { claimed, asked, .. } = taken;
    let (job, token) = (claimed.job, claimed.token);
    tracing::info!(job.id = %job, attempt.n = token, "attempt started");
    let since = Instant::now();
    let lease = Lease::hold(worker, Claim::Job { job, token }, *asked);
    let mut trainer = None;
    let folder = worker.folders.create(&format!("{}-{token}", hex(job)));
    let status = tokio::select! {
        biased;
        () = lease.lost() => None,
        status = whole(worker, taken, &lease, shutdown, folder.as_ref(), &mut trainer) => status,
    };
    if let Some(mut trainer) = trainer {
        trainer.end().await;
    }
    drop(lease);
    // Only now: the trainer that wrote there is gone.
    drop(folder);
    let duration_ms = since.elapsed().as_millis() as u64;
    match status {
        Some(status) => {
            tracing::info!(job.id = %job, attempt.n = token, duration_ms, "attempt ended; the job is {}", status.as_str());
        }
        None => {
            tracing::warn!(job.id = %job, attempt.n = token, duration_ms, "attempt lost its lease; nothing more was written")
        }
    }
    if status.is_some_and(JobStatus::is_terminal)
        && let Err(error) = tidy(worker, claimed).await
    {
        tracing::warn!(job.id = %job, "objects without a row stay: {error:#}");
    }
}

/// Everything that needs the lease. `None`: it is lost.
async fn whole(
    worker: &Worker,
    taken: &Taken,
    lease: &Lease,
    shutdown: &CancellationToken,
    folder: Result<&Folder, &std::io::Error>,
    trainer: &mut Option<Child>,
) -> Option<JobStatus> {
    let (claimed, since) = (&taken.claimed, Instant::now());
    let left = Duration::from_secs_f64(
        (claimed.timeout_seconds as f64 - claimed.elapsed_seconds).max(0.0),
    );
    let driven = async {
        let folder = folder.map_err(|error| {
            Fault::Trainer(std::io::Error::new(error.kind(), error.to_string()))
        })?;
        let stops = Stops { shutdown, lease };
        drive(worker, taken, stops, folder.path(), trainer).await
    };
    let ended = tokio::select! {
        biased;
        () = lease.cancelled() => Ok(Outcome::Cancelled.into()),
        () = overdue(shutdown, worker.args.timing.grace()) => Ok(Outcome::Yielded.into()),
        () = overdue(lease.pause(), worker.args.timing.grace()) => Ok(Outcome::Yielded.into()),
        () = tokio::time::sleep(left) => Ok(timed_out(claimed).into()),
        ended = driven => ended,
    };
    let Ended { outcome, model } = match ended {
        Ok(ended) => ended,
        Err(fault) => fault.outcome()?.into(),
    };
    let mut trace = match trainer {
        Some(trainer) => trace(trainer).await,
        None => Trace::default(),
    };
    log(claimed, &outcome);
    let (health, admission) = (&worker.health, &worker.args.admission);
    trace.given_back = health.judge(admission, claimed.job, &outcome, since.elapsed());
    let outcome = match &trace.given_back {
        Some(_) => Outcome::Yielded,
        None => outcome,
    };
    note_memory(worker, taken).await;
    lease.end();
    let write = || {
        db::queue::finish(
            &worker.pool,
            claimed.job,
            claimed.token,
            &outcome,
            model.as_ref(),
            &trace,
        )
    };
    tokio::select! {
        finished = persist("end an attempt", write) => finished.unwrap_or_else(|error| {
            tracing::error!(job.id = %claimed.job, "cannot end an attempt; its lease will run out: {error}");
            None
        }),
        // Whoever stops this process has waited long enough; the lease runs out.
        () = overdue(shutdown, worker.args.timing.grace() + LAST_WORD) => None,
    }
}

/// Ends a trainer, where it has not ended, and says how it did.
async fn trace(trainer: &mut Child) -> Trace {
    trainer.end().await;
    Trace {
        exit_code: trainer.exit_code(),
        exit_signal: trainer.exit_signal(),
        log_tail: Some(trainer.log_tail()).filter(|log| !log.is_empty()),
        given_back: None,
    }
}

fn log(claimed: &Claimed, outcome: &Outcome) {
    match outcome {
        Outcome::Failed { code, message, .. } => {
            tracing::warn!(job.id = %claimed.job, "attempt failed: {code}: {message}")
        }
        Outcome::Crashed { message } => {
            tracing::warn!(job.id = %claimed.job, "trainer crashed: {message}")
        }
        _ => {}
    }
}

/// Writes down the most memory that the trainer took. Only an estimate is the worse without it.
async fn note_memory(worker: &Worker, taken: &Taken) {
    let (job, token) = (taken.claimed.job, taken.claimed.token);
    if let Some(peak_mb) = taken.promised.peak_mb()
        && let Err(error) = db::queue::measured(&worker.pool, job, token, peak_mb).await
    {
        tracing::warn!(job.id = %job, "cannot note what memory was taken: {error}");
    }
}

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            model: None,
        }
    }
}

/// Returns when `grace` is over since `asked`.
async fn overdue(asked: &CancellationToken, grace: Duration) {
    asked.cancelled().await;
    tokio::time::sleep(grace).await;
}

/// What asks a trainer for an early end.
#[derive(Clone, Copy)]
struct Stops<'a> {
    shutdown: &'a CancellationToken,
    lease: &'a Lease,
}

impl Stops<'_> {
    /// Returns when the state is to be saved and the device freed: the worker drains, or the job is to pause.
    async fn let_go(self) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = self.lease.pause().cancelled() => {}
        }
    }

    fn must_let_go(self) -> bool {
        self.shutdown.is_cancelled() || self.lease.pause().is_cancelled()
    }
}

fn timed_out(claimed: &Claimed) -> Outcome {
    let message = format!(
        "the job's attempts took longer than its timeout_seconds, {}; raise it, or ask for fewer epochs",
        claimed.timeout_seconds
    );
    Outcome::Failed {
        code: "timeout".to_owned(),
        message,
        retryable: false,
    }
}

fn storage_hangs(patience: Duration) -> Outcome {
    let message = format!(
        "the job's data, weights and checkpoint did not come from the object store within {} s",
        patience.as_secs()
    );
    Outcome::Failed {
        code: "storage_error".to_owned(),
        message,
        retryable: true,
    }
}

/// Lays out the folder, runs a trainer in it, and keeps what it makes.
async fn drive(
    worker: &Worker,
    taken: &Taken,
    stops: Stops<'_>,
    folder: &Path,
    trainer: &mut Option<Child>,
) -> Result<Ended, Fault> {
    let claimed = &taken.claimed;
    if let Err(error) = checkpoints::sweep(worker, claimed, claimed.token - 1).await {
        tracing::warn!(job.id = %claimed.job, "objects without a row stay: {error:#}");
    }
    let packs = claimed.validation.iter().chain([&claimed.training]);
    let bytes: u64 = packs.map(|pack| pack.bytes).sum();
    let patience = worker.args.timing.stall() + Duration::from_secs(bytes / BYTES_PER_SECOND);
    let laid_out = tokio::time::timeout(patience, layout::lay_out(worker, claimed, folder));
    let Ok(resumed) = laid_out.await else {
        return Ok(storage_hangs(patience).into());
    };
    let resumed = resumed?;
    if stops.must_let_go() {
        return Ok(Outcome::Yielded.into());
    }
    let (child, mut output) = worker.warm_trainer.take().await?;
    let child = trainer.insert(child);
    taken.promised.bind(child.pid());
    child
        .send(&Assignment::Train {
            folder: folder.to_owned(),
        })
        .await?;
    let mut relay = Relay::new(worker, taken, folder, resumed);
    let ended = match converse(worker, &mut relay, child, &mut output, stops).await? {
        Last::Finished => {
            let model = bundle::keep(worker, claimed, folder).await?;
            sample_report::keep(worker, claimed, folder).await?;
            Ended {
                outcome: Outcome::Succeeded,
                model: Some(model),
            }
        }
        // It said nothing, and will not.
        Last::Stalled(outcome) => return Ok(outcome.into()),
        Last::Outcome(outcome) => outcome.into(),
    };
    child.end_within(LAST_WORD).await;
    Ok(ended)
}

/// How a conversation ended.
enum Last {
    Finished,
    Stalled(Outcome),
    /// The trainer's word, or its end.
    Outcome(Outcome),
}

/// Hears a trainer until its last word, or its end, or until it gets no further for too long.
async fn converse(
    worker: &Worker,
    relay: &mut Relay<'_>,
    child: &mut Child,
    output: &mut Output,
    stops: Stops<'_>,
) -> Result<Last, Fault> {
    let mut watchdog = Watchdog::new(&worker.args.timing, Instant::now());
    let (mut asked_to_stop, mut asked_to_finish) = (false, false);
    loop {
        let line = tokio::select! {
            () = stops.let_go(), if !asked_to_stop => {
                asked_to_stop = true;
                child.close_input();
                continue;
            }
            () = stops.lease.stopped(), if !asked_to_stop && !asked_to_finish => {
                asked_to_finish = true;
                // A trainer that cannot hear it has ended, and its output says how.
                let _ = child.send(&Order::Finish).await;
                continue;
            }
            line = tokio::time::timeout_at(watchdog.deadline(), output.receive::<Progress>()) => line,
        };
        let Ok(line) = line else {
            return Ok(Last::Stalled(watchdog.verdict()));
        };
        let Some(line) = line? else {
            return Ok(Last::Outcome(without_a_word(child, asked_to_stop).await));
        };
        let (was_ready, heard_at) = (watchdog.is_ready, Instant::now());
        watchdog.hear(&line, heard_at);
        let heard = relay.hear(line).await?;
        // However long that took: the trainer could not help it.
        watchdog.forgive(heard_at.elapsed());
        match heard {
            Heard::More if watchdog.is_ready && !was_ready && !stops.must_let_go() => {
                if let Err(error) = worker.warm_trainer.warm().await {
                    tracing::warn!("no warm trainer for the next job: {error}");
                }
            }
            Heard::More => {}
            Heard::Stopped if asked_to_stop => return Ok(Last::Outcome(Outcome::Yielded)),
            Heard::Stopped => {
                let message = "the trainer stopped though nobody asked it to".to_owned();
                return Ok(Last::Outcome(Outcome::Crashed { message }));
            }
            Heard::Finished => return Ok(Last::Finished),
            Heard::Failed(Failure {
                code,
                message,
                retryable,
            }) => {
                return Ok(Last::Outcome(Outcome::Failed {
                    code,
                    message,
                    retryable,
                }));
            }
        }
    }
}

/// The outcome of a trainer that closed its output without a last word.
async fn without_a_word(child: &mut Child, asked_to_stop: bool) -> Outcome {
    let exit = match tokio::time::timeout(LAST_WORD, child.wait()).await {
        Ok(Ok(exit)) => exit,
        Ok(Err(error)) => Exit::Crashed(error.to_string()),
        Err(_) => Exit::Crashed("closed its output and went on".to_owned()),
    };
    match exit {
        Exit::Yielded if asked_to_stop => Outcome::Yielded,
        Exit::Permanent => Outcome::Failed {
            code: "trainer_failed".to_owned(),
            message: "the trainer refused the job without saying why".to_owned(),
            retryable: false,
        },
        Exit::Done | Exit::Yielded => Outcome::Crashed {
            message: "the trainer ended without a result".to_owned(),
        },
        Exit::Crashed(how) => Outcome::Crashed {
            message: format!("the trainer {how}"),
        },
    }
}

/// Deletes what a job that has ended leaves in the object store without a row, and makes room in the cache.
async fn tidy(worker: &Worker, claimed: &Claimed) -> anyhow::Result<()> {
    checkpoints::sweep(worker, claimed, claimed.token).await?;
    bundle::sweep(worker, claimed).await?;
    tokio::task::block_in_place(|| worker.cache.trim())?;
    Ok(())
}
