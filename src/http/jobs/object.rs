//! The job object: OpenAI's fields, so that OpenAI's clients can read it, and further ones: queue
//! position, progress, resolved options, attempts.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    db::{
        attempts::Attempt,
        jobs::{Budgets, Job, JobError},
        phases::PhaseSpan,
        queue_position::QueuePosition,
        tenants::TenantId,
    },
    domain::{
        checkpoint::Metrics,
        id::{CheckpointId, FileId, JobId, RankingId},
        job::{JobStatus, Phase, WaitReason},
        ranking::AUTO,
        recipe::{Recipe, Resolved},
        request::{Auto, OpenAiHyperparameters, Transfer},
        role::Role,
    },
    http::{
        api::{error::ApiError, identity::Identity, state::AppState},
        jobs::{determinism::Determinism, rows::JobRows, snapshot::JobSnapshot},
    },
};

/// A fine-tuning job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobObject {
    pub id: JobId,
    /// `fine_tuning.job`.
    pub object: &'static str,
    /// Unix seconds, as all times.
    pub created_at: i64,
    /// Start of the first attempt.
    pub started_at: Option<i64>,
    pub finished_at: Option<i64>,
    pub estimated_finish: Option<i64>,
    /// Time of the cancel request.
    pub cancel_requested_at: Option<i64>,
    /// Time of the request to stop early.
    pub stop_requested_at: Option<i64>,
    /// Model or checkpoint that it starts from; `auto` until it is chosen.
    pub model: String,
    /// `auto` where the model is chosen by the service; `resolved.model` says why.
    pub requested_model: String,
    /// The ranking that chooses the model; `null` where there is none, or it was deleted.
    pub ranking: Option<RankingId>,
    /// Id of the resulting model, once there is one.
    pub fine_tuned_model: Option<String>,
    /// Always `rehead`.
    pub organization_id: &'static str,
    pub status: JobStatus,
    /// True when the status is final.
    pub is_terminal: bool,
    /// Current phase.
    pub phase: Phase,
    /// The last 100 phases of all attempts, oldest first.
    pub phases: Vec<PhaseSpan>,
    pub progress: Progress,
    /// Queue position, while queued.
    pub queue: Option<Queue>,
    pub training_file: FileId,
    pub validation_file: Option<FileId>,
    /// The file with its metrics as CSV, once it has succeeded.
    pub result_files: Vec<FileId>,
    /// Samples that optimizer steps read in all attempts, once the job has ended: images are not
    /// counted in tokens.
    pub trained_tokens: Option<u64>,
    pub suffix: Option<String>,
    pub seed: u64,
    /// 0 (first) to 4 (last).
    pub priority: u8,
    /// Time limit of all attempts together; waiting and pauses do not count.
    pub timeout_seconds: u64,
    pub method: Method,
    /// The three that OpenAI's clients show; `method` and `resolved` have all.
    pub hyperparameters: OpenAiHyperparameters,
    /// The value of each `"auto"`, requested or by default, by option name.
    pub resolved: BTreeMap<String, ResolvedValue>,
    /// Every training choice, once the files are validated; `trainable` names the parameters that
    /// `freeze` leaves to train. `null` in lists.
    pub recipe: Option<Recipe>,
    /// Always empty.
    pub integrations: Vec<String>,
    pub metadata: BTreeMap<String, String>,
    /// Metrics of the best evaluation so far.
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
    /// Completed share of the current phase.
    pub fraction: f64,
    pub epoch: u32,
    pub n_epochs: Option<u32>,
    /// Optimizer steps taken.
    pub step: u64,
    pub n_steps: Option<u64>,
    pub samples_per_second: Option<f64>,
    /// Estimated time until the current phase ends.
    pub eta_seconds: Option<u64>,
}

/// Queue position of a job that waits for a worker.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Queue {
    /// From 1.
    pub position: u64,
    /// Jobs of all tenants that come first.
    pub ahead: u64,
    /// Why the job does not run yet.
    pub reason: WaitReason,
    /// Time at which a `backoff` ends.
    pub until: Option<i64>,
    /// Estimated from the durations of the last jobs that succeeded; `null` when there is none, or
    /// when the job does not wait for the jobs ahead.
    pub estimated_start: Option<EstimatedStart>,
    /// Time at which the queue was read: at most a second ago.
    pub as_of: i64,
}

/// Start if all jobs ahead take as long as the median job, and as the 90th percentile.
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
pub(crate) struct ResolvedValue {
    pub value: Value,
    /// Why it has this value.
    pub reason: String,
}

impl Queue {
    pub(crate) fn new(position: QueuePosition, now: OffsetDateTime) -> Self {
        Self {
            position: position.ahead + 1,
            ahead: position.ahead,
            reason: position.reason,
            until: position.until.map(OffsetDateTime::unix_timestamp),
            estimated_start: position.estimate.map(|estimate| EstimatedStart {
                p50: (now + estimate.p50).unix_timestamp(),
                p90: (now + estimate.p90).unix_timestamp(),
            }),
            as_of: position.as_of.unix_timestamp(),
        }
    }
}

/// Estimated from the throughput so far; `None` while there is none.
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
        (Phase::Training, Some(n_steps), Some(throughput), Some(recipe)) if throughput > 0.0 => {
            let samples = f64::from(recipe.batch_size) * f64::from(recipe.accumulate);
            n_steps.saturating_sub(progress.step) as f64 * samples / throughput
        }
        (Phase::CachingFeatures, ..) if progress.fraction > 0.02 => {
            let current = phases.last().filter(|span| span.ended_at.is_none())?;
            let elapsed = (now - current.started_at).as_seconds_f64();
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

/// Resolved values by option name.
pub(crate) fn resolved_values(resolved: Vec<Resolved>) -> BTreeMap<String, ResolvedValue> {
    let resolved = resolved.into_iter().map(|one| {
        let Resolved {
            option,
            value,
            reason,
        } = one;
        (option, ResolvedValue { value, reason })
    });
    resolved.collect()
}

impl JobObject {
    /// The object as a key of this role sees it: hosts and logs of trainers are the operator's.
    pub(crate) fn new(snapshot: &JobSnapshot, role: Role) -> Self {
        let JobRows {
            job,
            attempts,
            phases,
        } = &*snapshot.rows;
        let now = OffsetDateTime::now_utc();
        let eta = eta_seconds(job, phases, now);
        let request = &job.request;
        let trained = attempts
            .iter()
            .filter_map(|attempt| attempt.trained_samples);
        let trained_samples = trained.sum();
        let timestamp = |at: Option<OffsetDateTime>| at.map(OffsetDateTime::unix_timestamp);
        Self {
            id: job.id,
            object: "fine_tuning.job",
            created_at: job.created_at.unix_timestamp(),
            started_at: timestamp(job.started_at),
            finished_at: timestamp(job.finished_at),
            estimated_finish: eta.and_then(|eta| now.unix_timestamp().checked_add_unsigned(eta)),
            cancel_requested_at: timestamp(job.cancel_requested_at),
            stop_requested_at: timestamp(job.stop_requested_at),
            organization_id: "rehead",
            status: job.status,
            is_terminal: job.status.is_terminal(),
            phase: job.phase,
            progress: progress(job, eta),
            determinism: Determinism::of(job, attempts),
            budgets: job.budgets,
            phases: phases.clone(),
            queue: snapshot.position.map(|position| Queue::new(position, now)),
            training_file: request.training_file,
            validation_file: request.validation_file,
            result_files: job.result_file.into_iter().collect(),
            trained_tokens: job.status.is_terminal().then_some(trained_samples),
            suffix: request.suffix.clone(),
            seed: job.seed,
            priority: request.priority,
            timeout_seconds: request.timeout_seconds,
            hyperparameters: hyperparameters(&request.transfer, job.recipe.as_ref()),
            method: Method {
                kind: "transfer",
                transfer: request.transfer.clone(),
            },
            resolved: resolved_values(job.resolved.clone()),
            recipe: job.recipe.clone(),
            integrations: Vec::new(),
            metadata: request.metadata.clone(),
            metrics: job.metrics,
            best_checkpoint: job.best_checkpoint,
            attempts: attempts.iter().map(|one| one.seen_by(role)).collect(),
            error: job.error.clone(),
            model: job.model.clone(),
            requested_model: match job.model_reason {
                Some(_) => AUTO.to_owned(),
                None => job.model.clone(),
            },
            ranking: job.ranking,
            fine_tuned_model: job.fine_tuned_model.clone(),
        }
    }

    /// The job with this id.
    ///
    /// # Errors
    /// There is no such job.
    pub(crate) async fn get(
        state: &AppState,
        identity: &Identity,
        id: JobId,
    ) -> Result<Self, ApiError> {
        let snapshot = JobSnapshot::read(state, identity.tenant, id).await?;
        snapshot
            .map(|snapshot| Self::new(&snapshot, identity.role))
            .ok_or_else(|| ApiError::unknown(id))
    }

    /// The object as the data of a webhook's event, as a user sees it; `None` if there is no such
    /// job.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) async fn event_data(
        state: AppState,
        tenant: TenantId,
        id: JobId,
    ) -> sqlx::Result<Option<Value>> {
        let snapshot = JobSnapshot::read(&state, tenant, id).await?;
        let data = snapshot.map(|snapshot| serde_json::to_value(Self::new(&snapshot, Role::User)));
        data.transpose()
            .map_err(|error| sqlx::Error::Encode(error.into()))
    }

    /// The object in a list, without its recipe, which is long.
    pub(crate) fn listed(snapshot: &JobSnapshot, role: Role) -> Self {
        Self {
            recipe: None,
            ..Self::new(snapshot, role)
        }
    }
}

fn progress(job: &Job, eta_seconds: Option<u64>) -> Progress {
    let progress = job.progress;
    let is_done = job.status == JobStatus::Succeeded;
    Progress {
        fraction: if is_done { 1.0 } else { progress.fraction },
        epoch: progress.epoch,
        n_epochs: progress
            .n_epochs
            .or(job.recipe.as_ref().map(|recipe| recipe.n_epochs)),
        step: progress.step,
        n_steps: progress.n_steps,
        samples_per_second: progress.samples_per_second,
        eta_seconds,
    }
}
