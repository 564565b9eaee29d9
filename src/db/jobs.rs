//! Jobs as the API sees them: create, read, list; and the end of their wait for data sets.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::json;
use sqlx::{PgExecutor, PgPool, types::Json};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Page, Slice, convert,
    idempotency::{self, Idempotency},
    parents::Origin,
    tenants::TenantId,
};
use crate::domain::{
    checkpoint::Metrics,
    id::{CheckpointId, FileId, JobId, RankingId},
    job::{JobStatus, Phase, result_model},
    parent::Parent,
    problem::Problem,
    recipe::{Recipe, Resolved, SPEC_VERSION},
    request::JobRequest,
    resolve::Resolution,
};

/// A job to create.
#[derive(Debug, Clone)]
pub struct NewJob {
    pub id: JobId,
    pub tenant: TenantId,
    pub request: JobRequest,
    /// `None` when its model is to be chosen.
    pub origin: Option<Origin>,
    /// The request's own, or one drawn at random.
    pub seed: u64,
    /// `None` when a file's validation has not ended: the job then waits in `validating_files`.
    pub resolution: Option<Resolution>,
    pub idempotency: Option<Idempotency>,
}

/// The result of `create`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    New(JobId),
    /// The same key came with the same body before and made this job.
    Replayed(JobId),
    /// The same key came with another body.
    KeyConflict,
    /// The tenant has `limit` jobs waiting already.
    QueueFull {
        limit: u32,
    },
    /// The base model or a file was deleted in the meantime.
    InputGone,
}

/// Progress of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct JobProgress {
    pub step: u64,
    pub n_steps: Option<u64>,
    pub epoch: u32,
    pub n_epochs: Option<u32>,
    /// Fraction of the current phase that is done, 0 to 1.
    pub fraction: f64,
    pub samples_per_second: Option<f64>,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct JobError {
    /// Listed in docs/errors.md.
    pub code: String,
    pub message: String,
    /// The part of the request that it is about.
    pub param: Option<String>,
    /// True when another attempt would fail the same way: the request or the data must change.
    pub permanent: bool,
}

/// Attempts that did not end the job. One failure or crash more than the maximum fails it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Budgets {
    /// Attempts that ended with an error that may be temporary.
    pub failures: u32,
    pub max_failures: u32,
    /// Attempts whose trainer or worker died.
    pub crashes: u32,
    pub max_crashes: u32,
    /// Attempts that a stopping worker released with their state saved. Without a limit; pauses do
    /// not count.
    pub preemptions: u32,
}

/// The place of a job in the queue: all that its claims depend on beside its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub resource_class: String,
    /// 0 (first) to 4 (last).
    pub priority: i16,
    /// Order of arrival.
    pub seq: i64,
    /// Device memory that it needs, in MiB.
    pub device_mb: i32,
    pub spec_version: i32,
    /// Not claimed before this time.
    pub run_at: OffsetDateTime,
}

/// A job.
#[derive(Debug, Clone)]
pub struct Job {
    pub id: JobId,
    pub status: JobStatus,
    pub phase: Phase,
    /// Model or checkpoint that it starts from; `auto` until it is chosen.
    pub model: String,
    /// The ranking that chose its model, or will.
    pub ranking: Option<RankingId>,
    /// Why its model was chosen; `None` where the request names one, or none is chosen yet.
    pub model_reason: Option<String>,
    /// The model that it produced, once there is one.
    pub fine_tuned_model: Option<String>,
    /// The file with its metrics, once it has succeeded.
    pub result_file: Option<FileId>,
    pub seed: u64,
    pub request: JobRequest,
    /// `None` until its files are validated.
    pub recipe: Option<Recipe>,
    pub resolved: Vec<Resolved>,
    pub progress: JobProgress,
    /// Metrics of the best evaluation so far.
    pub metrics: Option<Metrics>,
    pub best_checkpoint: Option<CheckpointId>,
    pub error: Option<JobError>,
    /// Number of attempts so far.
    pub attempts: u32,
    pub budgets: Budgets,
    /// Device and threads of the last attempt, once its trainer was ready.
    pub device: Option<String>,
    pub threads: Option<u32>,
    /// Why another run may not produce the same bits; `None` when it does.
    pub nondeterminism_reason: Option<String>,
    /// Incremented by every change; used as an entity tag.
    pub version: i64,
    /// Number of its last event.
    pub last_event: u64,
    pub place: Place,
    pub created_at: OffsetDateTime,
    pub started_at: Option<OffsetDateTime>,
    pub cancel_requested_at: Option<OffsetDateTime>,
    pub stop_requested_at: Option<OffsetDateTime>,
    pub finished_at: Option<OffsetDateTime>,
}

/// Conditions of a list of jobs; all must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub status: Option<JobStatus>,
    pub model: Option<String>,
    pub created_after: Option<OffsetDateTime>,
    /// Only those that have ended, or only those that have not.
    pub is_terminal: Option<bool>,
    /// Entries that the metadata must contain.
    pub metadata: BTreeMap<String, String>,
}

/// A job in `validating_files` whose data sets' validation has ended.
#[derive(Debug, Clone)]
pub struct WaitingJob {
    pub id: JobId,
    pub tenant: TenantId,
    /// The row of `models` that its network comes from; `None` until it is chosen.
    pub model: Option<String>,
    /// Why it was chosen.
    pub model_reason: Option<String>,
    /// The ranking that chooses it, which has ended.
    pub ranking: Option<RankingId>,
    pub request: JobRequest,
    pub seed: u64,
    /// Model or checkpoint that it continues from; `None` when it starts from a base model.
    pub parent: Option<Parent>,
}

/// Creates a job, or finds the one that its idempotency key made.
pub async fn create(pool: &PgPool, job: &NewJob) -> sqlx::Result<Created> {
    if insert(pool, job).await? {
        return Ok(Created::New(job.id));
    }
    if let Some(idempotency) = &job.idempotency
        && let Some(created) = by_idempotency_key(pool, job.tenant, idempotency).await?
    {
        return Ok(created);
    }
    let full = sqlx::query_scalar!(
        "select t.max_queued from tenants t where t.id = $1 and t.max_queued <= (
            select count(*) from jobs j where j.tenant_id = t.id and j.status in ('queued', 'validating_files', 'paused'))",
        job.tenant.0
    );
    let full = full.fetch_optional(pool).await?;
    Ok(full.map_or(Created::InputGone, |limit| Created::QueueFull {
        limit: convert::to_small(limit),
    }))
}

/// Finds the job that an idempotency key made. Looked up before anything else is checked.
pub async fn by_idempotency_key(
    pool: &PgPool,
    tenant: TenantId,
    idempotency: &Idempotency,
) -> sqlx::Result<Option<Created>> {
    let row = sqlx::query!(
        "select id, body_sha256 from jobs where tenant_id = $1 and idempotency_key = $2",
        tenant.0,
        idempotency.key
    );
    Ok(row.fetch_optional(pool).await?.map(|row| {
        if idempotency.is_same(row.body_sha256.as_deref()) {
            Created::Replayed(JobId(row.id))
        } else {
            Created::KeyConflict
        }
    }))
}

/// The progress of a job, of a row with its columns.
macro_rules! progress_of {
    ($row:ident) => {
        $crate::db::jobs::JobProgress {
            step: convert::to_count($row.step),
            n_steps: $row.n_steps.map(convert::to_count),
            epoch: convert::to_small($row.epoch),
            n_epochs: $row.n_epochs.map(convert::to_small),
            fraction: $row.fraction,
            samples_per_second: $row.samples_per_second,
        }
    };
}

/// The place of a job in the queue, of a row with its columns.
macro_rules! place_of {
    ($row:ident) => {
        $crate::db::jobs::Place {
            resource_class: $row.resource_class,
            priority: $row.priority,
            seq: $row.seq,
            device_mb: $row.device_mb,
            spec_version: $row.spec_version,
            run_at: $row.run_at,
        }
    };
}

pub(super) use {place_of, progress_of};

/// A query for jobs: their columns, read here only, and a `where` clause with its bindings.
macro_rules! query_jobs {
    ($tail:literal, $($bindings:tt)+) => {
        sqlx::query!(
            r#"select id, status, phase, ranking, model_reason, fine_tuned_model, result_file, seed, request as "request: Json<JobRequest>",
                recipe as "recipe: Json<Recipe>", resolved as "resolved: Json<Vec<Resolved>>", step, n_steps, epoch,
                n_epochs, fraction, samples_per_second, metrics as "metrics: Json<Metrics>", best_checkpoint, error_code,
                error_message, error_param, error_permanent, token, failures, max_failures, crashes, max_crashes,
                preemptions, device, threads, nondeterminism_reason, version, events, created_at, started_at,
                cancel_requested_at, stop_requested_at, finished_at, resource_class, priority, seq, device_mb,
                spec_version, run_at
            from jobs "# + $tail,
            $($bindings)+
        )
        .try_map(|row| {
            Ok(Job {
                id: JobId(row.id),
                status: convert::status(&row.status)?,
                phase: convert::parse("jobs.phase", &row.phase)?,
                model: row.request.model.clone(),
                ranking: row.ranking.map(RankingId),
                model_reason: row.model_reason,
                fine_tuned_model: row.fine_tuned_model,
                result_file: row.result_file.map(FileId),
                seed: row.seed.cast_unsigned(),
                request: row.request.0,
                recipe: row.recipe.map(|recipe| recipe.0),
                resolved: row.resolved.0,
                progress: progress_of!(row),
                metrics: row.metrics.map(|metrics| metrics.0),
                best_checkpoint: row.best_checkpoint.map(CheckpointId),
                error: row.error_code.map(|code| JobError {
                    code,
                    message: row.error_message.unwrap_or_default(),
                    param: row.error_param,
                    permanent: row.error_permanent.unwrap_or_default(),
                }),
                attempts: u32::try_from(row.token).unwrap_or(u32::MAX),
                budgets: Budgets {
                    failures: convert::to_small(row.failures),
                    max_failures: convert::to_small(row.max_failures),
                    crashes: convert::to_small(row.crashes),
                    max_crashes: convert::to_small(row.max_crashes),
                    preemptions: convert::to_small(row.preemptions),
                },
                device: row.device,
                threads: row.threads.map(convert::to_small),
                nondeterminism_reason: row.nondeterminism_reason,
                version: row.version,
                last_event: convert::to_count(row.events),
                place: place_of!(row),
                created_at: row.created_at,
                started_at: row.started_at,
                cancel_requested_at: row.cancel_requested_at,
                stop_requested_at: row.stop_requested_at,
                finished_at: row.finished_at,
            })
        })
    };
}

pub async fn get(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    id: JobId,
) -> sqlx::Result<Option<Job>> {
    query_jobs!("where id = $1 and tenant_id = $2", id.0, tenant.0)
        .fetch_optional(executor)
        .await
}

/// Versions of those of these jobs that exist.
pub async fn versions(pool: &PgPool, jobs: &[JobId]) -> sqlx::Result<HashMap<JobId, i64>> {
    let ids: Vec<Uuid> = jobs.iter().map(|job| job.0).collect();
    let versions = sqlx::query!("select id, version from jobs where id = any($1)", &ids)
        .map(|row| (JobId(row.id), row.version))
        .fetch_all(pool)
        .await?;
    Ok(versions.into_iter().collect())
}

pub async fn list(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    page: Page<JobId>,
    filter: &Filter,
) -> sqlx::Result<Slice<Job>> {
    let jobs = query_jobs!(
        "where tenant_id = $1 and ($2::uuid is null or case when $3 then id < $2 else id > $2 end)
            and ($4::text is null or status = $4) and ($5::text is null or request ->> 'model' = $5)
            and ($6::timestamptz is null or created_at > $6) and metadata @> $7
            and ($8::boolean is null or (finished_at is not null) = $8)
        order by case when $3 then id end desc, case when not $3 then id end limit $9",
        tenant.0,
        page.after.map(|id| id.0),
        page.descending,
        filter.status.map(JobStatus::as_str),
        filter.model,
        filter.created_after,
        Json(&filter.metadata) as Json<&BTreeMap<String, String>>,
        filter.is_terminal,
        i64::from(page.limit) + 1
    );
    Ok(Slice::of(jobs.fetch_all(executor).await?, page.limit))
}

/// Jobs in `validating_files` whose data sets' validation has ended, oldest first.
pub async fn waiting_for_files(pool: &PgPool, limit: u32) -> sqlx::Result<Vec<WaitingJob>> {
    sqlx::query!(
        r#"select j.id, j.tenant_id, j.model, j.model_reason, j.ranking, j.seed, j.request as "request: Json<JobRequest>",
            j.parent as "parent: Json<Parent>"
        from jobs j
        left join files training on training.id = j.training_file and training.tenant_id = j.tenant_id
        left join files validation on validation.id = j.validation_file and validation.tenant_id = j.tenant_id
        where j.status = 'validating_files' and coalesce(training.status, '') not in ('downloading', 'uploaded')
            and coalesce(validation.status, '') not in ('downloading', 'uploaded')
            and (j.model is not null or not exists (
                select from rankings r where r.id = j.ranking and r.status = 'queued'
            ))
        order by j.seq limit $1"#,
        i64::from(limit)
    )
    .map(|row| WaitingJob {
        id: JobId(row.id),
        tenant: TenantId(row.tenant_id),
        model: row.model,
        model_reason: row.model_reason,
        ranking: row.ranking.map(RankingId),
        request: row.request.0,
        seed: row.seed.cast_unsigned(),
        parent: row.parent.map(|parent| parent.0),
    })
    .fetch_all(pool)
    .await
}

/// The outcome of choosing a job's model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// The job has it.
    Taken,
    /// The model was deleted.
    Gone,
    /// The job had a model before, or has ended.
    Late,
}

/// Gives a waiting job the base model that was chosen for it.
pub async fn choose_model(
    pool: &PgPool,
    job: &WaitingJob,
    model: &str,
    reason: &str,
) -> sqlx::Result<Chosen> {
    let message = format!("base model `{model}`: {reason}");
    let chosen = sqlx::query!(
        r#"with model as (
            select id from models where tenant_id = $2 and id = $3 and status = 'ready' for key share
        ), job as (
            update jobs j set model = model.id, model_reason = $4, phase = 'waiting', events = events + 1,
                request = jsonb_set(request, '{model}', to_jsonb(model.id)), result_model = $5
            from model where j.id = $1 and j.status = 'validating_files' and j.model is null
            returning j.id, j.events
        ), event as (
            insert into job_events (job_id, seq, kind, level, message, data)
            select id, events, 'phase', 'info', $6, jsonb_build_object('phase', 'waiting', 'model', $3::text) from job
        )
        select exists (select from job) as "is_taken!", exists (select from model) as "is_there!""#,
        job.id.0,
        job.tenant.0,
        model,
        reason,
        result_model(model, job.request.suffix.as_deref(), job.id),
        message
    );
    let chosen = chosen.fetch_one(pool).await?;
    Ok(match (chosen.is_taken, chosen.is_there) {
        (true, _) => Chosen::Taken,
        (false, true) => Chosen::Late,
        (false, false) => Chosen::Gone,
    })
}

/// Ends the wait for files: queues the job, or fails it with the first problem (its last event
/// holds all of them). Leaves alone a job that another worker resolved or a user cancelled. Returns
/// the status that the job has then.
pub async fn resolve(
    pool: &PgPool,
    id: JobId,
    outcome: &Result<Resolution, Vec<Problem>>,
) -> sqlx::Result<Option<JobStatus>> {
    match outcome {
        Ok(resolution) => {
            sqlx::query!(
                "with job as (
                    update jobs set status = 'queued', recipe = $2, resolved = $3, device_mb = $4, spec_version = $5, run_at = now(),
                        events = events + 2
                    where id = $1 and status = 'validating_files' returning id, events
                )
                insert into job_events (job_id, seq, kind, level, message)
                select job.id, job.events - 2 + e.seq, e.kind, 'info', e.message
                from job, (values (1, 'validated', 'the files are validated'), (2, 'queued', 'the job waits for a worker'))
                    as e (seq, kind, message)",
                id.0,
                Json(&resolution.recipe) as Json<&Recipe>,
                Json(&resolution.resolved) as Json<&Vec<Resolved>>,
                convert::from_small(resolution.device_mb),
                convert::from_small(SPEC_VERSION)
            )
            .execute(pool)
            .await?;
        }
        Err(problems) => {
            let unknown =
                Problem::new("", "invalid_request", "the job cannot run with these files");
            let first = problems.first().unwrap_or(&unknown);
            sqlx::query!(
                "with job as (
                    update jobs set status = 'failed', finished_at = now(), error_code = $2, error_message = $3,
                        error_permanent = true, error_param = nullif($4, ''), events = events + 1
                    where id = $1 and status = 'validating_files' returning id, events
                )
                insert into job_events (job_id, seq, kind, level, message, data)
                select id, events, 'failed', 'error', $3, $5 from job",
                id.0,
                first.code,
                first.message,
                first.path,
                json!({ "code": first.code, "details": problems })
            )
            .execute(pool)
            .await?;
        }
    }
    let status = sqlx::query_scalar!("select status from jobs where id = $1", id.0)
        .fetch_optional(pool)
        .await?;
    status.map(|word| convert::status(&word)).transpose()
}

/// Inserts a job. Returns `false` if the key is taken, the queue is full, or an input was deleted.
async fn insert(pool: &PgPool, job: &NewJob) -> sqlx::Result<bool> {
    let (request, origin) = (&job.request, job.origin.as_ref());
    let base_model = origin.map_or(request.model.as_str(), |origin| &origin.base_model);
    let resolution = job.resolution.as_ref();
    let recipe = resolution.map(|resolution| Json(&resolution.recipe));
    let resolved: &[Resolved] = resolution.map_or(&[], |resolution| &resolution.resolved);
    let status = if recipe.is_some() {
        JobStatus::Queued
    } else {
        JobStatus::ValidatingFiles
    };
    let (key, body_sha256) = idempotency::columns(job.idempotency.as_ref());
    let checkpoints = origin.map_or(&[][..], |origin| &origin.checkpoints);
    let checkpoints: Vec<Uuid> = checkpoints.iter().map(|one| one.0).collect();
    // Inputs are locked because `delete` locks them too. Concurrent requests may exceed the cap by
    // a few jobs.
    let id = sqlx::query_scalar!(
        "with model as (
            select id from models where tenant_id = $2 and id = $3 and status = 'ready' for key share
        ), checkpoint as (
            select id from checkpoints where id = any($18) and state = 'committed' for share
        ), training as (
            select id from files where tenant_id = $2 and id = $4 and purpose = 'fine-tune' for key share
        ), validation as (
            select id from files where tenant_id = $2 and id = $5 and purpose = 'fine-tune' for key share
        ), job as (
            insert into jobs (id, tenant_id, model, training_file, validation_file, status, priority, idempotency_key,
                body_sha256, result_model, seed, timeout_seconds, metadata, request, recipe, resolved, parent,
                parent_checkpoints, device_mb, spec_version, events)
            select $1, t.id, (select id from model), training.id, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19, $20, case when $6 = 'queued' then 2 else 1 end
            from tenants t, training
            where t.id = $2 and ($3::text is null or exists (select from model)) and ($5::uuid is null or exists (select from validation))
                and (select count(*) from checkpoint) = cardinality($18::uuid[]) and t.max_queued > (
                select count(*) from jobs j where j.tenant_id = t.id and j.status in ('queued', 'validating_files', 'paused'))
            on conflict (tenant_id, idempotency_key) do nothing returning id
        ), event as (
            insert into job_events (job_id, seq, kind, level, message)
            select job.id, e.seq, e.kind, 'info', e.message
            from job, (values (1, 'created', 'the job is created'), (2, 'queued', 'the job waits for a worker')) as e (seq, kind, message)
            where e.seq = 1 or $6 = 'queued'
        )
        select id from job",
        job.id.0,
        job.tenant.0,
        origin.map(|origin| origin.model.as_str()),
        request.training_file.0,
        request.validation_file.map(|file| file.0),
        status.as_str(),
        i16::from(request.priority),
        key,
        body_sha256,
        result_model(base_model, request.suffix.as_deref(), job.id),
        job.seed.cast_signed(),
        convert::from_count(request.timeout_seconds),
        Json(&request.metadata) as Json<&BTreeMap<String, String>>,
        Json(request) as Json<&JobRequest>,
        recipe as Option<Json<&Recipe>>,
        Json(resolved) as Json<&[Resolved]>,
        origin.and_then(|origin| origin.parent.as_ref()).map(Json) as Option<Json<&Parent>>,
        &checkpoints,
        resolution.map_or(0, |resolution| convert::from_small(resolution.device_mb)),
        convert::from_small(SPEC_VERSION)
    );
    Ok(id.fetch_optional(pool).await?.is_some())
}
