//! Records a trainer's messages as rows and objects, each written under the attempt's token.

use std::path::Path;

use super::{
    checkpoints, context::Worker, fault::Fault, files::plain_folder, memory::Reserved, slot::Taken,
};
use crate::{
    db::{
        self,
        events::{Level, NewEvent},
        jobs::JobProgress,
        metrics::Evaluation,
        persist::persist,
        queue::{Claimed, MicroBatch, NewCheckpoint, Records},
    },
    domain::{
        progress::{BatchSizePart, Failure, Progress, Step},
        recipe::Recipe,
    },
    telemetry::metrics::{Label, TRAINED_SAMPLES, TRAINED_STEPS},
};

/// The consequence of a message.
#[derive(Debug)]
pub(super) enum Handled {
    /// The trainer continues.
    Continues,
    /// The state is saved and committed; the trainer exits.
    Interrupted,
    /// `bundle/` and `report.json` are complete.
    Finished,
    Failed(Failure),
}

/// Records the messages of one trainer.
pub(super) struct Relay<'a> {
    worker: &'a Worker,
    claimed: &'a Claimed,
    reserved: &'a Reserved,
    /// The folder that the trainer writes.
    folder: &'a Path,
    progress: JobProgress,
    /// As its trainer named it; empty before.
    device: String,
}

impl<'a> Relay<'a> {
    /// Starts at step `resumed`, from which the trainer continues.
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
            reserved: &taken.reserved,
            folder,
            progress,
            device: String::new(),
        }
    }

    /// Keeps the features that the trainer has made so far.
    pub(super) fn keep_features(&self) {
        self.worker
            .cache
            .keep_features(self.claimed.into(), self.folder);
    }

    /// Records one message. Returns when it is committed, however long Postgres takes.
    ///
    /// # Errors
    /// `Lost`; a checkpoint that cannot be stored.
    pub(super) async fn handle(&mut self, message: Progress) -> Result<Handled, Fault> {
        // On a GPU, the machine's memory is not what the job reserved.
        if self.device == "cpu" {
            self.reserved.measure_peak();
        }
        let mut records = Records::default();
        match message {
            Progress::Ready {
                device, threads, ..
            } => {
                self.device.clone_from(&device);
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
                self.count(&steps);
                if let Some(last) = steps.last() {
                    self.progress = progress_at(last, n_steps, n_epochs);
                }
                records.steps = thinned(steps, n_steps, self.worker.args.steps_kept);
            }
            Progress::FeaturesInFloat32 => records.events.push(features_in_float32()),
            Progress::Recomputes => records.events.push(recomputes()),
            Progress::BatchSizeReduced { what, batch_size } => {
                let (reduced, event) = batch_size_reduced(what, batch_size, &self.claimed.recipe);
                records.shrunk = Some(reduced);
                records.events.push(event);
            }
            // For the watchdog only.
            Progress::Working(_) => return Ok(Handled::Continues),
            Progress::Used(usage) => records.usage = Some(usage),
            Progress::Evaluated { metrics, best } => {
                records.evaluations.push(Evaluation { metrics, best })
            }
            Progress::Saved { .. } => return self.save(message).await,
            Progress::Interrupted { .. } => return Ok(Handled::Interrupted),
            Progress::Finished { stopped_early, .. } => return self.finish(stopped_early).await,
            Progress::Failed(failure) => return Ok(Handled::Failed(failure)),
        }
        records.progress = Some(self.progress);
        self.record(&records).await?;
        Ok(Handled::Continues)
    }

    /// Counts trained steps for metrics.
    fn count(&self, steps: &[Step]) {
        let (device, steps) = (&self.device, steps.len() as u64);
        TRAINED_STEPS.add([Label::bounded(device)], steps);
        let samples = steps * u64::from(self.claimed.recipe.batch_size);
        TRAINED_SAMPLES.add([Label::bounded(device)], samples);
    }

    async fn finish(&self, stopped_early: bool) -> Result<Handled, Fault> {
        if stopped_early {
            let events = vec![ended_early(self.progress.step)];
            let records = Records {
                events,
                ..Records::default()
            };
            self.record(&records).await?;
        }
        Ok(Handled::Finished)
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

    /// Stores a checkpoint that the trainer has saved.
    async fn save(&self, saved: Progress) -> Result<Handled, Fault> {
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
            return Ok(Handled::Continues);
        };
        let Worker { pool, objects, .. } = self.worker;
        let (job, token) = (self.claimed.job.0.simple(), self.claimed.token);
        let folder = plain_folder(self.folder, &folder)?;
        let new = NewCheckpoint {
            step,
            epoch,
            objects: format!("checkpoints/{job}/{step}-{token}/"),
            bytes,
            manifest_sha256,
            metrics,
            best,
            stall_ms,
        };
        let uploaded =
            checkpoints::upload(objects, &folder, &new.manifest_sha256, &new.objects).await;
        if let Err(fault) = uploaded {
            objects.delete_prefix(&new.objects).await?;
            // The trainer keeps only its last few folders. If this worker was delayed, a later one
            // follows.
            if folder.exists() {
                return Err(fault);
            }
            tracing::warn!(job.id = %self.claimed.job, step, "the trainer deleted a checkpoint before it could be stored");
            return Ok(Handled::Continues);
        }
        checkpoints::commit(pool, objects, self.claimed, &new).await?;
        Ok(Handled::Continues)
    }
}

/// The event of a damaged checkpoint: the claim's own event names the step that was `expected`.
fn set_back(expected: Option<u64>, step: u64) -> Option<NewEvent> {
    let expected = expected.filter(|&expected| expected != step)?;
    Some(NewEvent {
        level: Level::Warn,
        message: format!(
            "the checkpoint at step {expected} is damaged; training continues from step {step}"
        ),
        data: serde_json::json!({ "expected_step": expected, "step": step }),
    })
}

/// The event of a training that ended before its last step: it no longer improved, or was stopped.
fn ended_early(step: u64) -> NewEvent {
    NewEvent {
        level: Level::Info,
        message: format!("training ended early, after step {step}"),
        data: serde_json::json!({ "stopped_early": true, "step": step }),
    }
}

/// The progress of a training after this step.
fn progress_at(last: &Step, n_steps: u64, n_epochs: u32) -> JobProgress {
    JobProgress {
        step: last.step,
        n_steps: Some(n_steps),
        epoch: last.epoch,
        n_epochs: Some(n_epochs),
        fraction: share(last.step, n_steps),
        samples_per_second: Some(last.samples_per_second),
    }
}

/// Keeps about `kept` of the job's `n_steps` steps at most: every k-th, and the last. They are the
/// same in every attempt.
fn thinned(mut steps: Vec<Step>, n_steps: u64, kept: u64) -> Vec<Step> {
    let every = n_steps.div_ceil(kept).max(1);
    steps.retain(|step| step.step % every == 0 || step.step == n_steps);
    steps
}

/// The event of features that are computed in another format than the one asked for.
fn features_in_float32() -> NewEvent {
    NewEvent {
        level: Level::Warn,
        data: serde_json::json!({}),
        message:
            "this worker's processor has no bfloat16 arithmetic: features are computed in float32"
                .to_owned(),
    }
}

/// The event of a training that trades time for memory.
fn recomputes() -> NewEvent {
    NewEvent {
        level: Level::Warn,
        data: serde_json::json!({}),
        message: "out of memory: training continues with the activations of one stage at a time, which takes about a \
                  third longer; results differ at most by rounding"
            .to_owned(),
    }
}

/// The change and the event of a batch size that was reduced because memory ran out.
fn batch_size_reduced(
    what: BatchSizePart,
    batch_size: u32,
    recipe: &Recipe,
) -> (MicroBatch, NewEvent) {
    let by_rounding = "results differ only by rounding";
    let (what, micro_batch, changes) = match what {
        BatchSizePart::Training if recipe.has_batch_statistics() => (
            "training",
            Some(batch_size),
            "a step has the same samples, but BatchNorm statistics are those of smaller batches",
        ),
        BatchSizePart::Training => ("training", Some(batch_size), by_rounding),
        BatchSizePart::Evaluation => ("evaluation", None, by_rounding),
        BatchSizePart::Features => ("the frozen backbone", None, by_rounding),
    };
    let message =
        format!("out of memory: {what} continues with {batch_size} samples at a time; {changes}");
    let event = NewEvent {
        level: Level::Warn,
        data: serde_json::json!({ "batch_size": batch_size }),
        message: message.clone(),
    };
    let reduced = MicroBatch {
        micro_batch,
        nondeterminism_reason: message,
    };
    (reduced, event)
}

/// The fraction that is done, from 0 to 1 even if `done` exceeds `total`.
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
    fn share_is_from_0_to_1() {
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
    fn set_back_is_an_event_only_if_a_step_was_lost() {
        assert!(set_back(None, 0).is_none() && set_back(Some(7), 7).is_none());
        assert!(
            set_back(Some(7), 3)
                .unwrap()
                .message
                .contains("step 7 is damaged")
        );
    }
}
