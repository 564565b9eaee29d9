//! The job object: OpenAI's fields, so that its clients read it, and what they leave open: where the job is, how each
//! `"auto"` was settled, what its attempts were.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    db::{
        self, Page, Slice,
        attempts::Attempt,
        jobs::{Budgets, Filter, Job, JobError},
        phases::PhaseSpan,
        places::Place,
        tenants::TenantId,
    },
    domain::{
        checkpoint::Metrics,
        id::{CheckpointId, FileId, JobId},
        job::{JobStatus, Phase, WaitReason},
        recipe::{Recipe, Resolved},
        request::{Auto, OpenAiHyperparameters, Transfer},
    },
    http::jobs::determinism::Determinism,
};

/// A fine-tuning job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobObject {
    pub id: JobId,
    /// `fine_tuning.job`.
    pub object: &'static str,
    /// Unix seconds, as all times here.
    pub created_at: i64,
    /// Of the first attempt.
    pub started_at: Option<i64>,
    pub finished_at: Option<i64>,
    pub estimated_finish: Option<i64>,
    /// When its cancellation was asked for.
    pub cancel_requested_at: Option<i64>,
    /// When it was asked to train no further and keep its best model.
    pub stop_requested_at: Option<i64>,
    /// What it starts from: a base model, a fine-tuned one or a checkpoint.
    pub model: String,
    /// The model it made, once it has.
    pub fine_tuned_model: Option<String>,
    /// Always `rehead`.
    pub organization_id: &'static str,
    pub status: JobStatus,
    /// Whether the status is final.
    pub is_terminal: bool,
    /// What it is doing.
    pub phase: Phase,
    /// What it did, oldest first, over all attempts: the last 100.
    pub phases: Vec<PhaseSpan>,
    pub progress: Progress,
    /// Its place in the line, while queued.
    pub queue: Option<Queue>,
    pub training_file: FileId,
    pub validation_file: Option<FileId>,
    /// Always empty: results are a model, checkpoints and a report.
    pub result_files: Vec<String>,
    /// Always `null`: images are not counted in tokens.
    pub trained_tokens: Option<u64>,
    pub suffix: Option<String>,
    pub seed: u64,
    /// 0 (first) to 4 (last).
    pub priority: u8,
    /// Of all attempts together; neither waiting nor pauses count.
    pub timeout_seconds: u64,
    pub method: Method,
    /// The three that OpenAI's clients show; all are in `method` and `resolved`.
    pub hyperparameters: OpenAiHyperparameters,
    /// Each `"auto"` that was asked for or left out, by its option's name.
    pub resolved: BTreeMap<String, Settled>,
    /// Every training choice, once its files are validated; `trainable` names what `freeze` leaves to train. In lists `null`.
    pub recipe: Option<Recipe>,
    /// Always empty.
    pub integrations: Vec<String>,
    pub metadata: BTreeMap<String, String>,
    /// Of the best evaluation so far.
    pub metrics: Option<Metrics>,
    pub best_checkpoint: Option<CheckpointId>,
    /// Oldest first.
    pub attempts: Vec<Attempt>,
    pub budgets: Budgets,
    /// Why it failed.
    pub error: Option<JobError>,
    pub determinism: Determinism,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Progress {
    /// Share of the present phase that is done.
    pub fraction: f64,
    pub epoch: u32,
    pub n_epochs: Option<u32>,
    /// Optimizer steps made.
    pub step: u64,
    pub n_steps: Option<u64>,
    pub samples_per_second: Option<f64>,
    /// Until the present phase ends, when that can be told.
    pub eta_seconds: Option<u64>,
}

/// The place of a job that waits for a worker.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Queue {
    /// From 1.
    pub position: u64,
    /// Jobs that come first, of all tenants.
    pub ahead: u64,
    /// Why it does not run yet.
    pub reason: WaitReason,
    /// When a `backoff` ends.
    pub until: Option<i64>,
    /// From the durations of the last jobs that succeeded; `null` when there is none, or when it is not the work ahead
    /// that it waits for.
    pub estimated_start: Option<EstimatedStart>,
}

/// If all jobs before it take as long as the median job, and as the longest of ten.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EstimatedStart {
    pub p50: i64,
    pub p90: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Method {
    /// `transfer`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub transfer: Transfer,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Settled {
    pub value: Value,
    /// One phrase.
    pub reason: String,
}

/// A job with what its object takes from other tables, all of one moment.
pub(crate) struct Seen {
    pub job: Job,
    place: Option<Place>,
    attempts: Vec<Attempt>,
    phases: Vec<PhaseSpan>,
}

impl Seen {
    /// Reads a job.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn get(
        pool: &PgPool,
        tenant: TenantId,
        id: JobId,
    ) -> sqlx::Result<Option<Self>> {
        let mut snapshot = db::snapshot(pool).await?;
        match db::jobs::get(&mut *snapshot, tenant, id).await? {
            Some(job) => Self::of(&mut snapshot, tenant, job).await.map(Some),
            None => Ok(None),
        }
    }

    /// Reads a page of jobs.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn list(
        pool: &PgPool,
        tenant: TenantId,
        page: Page<JobId>,
        filter: &Filter,
    ) -> sqlx::Result<Slice<Self>> {
        let mut snapshot = db::snapshot(pool).await?;
        let slice = db::jobs::list(&mut *snapshot, tenant, page, filter).await?;
        let mut rows = Vec::with_capacity(slice.rows.len());
        for job in slice.rows {
            rows.push(Self::of(&mut snapshot, tenant, job).await?);
        }
        let has_more = slice.has_more;
        Ok(Slice { rows, has_more })
    }

    /// What `snapshot` says besides of a job that was read in it.
    async fn of(snapshot: &mut PgConnection, tenant: TenantId, job: Job) -> sqlx::Result<Self> {
        let place = match job.status {
            JobStatus::Queued => db::places::get(&mut *snapshot, tenant, job.id).await?,
            _ => None,
        };
        let attempts = match job.attempts {
            0 => Vec::new(),
            _ => db::attempts::list(&mut *snapshot, tenant, job.id).await?,
        };
        let phases = db::phases::list(&mut *snapshot, tenant, job.id).await?;
        Ok(Self {
            job,
            place,
            attempts,
            phases,
        })
    }

    /// Changes whenever the object does, but for its estimates.
    pub(crate) fn etag(&self) -> String {
        match self.place {
            Some(place) => format!(
                "W/\"{}.{}.{}\"",
                self.job.version,
                place.ahead,
                place.reason.as_str()
            ),
            None => format!("W/\"{}\"", self.job.version),
        }
    }

    /// The object.
    pub(crate) fn object(self) -> JobObject {
        object(self, OffsetDateTime::now_utc())
    }

    /// The object in a list: without what makes it long.
    pub(crate) fn listed(self) -> JobObject {
        JobObject {
            recipe: None,
            ..self.object()
        }
    }
}

fn object(seen: Seen, now: OffsetDateTime) -> JobObject {
    let Seen {
        job,
        place,
        attempts,
        phases,
    } = seen;
    let eta = eta_seconds(&job, &phases, now);
    let progress = Progress {
        fraction: if job.status == JobStatus::Succeeded {
            1.0
        } else {
            job.progress.fraction
        },
        epoch: job.progress.epoch,
        n_epochs: job
            .progress
            .n_epochs
            .or(job.recipe.as_ref().map(|recipe| recipe.n_epochs)),
        step: job.progress.step,
        n_steps: job.progress.n_steps,
        samples_per_second: job.progress.samples_per_second,
        eta_seconds: eta,
    };
    let queue = place.map(|place| queue(place, now));
    let determinism = Determinism::of(&job, &attempts);
    let timestamp = |at: Option<OffsetDateTime>| at.map(OffsetDateTime::unix_timestamp);
    JobObject {
        id: job.id,
        object: "fine_tuning.job",
        created_at: job.created_at.unix_timestamp(),
        started_at: timestamp(job.started_at),
        finished_at: timestamp(job.finished_at),
        estimated_finish: eta
            .and_then(|eta| i64::try_from(eta).ok())
            .map(|eta| now.unix_timestamp() + eta),
        cancel_requested_at: timestamp(job.cancel_requested_at),
        stop_requested_at: timestamp(job.stop_requested_at),
        model: job.model,
        fine_tuned_model: job.fine_tuned_model,
        organization_id: "rehead",
        status: job.status,
        is_terminal: job.status.is_terminal(),
        phase: job.phase,
        phases,
        progress,
        queue,
        training_file: job.request.training_file,
        validation_file: job.request.validation_file,
        result_files: Vec::new(),
        trained_tokens: None,
        suffix: job.request.suffix,
        seed: job.seed,
        priority: job.request.priority,
        timeout_seconds: job.request.timeout_seconds,
        hyperparameters: hyperparameters(&job.request.transfer, job.recipe.as_ref()),
        method: Method {
            kind: "transfer",
            transfer: job.request.transfer,
        },
        resolved: settled(job.resolved),
        recipe: job.recipe,
        integrations: Vec::new(),
        metadata: job.request.metadata,
        metrics: job.metrics,
        best_checkpoint: job.best_checkpoint,
        attempts,
        budgets: job.budgets,
        error: job.error,
        determinism,
    }
}

fn queue(place: Place, now: OffsetDateTime) -> Queue {
    Queue {
        position: place.ahead + 1,
        ahead: place.ahead,
        reason: place.reason,
        until: place.until.map(OffsetDateTime::unix_timestamp),
        estimated_start: place.estimate.map(|estimate| EstimatedStart {
            p50: (now + estimate.p50).unix_timestamp(),
            p90: (now + estimate.p90).unix_timestamp(),
        }),
    }
}

/// From the speed so far; nothing while there is no speed.
fn eta_seconds(job: &Job, phases: &[PhaseSpan], now: OffsetDateTime) -> Option<u64> {
    if !job.status.is_leased() {
        return None;
    }
    let progress = job.progress;
    let seconds = match (
        job.phase,
        progress.n_steps,
        progress.samples_per_second,
        &job.recipe,
    ) {
        (Phase::Training, Some(n_steps), Some(speed), Some(recipe)) if speed > 0.0 => {
            let samples = f64::from(recipe.batch_size) * f64::from(recipe.accumulate);
            n_steps.saturating_sub(progress.step) as f64 * samples / speed
        }
        (Phase::CachingFeatures, ..) if progress.fraction > 0.02 => {
            let present = phases.last().filter(|span| span.ended_at.is_none())?;
            let elapsed = (now - present.started_at).as_seconds_f64();
            elapsed * (1.0 - progress.fraction) / progress.fraction
        }
        _ => return None,
    };
    (seconds.is_finite() && seconds >= 0.0).then_some(seconds.ceil() as u64)
}

fn hyperparameters(transfer: &Transfer, recipe: Option<&Recipe>) -> OpenAiHyperparameters {
    let asked = &transfer.hyperparameters;
    OpenAiHyperparameters {
        n_epochs: recipe.map_or(asked.n_epochs, |recipe| Auto::Value(recipe.n_epochs.into())),
        batch_size: recipe.map_or(asked.batch_size, |recipe| {
            Auto::Value(recipe.batch_size.into())
        }),
        learning_rate_multiplier: asked.learning_rate_multiplier,
    }
}

/// By the option's name.
pub(crate) fn settled(resolved: Vec<Resolved>) -> BTreeMap<String, Settled> {
    resolved
        .into_iter()
        .map(|one| {
            (
                one.option,
                Settled {
                    value: one.value,
                    reason: one.reason,
                },
            )
        })
        .collect()
}
