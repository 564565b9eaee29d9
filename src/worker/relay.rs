//! From a trainer's lines to rows and objects, each written under the attempt's token.

use std::path::Path;

use super::{Taken, Worker, cache::CacheError, capacity::Promised, checkpoints, hex};
use crate::db::persist::persist;
use crate::{
    child::{LineError, Unanswered},
    db::{
        self,
        events::{Level, NewEvent},
        jobs::JobProgress,
        metrics::Evaluation,
        queue::{Claimed, MicroBatch, NewCheckpoint, Records},
    },
    domain::{
        job::Outcome,
        progress::{BatchSizePart, Failure, Progress, Step},
        recipe::Recipe,
    },
    objects::ObjectError,
};

/// What ends an attempt besides its trainer's own word.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Another attempt owns the job: write nothing more.
    #[error("the lease is lost")]
    Lost,
    /// Bytes that are not what they should be.
    #[error("{0}")]
    Damaged(String),
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A statement that Postgres would refuse again.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the trainer cannot be started or spoken to: {0}")]
    Trainer(#[from] std::io::Error),
    #[error("the trainer speaks nonsense: {0}")]
    Line(#[from] LineError),
    /// A check of the result that came to no end.
    #[error("the process that checks the result gave no answer: {0}")]
    Unverified(Unanswered),
    /// What a child found wrong.
    #[error("{}", .0.message)]
    Failed(Failure),
}

impl Fault {
    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }

    /// How the attempt ends by it; `None` when that is no longer this worker's to say. All may pass by another try, unless
    /// a child says otherwise.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        let code = match self {
            Self::Lost => return None,
            Self::Failed(failure) => {
                return Some(Outcome::Failed {
                    code: failure.code.clone(),
                    message: failure.message.clone(),
                    retryable: failure.retryable,
                });
            }
            Self::Trainer(_) | Self::Line(_) | Self::Unverified(_) => {
                return Some(Outcome::Crashed {
                    message: self.to_string(),
                });
            }
            Self::Object(ObjectError::StorageFull { .. }) => "storage_full",
            Self::Object(_) => "storage_error",
            Self::Damaged(_) => "object_damaged",
            Self::Database(_) => "internal_error",
        };
        Some(Outcome::Failed {
            code: code.to_owned(),
            message: self.to_string(),
            retryable: true,
        })
    }
}

impl From<CacheError> for Fault {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Object(error) => Self::Object(error),
            CacheError::File { path, source } => Self::Object(ObjectError::of_file(&path, source)),
            CacheError::Damaged { .. } => Self::Damaged(error.to_string()),
        }
    }
}

/// What a line means for the conversation.
#[derive(Debug)]
pub(super) enum Heard {
    /// It goes on.
    More,
    /// The state is saved and committed; the trainer ends.
    Stopped,
    /// `bundle/` and `report.json` are complete.
    Finished,
    Failed(Failure),
}

/// Writes down what one trainer says.
pub(super) struct Relay<'a> {
    worker: &'a Worker,
    claimed: &'a Claimed,
    promised: &'a Promised,
    /// The job folder.
    folder: &'a Path,
    progress: JobProgress,
    is_on_cpu: bool,
}

impl<'a> Relay<'a> {
    /// `resumed` is the step that the trainer goes on from.
    pub(super) fn new(
        worker: &'a Worker,
        taken: &'a Taken,
        folder: &'a Path,
        resumed: Option<u64>,
    ) -> Self {
        let progress = JobProgress {
            step: resumed.unwrap_or(0),
            ..JobProgress::default()
        };
        Self {
            worker,
            claimed: &taken.claimed,
            promised: &taken.promised,
            folder,
            progress,
            is_on_cpu: false,
        }
    }

    /// Writes one line down. Returns when it is committed, however long Postgres takes.
    ///
    /// # Errors
    /// `Lost`; a checkpoint that cannot be stored.
    pub(super) async fn hear(&mut self, line: Progress) -> Result<Heard, Fault> {
        if self.is_on_cpu {
            self.promised.look();
        }
        let mut records = Records::default();
        match line {
            Progress::Ready {
                device, threads, ..
            } => {
                // Elsewhere the machine's memory is not what the job was promised.
                self.is_on_cpu = device == "cpu";
                records.device = Some((device, threads));
                records.events.extend(set_back(
                    self.claimed.resume.as_ref().map(|from| from.step),
                    self.progress.step,
                ));
            }
            Progress::Phase { phase } => {
                self.progress.fraction = 0.0;
                records.phase = Some(phase);
            }
            Progress::Fraction {
                done,
                total,
                samples_per_second,
            } => {
                self.progress.fraction = share(done, total);
                self.progress.samples_per_second = Some(samples_per_second);
            }
            Progress::Steps {
                n_steps,
                n_epochs,
                steps,
            } => {
                if let Some(last) = steps.last() {
                    self.progress = JobProgress {
                        step: last.step,
                        n_steps: Some(n_steps),
                        epoch: last.epoch,
                        n_epochs: Some(n_epochs),
                        fraction: share(last.step, n_steps),
                        samples_per_second: Some(last.samples_per_second),
                    };
                }
                records.steps = thinned(steps, n_steps, self.worker.args.steps_kept);
            }
            Progress::BatchSizeReduced { what, batch_size } => {
                let (shrunk, event) = shrunk(what, batch_size, &self.claimed.recipe);
                records.shrunk = Some(shrunk);
                records.events.push(event);
            }
            Progress::Used(usage) => records.usage = Some(usage),
            Progress::Evaluated { metrics, best } => {
                records.evaluations.push(Evaluation { metrics, best })
            }
            Progress::Saved { .. } => return self.save(line).await,
            Progress::Stopped { .. } => return Ok(Heard::Stopped),
            Progress::Finished { stopped_early, .. } => {
                if stopped_early {
                    records.events.push(ended_early(self.progress.step));
                    self.record(&records).await?;
                }
                return Ok(Heard::Finished);
            }
            Progress::Failed(failure) => return Ok(Heard::Failed(failure)),
        }
        records.progress = Some(self.progress);
        self.record(&records).await?;
        Ok(Heard::More)
    }

    async fn record(&self, records: &Records) -> Result<(), Fault> {
        let write = || {
            db::queue::record(
                &self.worker.pool,
                self.claimed.job,
                self.claimed.token,
                records,
            )
        };
        let written = persist("record progress", write).await?;
        if written { Ok(()) } else { Err(Fault::Lost) }
    }

    async fn save(&self, saved: Progress) -> Result<Heard, Fault> {
        let Progress::Saved {
            step,
            epoch,
            folder,
            bytes,
            manifest_sha256,
            metrics,
            best,
            stall_ms,
        } = saved
        else {
            return Ok(Heard::More);
        };
        let folder = checkpoints::plain_folder(self.folder, &folder)?;
        let objects = format!(
            "checkpoints/{}/{step}-{}/",
            hex(self.claimed.job),
            self.claimed.token
        );
        if let Err(fault) =
            checkpoints::upload(self.worker, &folder, &manifest_sha256, &objects).await
        {
            self.worker.objects.delete_prefix(&objects).await?;
            // The trainer keeps its last few folders only. When this worker was held up, a later one is on its way.
            if folder.exists() {
                return Err(fault);
            }
            tracing::warn!(job.id = %self.claimed.job, step, "a checkpoint was gone before it could be stored");
            return Ok(Heard::More);
        }
        let new = NewCheckpoint {
            step,
            epoch,
            objects,
            bytes,
            manifest_sha256,
            metrics,
            best,
            stall_ms,
        };
        checkpoints::commit(self.worker, self.claimed, &new).await?;
        Ok(Heard::More)
    }
}

/// Says so when a damaged checkpoint was passed over: the claim's own event names the step that was `expected`.
fn set_back(expected: Option<u64>, step: u64) -> Option<NewEvent> {
    let expected = expected.filter(|&expected| expected != step)?;
    Some(NewEvent {
        level: Level::Warn,
        message: format!(
            "the checkpoint at step {expected} is damaged; training goes on from step {step}"
        ),
        data: serde_json::json!({ "expected_step": expected, "step": step }),
    })
}

/// Says so when not every step was trained: there was no gain any more, or the user had enough.
fn ended_early(step: u64) -> NewEvent {
    NewEvent {
        level: Level::Info,
        message: format!("training ended early, after step {step}"),
        data: serde_json::json!({ "stopped_early": true, "step": step }),
    }
}

/// Of a job of `n_steps` steps at most about `kept`: every k-th, and the last. The same ones in every attempt.
fn thinned(mut steps: Vec<Step>, n_steps: u64, kept: u64) -> Vec<Step> {
    let every = n_steps.div_ceil(kept).max(1);
    steps.retain(|step| step.step % every == 0 || step.step == n_steps);
    steps
}

/// What memory that ran out changes for the job, and what its user is told.
fn shrunk(what: BatchSizePart, batch_size: u32, recipe: &Recipe) -> (MicroBatch, NewEvent) {
    let by_rounding = "numbers change by rounding only";
    let (what, micro_batch, changes) = match what {
        BatchSizePart::Training if recipe.depends_on_batches() => (
            "training",
            Some(batch_size),
            "a step keeps its samples, but BatchNorm's statistics and dropout's masks are those of smaller batches",
        ),
        BatchSizePart::Training => ("training", Some(batch_size), by_rounding),
        BatchSizePart::Evaluation => ("evaluation", None, by_rounding),
        BatchSizePart::Features => ("the frozen backbone", None, by_rounding),
    };
    let message =
        format!("memory ran out: {what} now runs {batch_size} samples at a time; {changes}");
    let event = NewEvent {
        level: Level::Warn,
        data: serde_json::json!({ "batch_size": batch_size }),
        message: message.clone(),
    };
    let shrunk = MicroBatch {
        micro_batch,
        best_effort: message,
    };
    (shrunk, event)
}

/// 0 to 1, also of nonsense.
fn share(done: u64, total: u64) -> f64 {
    if total == 0 {
        0.0
    } else {
        (done as f64 / total as f64).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_stays_a_share() {
        assert_eq!([share(0, 0), share(1, 4), share(9, 4)], [0.0, 0.25, 1.0]);
    }

    #[test]
    fn long_jobs_keep_every_kth_step_and_the_last() {
        let kept = |n_steps, kept| -> Vec<u64> {
            let step = |step| Step {
                step,
                epoch: 1,
                train_loss: None,
                learning_rate: 0.1,
                samples_per_second: 1.0,
            };
            let steps = (1..=n_steps).map(step).collect();
            let steps = thinned(steps, n_steps, kept);
            steps.iter().map(|step| step.step).collect()
        };
        assert_eq!(kept(4, 4), [1, 2, 3, 4]);
        assert_eq!(kept(5, 4), [2, 4, 5]);
        assert_eq!(kept(9, 2), [5, 9]);
    }

    #[test]
    fn only_a_damaged_checkpoint_is_worth_an_event() {
        assert!(set_back(None, 0).is_none() && set_back(Some(7), 7).is_none());
        assert!(
            set_back(Some(7), 3)
                .unwrap()
                .message
                .contains("step 7 is damaged")
        );
    }

    #[test]
    fn a_full_disk_keeps_its_name_and_a_lost_lease_has_no_outcome() {
        let full = ObjectError::of_file(
            Path::new("x"),
            std::io::Error::from_raw_os_error(libc::ENOSPC),
        );
        let outcome = Fault::from(full).outcome();
        assert!(
            matches!(outcome, Some(Outcome::Failed { code, retryable: true, .. }) if code == "storage_full")
        );
        assert_eq!(Fault::Lost.outcome(), None);
    }
}
