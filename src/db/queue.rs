//! The queue, as workers see it: claim, heartbeat, record, checkpoint, finish, reap.
//!
//! A running job has one row in `job_leases`; whoever deletes it ends the attempt, once. Each claim has a new token, and
//! every write of a worker carries it: one with an older token writes nothing. No transaction stays open while a job
//! runs. All times are the database's.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{PgPool, types::Json};
use uuid::Uuid;

use super::{
    checkpoints::{self, Checkpoint},
    convert,
    events::NewEvent,
    jobs::JobProgress,
    metrics::Evaluation,
    retry,
    tenants::TenantId,
};
use crate::domain::{
    base_model::{Preprocessing, SourceTask},
    checkpoint::Metrics,
    id::{CheckpointId, FileId, JobId, WorkerId},
    job::{JobStatus, Outcome, Phase},
    parent::Parent,
    progress::{Step, Usage},
    recipe::{Recipe, SPEC_VERSION},
    report::Report,
};

/// The resource class of every job so far.
pub const DEFAULT_CLASS: &str = "default";

/// What a worker offers.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    pub worker: WorkerId,
    pub class: &'a str,
    /// What a job may take now of the device's memory, in MiB.
    pub device_mb: u32,
    /// What one job could take if this worker had no other.
    pub capacity_mb: u32,
    /// A job that waited so long for more memory than is free is next, where it could fit: smaller ones wait.
    pub reserve: Duration,
    /// How long the lease holds unless a heartbeat comes.
    pub ttl: Duration,
}

/// A job with its lease, and all that a plan needs.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub job: JobId,
    pub tenant: TenantId,
    /// Goes with every write; also the number of the attempt.
    pub token: i64,
    pub recipe: Recipe,
    /// Samples that run together in training, where memory ran out in an earlier attempt.
    pub micro_batch: Option<u32>,
    pub timeout_seconds: u64,
    /// Device memory that it needs, in MiB.
    pub device_mb: u32,
    /// Seconds that its attempts so far have taken. What it waited or was paused does not count.
    pub elapsed_seconds: f64,
    pub base_model: ClaimedModel,
    /// What it goes on from, where that is not the base model itself.
    pub parent: Option<Parent>,
    /// The name its model will have.
    pub result_model: String,
    pub training: Pack,
    pub validation: Option<Pack>,
    /// The checkpoint to go on from.
    pub resume: Option<Checkpoint>,
}

/// The base model of a claimed job.
#[derive(Debug, Clone)]
pub struct ClaimedModel {
    pub id: String,
    pub architecture: String,
    pub source_task: SourceTask,
    pub preprocessing: Preprocessing,
    /// Lower-case hex.
    pub weights_sha256: String,
}

/// A validated data set in the object store, at `files/<file in hex>/pack.safetensors`.
#[derive(Debug, Clone)]
pub struct Pack {
    pub file: FileId,
    /// Lower-case hex.
    pub sha256: String,
    pub bytes: u64,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    pub cancel_requested: bool,
    pub pause_requested: bool,
    pub stop_requested: bool,
}

/// What a trainer said since the last time.
#[derive(Debug, Clone, Default)]
pub struct Records {
    pub phase: Option<Phase>,
    pub progress: Option<JobProgress>,
    pub steps: Vec<Step>,
    /// Each also becomes an event.
    pub evaluations: Vec<Evaluation>,
    /// Device and threads, when the trainer said that it is ready.
    pub device: Option<(String, u32)>,
    pub events: Vec<NewEvent>,
    pub shrunk: Option<NewBatch>,
    pub usage: Option<Usage>,
}

/// Smaller batches, since memory ran out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBatch {
    /// Samples that run together in training, where it is about those.
    pub micro_batch: Option<u32>,
    /// Why another run may not give the same bits.
    pub best_effort: String,
}

/// A checkpoint whose objects are complete.
#[derive(Debug, Clone)]
pub struct NewCheckpoint {
    pub step: u64,
    pub epoch: u32,
    /// Prefix in the object store, with its last `/`.
    pub objects: String,
    pub bytes: u64,
    /// Lower-case hex.
    pub manifest_sha256: String,
    pub metrics: Option<Metrics>,
    pub best: bool,
    /// How long training stood still for it.
    pub stall_ms: u64,
}

/// The model that a job made. What it shares with its base model is copied from there.
#[derive(Debug, Clone)]
pub struct NewModel {
    /// In label order.
    pub labels: Vec<String>,
    /// Of the checkpoint it was made from.
    pub metrics: Metrics,
    pub report: Report,
    /// Prefix of its bundle in the object store, with its last `/`.
    pub objects: String,
    /// Trainable numbers of trunk and head.
    pub parameters: u64,
    /// Of its `model.safetensors`, lower-case hex.
    pub weights_sha256: String,
}

/// How long a claim waits for its tenant's row, which others who claim and finish that tenant's jobs hold for a moment each.
const TENANT_WAIT_MS: u32 = 100;

/// Takes the first job in line: of the tenant that has had least for its weight, by priority, then age. Jobs of newer
/// versions than this build's are left alone.
///
/// A tenant whose row is locked is passed by. Where there is no other, a moment is waited for it, since it may be the only one
/// there is: `None` though there is work means that somebody kept it locked.
pub async fn claim(pool: &PgPool, offer: Offer<'_>) -> sqlx::Result<Option<Claimed>> {
    macro_rules! claim {
        ($locked:literal, $executor:expr) => {
            sqlx::query_as!(
                ClaimRow,
                r#"with reserved as materialized (
                    select from jobs j join tenants t on t.id = j.tenant_id
                    where j.status = 'queued' and j.resource_class = $1 and j.device_mb > $2 and j.device_mb <= $5
                        and j.run_at < now() - make_interval(secs => $6) and j.spec_version <= $7
                        and not t.paused and t.running < t.max_running
                    limit 1
                ), candidate as materialized (
                    -- Tenants in their order, and one probe of the index for each until there is a job that nobody else is
                    -- taking; then that tenant's row is locked, so that its cap and its turn are decided in one place. Not its
                    -- key: whoever adds jobs holds that.
                    select t.id as tenant_id, head.id as job_id
                    from (
                        select id, vtime from tenants
                        where not paused and running < max_running and not exists (select from reserved) order by vtime, id
                    ) turn cross join lateral (
                        select j.id from jobs j
                        where j.tenant_id = turn.id and j.status = 'queued' and j.resource_class = $1 and j.device_mb <= $2
                            and j.run_at <= now() and j.spec_version <= $7
                        order by j.priority, j.seq limit 1 for no key update of j skip locked
                    ) head join tenants t on t.id = turn.id and not t.paused and t.running < t.max_running
                    order by turn.vtime, turn.id limit 1 for no key update of t "#
                    + $locked
                    + r#"), job as (
                    update jobs j set status = 'running', phase = 'preparing', fraction = 0, token = j.token + 1,
                        events = j.events + 1, started_at = coalesce(j.started_at, now())
                    from candidate where j.id = candidate.job_id and j.status = 'queued' returning j.*
                ), tenant as (
                    update tenants t set running = t.running + 1, vtime = 1 / t.weight + greatest(t.vtime, (
                        select min(busy.vtime - 1 / busy.weight) from tenants busy where busy.running > 0 and busy.id <> t.id
                    ))
                    from job where t.id = job.tenant_id
                ), lease as (
                    insert into job_leases (job_id, token, tenant_id, worker_id, expires_at)
                    select id, token, tenant_id, $3, now() + make_interval(secs => $4) from job
                ), resume as (
                    select c.* from job join checkpoints c on c.job_id = job.id and c.state = 'committed'
                    order by c.step desc, c.token desc limit 1
                ), attempt as (
                    insert into attempts (job_id, token, worker_id, host, resumed_step)
                    select id, token, $3, (select host from workers where id = $3), (select step from resume) from job
                ), event as (
                    insert into job_events (job_id, seq, token, kind, level, message, data)
                    select id, events, token, 'started', 'info',
                        format('attempt %s started', token)
                            || coalesce(' from the checkpoint of step ' || (select step from resume), ''),
                        jsonb_build_object('attempt', token, 'step', (select step from resume))
                    from job
                )
                select job.id, job.tenant_id, job.token, job.recipe as "recipe!: Json<Recipe>", job.micro_batch,
                    job.timeout_seconds, job.device_mb,
                    (select coalesce(sum(extract(epoch from ended_at - started_at)), 0)::double precision from attempts
                        where job_id = job.id) as "elapsed_seconds!",
                    job.result_model,
                    coalesce(model.base_model, model.id) as "model_id!", job.parent as "parent: Json<Parent>",
                    model.architecture, model.source_task as "source_task: Json<SourceTask>",
                    model.preprocessing as "preprocessing!: Json<Preprocessing>", coalesce(model.base_weights_sha256, model.weights_sha256)
                        as "weights_sha256!",
                    job.training_file, training.pack_sha256 as "training_sha256!", training.pack_bytes as "training_bytes!",
                    job.validation_file, validation.pack_sha256 as "validation_sha256?",
                    validation.pack_bytes as "validation_bytes?"
                from job
                join models model on model.tenant_id = job.tenant_id and model.id = job.model
                join files training on training.id = job.training_file
                left join files validation on validation.id = job.validation_file"#,
                offer.class,
                convert::from_small(offer.device_mb),
                offer.worker.0,
                convert::seconds(offer.ttl),
                convert::from_small(offer.capacity_mb),
                convert::seconds(offer.reserve),
                convert::from_small(SPEC_VERSION)
            )
            .fetch_optional($executor)
        };
    }
    let row = match retry(|| claim!("skip locked", pool)).await? {
        Some(row) => Some(row),
        None => {
            let patient = || async {
                let mut transaction = pool.begin().await?;
                sqlx::query(sqlx::AssertSqlSafe(format!(
                    "set local lock_timeout = {TENANT_WAIT_MS}"
                )))
                .execute(&mut *transaction)
                .await?;
                let row = claim!("", &mut *transaction).await?;
                transaction.commit().await?;
                Ok(row)
            };
            match retry(patient).await {
                // lock_not_available
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03") => {
                    None
                }
                other => other?,
            }
        }
    };
    let Some(row) = row else {
        return Ok(None);
    };
    let resume = checkpoints::latest(pool, JobId(row.id)).await?;
    Ok(Some(row.with(resume)))
}

/// Keeps a lease for another `ttl`. `None`: it is lost, end the trainer.
pub async fn heartbeat(
    pool: &PgPool,
    job: JobId,
    token: i64,
    ttl: Duration,
) -> sqlx::Result<Option<Heartbeat>> {
    let heartbeat = || {
        sqlx::query_as!(
            Heartbeat,
            r#"update job_leases l set expires_at = now() + make_interval(secs => $3) from jobs j
            where l.job_id = $1 and l.token = $2 and j.id = l.job_id
            returning j.cancel_requested_at is not null as "cancel_requested!",
                j.status = 'pausing' as "pause_requested!", j.stop_requested_at is not null as "stop_requested!""#,
            job.0,
            token,
            convert::seconds(ttl)
        )
        .fetch_optional(pool)
    };
    retry(heartbeat).await
}

/// Notes the most memory that an attempt's trainer took; a later attempt is only claimed where that fits.
pub async fn measured(pool: &PgPool, job: JobId, token: i64, peak_mb: u32) -> sqlx::Result<()> {
    let note = || {
        sqlx::query!(
            "with lease as (
                select job_id from job_leases where job_id = $1 and token = $2 for update
            ), job as (
                update jobs j set device_mb = greatest(j.device_mb, $3) from lease where j.id = lease.job_id
            )
            update attempts a set peak_bytes = greatest(coalesce(a.peak_bytes, 0), $3::bigint << 20) from lease where a.job_id = lease.job_id and a.token = $2",
            job.0,
            token,
            convert::from_small(peak_mb)
        )
        .execute(pool)
    };
    retry(note).await?;
    Ok(())
}

/// Writes what a trainer said. `false`: the lease is lost, nothing was written.
pub async fn record(
    pool: &PgPool,
    job: JobId,
    token: i64,
    records: &Records,
) -> sqlx::Result<bool> {
    let columns = Columns::of(records);
    let record = || record_columns(pool, job, token, records, &columns);
    retry(record).await
}

/// Adds a checkpoint. `None`: the lease is lost, nothing was written, its objects are the caller's to delete.
pub async fn commit_checkpoint(
    pool: &PgPool,
    job: JobId,
    token: i64,
    checkpoint: &NewCheckpoint,
) -> sqlx::Result<Option<CheckpointId>> {
    let id = CheckpointId::new();
    let message = match &checkpoint.metrics {
        Some(metrics) if checkpoint.best => {
            format!(
                "step {} saved: the best so far, {}",
                checkpoint.step,
                metrics.headline()
            )
        }
        _ => format!("step {} saved", checkpoint.step),
    };
    let commit = || {
        sqlx::query_scalar!(
            "with lease as (
                select job_id, token from job_leases where job_id = $1 and token = $2 for update
            ), checkpoint as (
                insert into checkpoints (id, job_id, token, step, epoch, objects, bytes, manifest_sha256, metrics, best)
                select $3, lease.job_id, lease.token, $4, $5, $6, $7, $8, $9, $10 from lease returning id, job_id
            ), job as (
                update jobs j set events = j.events + 1,
                    best_checkpoint = case when $10 then checkpoint.id else j.best_checkpoint end
                from checkpoint where j.id = checkpoint.job_id returning j.id, j.events
            ), event as (
                insert into job_events (job_id, seq, token, kind, level, message, data)
                select id, events, $2, 'checkpoint', 'info', $11, $12 from job
            )
            select id from checkpoint",
            job.0,
            token,
            id.0,
            convert::from_count(checkpoint.step),
            convert::from_small(checkpoint.epoch),
            checkpoint.objects,
            convert::from_count(checkpoint.bytes),
            checkpoint.manifest_sha256,
            checkpoint.metrics.as_ref().map(Json) as Option<Json<&Metrics>>,
            checkpoint.best,
            message,
            json!({
                "checkpoint": id, "step": checkpoint.step, "epoch": checkpoint.epoch, "best": checkpoint.best,
                "stall_ms": checkpoint.stall_ms,
            })
        )
        .fetch_optional(pool)
    };
    Ok(retry(commit).await?.map(CheckpointId))
}

/// How an attempt's trainer ended, as far as its worker saw.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    pub exit_code: Option<i32>,
    /// The signal that ended it, such as `SIGKILL`.
    pub exit_signal: Option<String>,
    /// The last lines of its standard error.
    pub log_tail: Option<String>,
}

/// Ends an attempt: job, lease, model (exactly when it succeeded) and last event in one statement.
///
/// A success stands against a cancellation that comes late; every other outcome gives way to it. `None`: the lease is
/// lost, nothing was written.
pub async fn finish(
    pool: &PgPool,
    job: JobId,
    token: i64,
    outcome: &Outcome,
    model: Option<&NewModel>,
    trace: &Trace,
) -> sqlx::Result<Option<JobStatus>> {
    let mut ending = Ending {
        trace: Some(trace),
        ..Ending::default()
    };
    match outcome {
        Outcome::Yielded => ending.outcome = "yielded",
        Outcome::Succeeded => ending.outcome = "succeeded",
        Outcome::Cancelled => ending.outcome = "cancelled",
        Outcome::Failed {
            code,
            message,
            retryable,
        } => {
            ending.outcome = "failed";
            ending.code = Some(code);
            ending.message = Some(message);
            ending.retryable = *retryable;
        }
        Outcome::Crashed { message } => {
            ending.outcome = "crashed";
            ending.message = Some(message);
        }
    }
    let end = || end_attempt(pool, job, token, ending, model);
    retry(end).await
}

/// Ends one attempt whose lease ran out more than `grace` ago, and says what became of its job. Call until `None`.
pub async fn reap(pool: &PgPool, grace: Duration) -> sqlx::Result<Option<(JobId, JobStatus)>> {
    loop {
        let expired = sqlx::query!(
            "select job_id, token from job_leases where expires_at < now() - make_interval(secs => $1)
            order by expires_at limit 1",
            convert::seconds(grace)
        );
        let Some(lease) = expired.fetch_optional(pool).await? else {
            return Ok(None);
        };
        let job = JobId(lease.job_id);
        let ending = Ending {
            outcome: "lost",
            message: Some("its worker was not heard of in time"),
            expired_for: Some(convert::seconds(grace)),
            ..Ending::default()
        };
        let end = || end_attempt(pool, job, lease.token, ending, None);
        // Another reaper may have been quicker, or a heartbeat came after all: then look for the next one.
        if let Some(status) = retry(end).await? {
            return Ok(Some((job, status)));
        }
    }
}

/// A claim as Postgres has it.
struct ClaimRow {
    id: Uuid,
    tenant_id: i64,
    token: i64,
    recipe: Json<Recipe>,
    micro_batch: Option<i32>,
    timeout_seconds: i64,
    device_mb: i32,
    elapsed_seconds: f64,
    result_model: String,
    model_id: String,
    parent: Option<Json<Parent>>,
    architecture: String,
    source_task: Json<SourceTask>,
    preprocessing: Json<Preprocessing>,
    weights_sha256: String,
    training_file: Uuid,
    training_sha256: String,
    training_bytes: i64,
    validation_file: Option<Uuid>,
    validation_sha256: Option<String>,
    validation_bytes: Option<i64>,
}

impl ClaimRow {
    fn with(self, resume: Option<Checkpoint>) -> Claimed {
        let pack = |file: Uuid, sha256: String, bytes: i64| Pack {
            file: FileId(file),
            sha256,
            bytes: convert::to_count(bytes),
        };
        let validation = match (
            self.validation_file,
            self.validation_sha256,
            self.validation_bytes,
        ) {
            (Some(file), Some(sha256), Some(bytes)) => Some(pack(file, sha256, bytes)),
            _ => None,
        };
        Claimed {
            job: JobId(self.id),
            tenant: TenantId(self.tenant_id),
            token: self.token,
            recipe: self.recipe.0,
            micro_batch: self.micro_batch.map(convert::to_small),
            timeout_seconds: convert::to_count(self.timeout_seconds),
            device_mb: convert::to_small(self.device_mb),
            elapsed_seconds: self.elapsed_seconds,
            base_model: ClaimedModel {
                id: self.model_id,
                architecture: self.architecture,
                source_task: self.source_task.0,
                preprocessing: self.preprocessing.0,
                weights_sha256: self.weights_sha256,
            },
            parent: self.parent.map(|parent| parent.0),
            result_model: self.result_model,
            training: pack(
                self.training_file,
                self.training_sha256,
                self.training_bytes,
            ),
            validation,
            resume,
        }
    }
}

/// `Records`, column by column, as `unnest` takes them.
#[derive(Default)]
struct Columns {
    steps: Vec<i64>,
    epochs: Vec<i32>,
    losses: Vec<Option<f64>>,
    rates: Vec<f64>,
    speeds: Vec<f64>,
    evaluations: Value,
    best: Option<Metrics>,
    kinds: Vec<&'static str>,
    levels: Vec<&'static str>,
    messages: Vec<String>,
    data: Vec<Value>,
}

impl Columns {
    fn of(records: &Records) -> Self {
        let mut columns = Self::default();
        for step in &records.steps {
            columns.steps.push(convert::from_count(step.step));
            columns.epochs.push(convert::from_small(step.epoch));
            columns.losses.push(step.train_loss);
            columns.rates.push(step.learning_rate);
            columns.speeds.push(step.samples_per_second);
        }
        let mut evaluations = Vec::with_capacity(records.evaluations.len());
        for Evaluation { metrics, best } in &records.evaluations {
            let mut row = json!(metrics);
            row["best"] = json!(best);
            evaluations.push(row.clone());
            if *best {
                columns.best = Some(*metrics);
            }
            let (epoch, headline, loss) = (metrics.epoch, metrics.headline(), metrics.valid_loss);
            let message = format!("epoch {epoch}: {headline}, loss {loss:.4}");
            columns.event("evaluated", "info", message, row);
        }
        columns.evaluations = Value::Array(evaluations);
        if let Some(phase) = records.phase {
            let phase = phase.as_str();
            columns.event(
                "phase",
                "info",
                phase.replace('_', " "),
                json!({ "phase": phase }),
            );
        }
        for event in &records.events {
            columns.event(
                "message",
                event.level.as_str(),
                event.message.clone(),
                event.data.clone(),
            );
        }
        columns
    }

    fn event(&mut self, kind: &'static str, level: &'static str, message: String, data: Value) {
        self.kinds.push(kind);
        self.levels.push(level);
        self.messages.push(message);
        self.data.push(data);
    }
}

async fn record_columns(
    pool: &PgPool,
    job: JobId,
    token: i64,
    records: &Records,
    columns: &Columns,
) -> sqlx::Result<bool> {
    let progress = records.progress.as_ref();
    let device = records.device.as_ref();
    let (shrunk, usage) = (records.shrunk.as_ref(), records.usage);
    let id = sqlx::query_scalar!(
        "with lease as (
            select job_id from job_leases where job_id = $1 and token = $2 for update
        ), job as (
            update jobs j set
                phase = coalesce($3, j.phase),
                step = coalesce($4, j.step),
                n_steps = coalesce($5, j.n_steps),
                epoch = coalesce($6, j.epoch),
                n_epochs = coalesce($7, j.n_epochs),
                fraction = coalesce($8, case when $3 is null then j.fraction else 0 end),
                samples_per_second = coalesce($9, j.samples_per_second),
                device = coalesce($10, j.device),
                threads = coalesce($11, j.threads),
                metrics = coalesce($12, j.metrics),
                micro_batch = coalesce($23, j.micro_batch),
                best_effort = coalesce($24, j.best_effort),
                events = j.events + cardinality($13::text[])
            from lease where j.id = lease.job_id returning j.id, j.events
        ), attempt as (
            update attempts a set device = coalesce($10, a.device), threads = coalesce($11, a.threads),
                peak_bytes = coalesce($25, a.peak_bytes), prepared_samples = coalesce($26, a.prepared_samples),
                preparing_seconds = coalesce($27, a.preparing_seconds),
                trained_samples = coalesce($28, a.trained_samples),
                training_seconds = coalesce($29, a.training_seconds)
            from job
            where a.job_id = job.id and a.token = $2 and ($10::text is not null or $26::bigint is not null)
        ), event as (
            insert into job_events (job_id, seq, token, kind, level, message, data)
            select job.id, job.events - cardinality($13) + e.ordinal, $2, e.kind, e.level, e.message, e.data
            from job, unnest($13, $14::text[], $15::text[], $16::jsonb[])
                with ordinality as e (kind, level, message, data, ordinal)
        ), step as (
            insert into job_steps (job_id, step, epoch, train_loss, learning_rate, samples_per_second)
            select distinct on (s.step) job.id, s.* from job,
                unnest($17::bigint[], $18::int[], $19::double precision[], $20::double precision[], $21::double precision[])
                as s (step, epoch, train_loss, learning_rate, samples_per_second)
            on conflict (job_id, step) do update set epoch = excluded.epoch, train_loss = excluded.train_loss,
                learning_rate = excluded.learning_rate, samples_per_second = excluded.samples_per_second
        ), evaluation as (
            insert into job_evaluations (job_id, step, epoch, train_loss, valid_loss, valid_accuracy,
                valid_balanced_accuracy, valid_macro_f1, valid_micro_f1, valid_mean_average_precision, valid_r2, valid_mae,
                valid_rmse, best)
            select distinct on (e.step) job.id, e.* from job, jsonb_to_recordset($22) as e (step bigint, epoch int,
                train_loss double precision, valid_loss double precision, valid_accuracy double precision,
                valid_balanced_accuracy double precision, valid_macro_f1 double precision,
                valid_micro_f1 double precision, valid_mean_average_precision double precision,
                valid_r2 double precision, valid_mae double precision, valid_rmse double precision, best boolean)
            on conflict (job_id, step) do update set epoch = excluded.epoch, train_loss = excluded.train_loss,
                valid_loss = excluded.valid_loss, valid_accuracy = excluded.valid_accuracy,
                valid_balanced_accuracy = excluded.valid_balanced_accuracy,
                valid_macro_f1 = excluded.valid_macro_f1, valid_micro_f1 = excluded.valid_micro_f1,
                valid_mean_average_precision = excluded.valid_mean_average_precision,
                valid_r2 = excluded.valid_r2, valid_mae = excluded.valid_mae, valid_rmse = excluded.valid_rmse,
                best = excluded.best
        )
        select id from job",
        job.0,
        token,
        records.phase.map(Phase::as_str),
        progress.map(|progress| convert::from_count(progress.step)),
        progress.and_then(|progress| progress.n_steps).map(convert::from_count),
        progress.map(|progress| convert::from_small(progress.epoch)),
        progress.and_then(|progress| progress.n_epochs).map(convert::from_small),
        progress.map(|progress| progress.fraction.clamp(0.0, 1.0)),
        progress.and_then(|progress| progress.samples_per_second),
        device.map(|device| device.0.as_str()),
        device.map(|device| convert::from_small(device.1)),
        columns.best.as_ref().map(Json) as Option<Json<&Metrics>>,
        &columns.kinds as &[&str],
        &columns.levels as &[&str],
        &columns.messages,
        &columns.data,
        &columns.steps,
        &columns.epochs,
        &columns.losses as &[Option<f64>],
        &columns.rates,
        &columns.speeds,
        columns.evaluations,
        shrunk.and_then(|shrunk| shrunk.micro_batch).map(convert::from_small),
        shrunk.map(|shrunk| shrunk.best_effort.as_str()),
        usage.and_then(|usage| usage.peak_bytes).map(convert::from_count),
        usage.map(|usage| convert::from_count(usage.prepared_samples)),
        usage.map(|usage| usage.preparing_seconds),
        usage.map(|usage| convert::from_count(usage.trained_samples)),
        usage.map(|usage| usage.training_seconds)
    );
    Ok(id.fetch_optional(pool).await?.is_some())
}

/// How an attempt ends, for `end_attempt`.
#[derive(Debug, Clone, Copy, Default)]
struct Ending<'a> {
    /// As in `attempts.outcome`.
    outcome: &'static str,
    code: Option<&'a str>,
    message: Option<&'a str>,
    retryable: bool,
    trace: Option<&'a Trace>,
    /// Ends it only if its lease ran out more than this many seconds ago.
    expired_for: Option<f64>,
}

/// Whoever deletes the lease ends the attempt: the rest follows from that row, all in one statement.
async fn end_attempt(
    pool: &PgPool,
    job: JobId,
    token: i64,
    ending: Ending<'_>,
    model: Option<&NewModel>,
) -> sqlx::Result<Option<JobStatus>> {
    let unseen = Trace::default();
    let trace = ending.trace.unwrap_or(&unseen);
    let word = sqlx::query_scalar!(
        r#"with lease as (
            delete from job_leases where job_id = $1 and token = $2
                and ($3::double precision is null or expires_at < now() - make_interval(secs => $3))
            returning job_id, tenant_id
        ), tenant as (
            update tenants t set running = t.running - 1 from lease where t.id = lease.tenant_id returning t.id
        ), verdict as (
            -- The tenant comes first, as in a claim: two statements never wait for each other's rows.
            select j.id, case
                when $4 = 'succeeded' then 'succeeded'
                when $4 = 'cancelled' or j.cancel_requested_at is not null then 'cancelled'
                when $4 = 'yielded' or ($4 = 'failed' and $5 and j.failures < j.max_failures)
                    or ($4 in ('crashed', 'lost') and j.crashes < j.max_crashes)
                    then case when j.status = 'pausing' then 'paused' else 'queued' end
                else 'failed' end as status, j.status as was
            from jobs j, tenant where j.id = $1 for update of j
        ), job as (
            update jobs j set
                status = verdict.status,
                phase = case when verdict.status in ('queued', 'paused') then 'waiting' else j.phase end,
                fraction = case when verdict.status in ('queued', 'paused') then 0 when verdict.status = 'succeeded' then 1
                    else j.fraction end,
                samples_per_second = case when verdict.status in ('queued', 'paused') then null
                    else j.samples_per_second end,
                failures = j.failures + ($4 = 'failed')::int,
                crashes = j.crashes + ($4 in ('crashed', 'lost'))::int,
                preemptions = j.preemptions + ($4 = 'yielded' and verdict.was = 'running')::int,
                run_at = case
                    when $4 = 'failed' then now() + (0.5 + random())
                        * least(interval '1 hour', interval '10 seconds' * power(2, least(j.failures, 20)))
                    when $4 in ('crashed', 'lost') then now() + (0.5 + random())
                        * least(interval '1 hour', interval '5 seconds' * (power(2, least(j.crashes, 20)) - 1))
                    else now() end,
                error_code = case when verdict.status = 'failed' then coalesce($6, 'worker_crash_loop') end,
                error_permanent = case when verdict.status = 'failed' then $4 = 'failed' and not $5 end,
                error_message = case when verdict.status = 'failed' then
                    case when $4 = 'failed' then $7::text
                    else format('%s attempts ended without a result; the last: %s', j.crashes + 1, $7::text) end end,
                fine_tuned_model = case when verdict.status = 'succeeded' and $9::text is not null then j.result_model end,
                metrics = case when verdict.status = 'succeeded' then $11 else j.metrics end,
                finished_at = case when verdict.status not in ('queued', 'paused') then now() end,
                events = j.events + 1
            from verdict where j.id = verdict.id
            returning j.*
        ), attempt as (
            update attempts a set ended_at = now(), outcome = $4, message = $7, log_tail = $8, exit_code = $14,
                exit_signal = $15,
                -- Before its trainer was ready, the job's step is that of an earlier attempt.
                reached_step = case when a.device is not null then job.step end
            from job where a.job_id = job.id and a.token = $2
        ), model as (
            insert into models (tenant_id, id, kind, status, architecture, modality, source_task, license, preprocessing,
                layers, parent, job_id, objects, labels, metrics, report, parameters, weights_sha256, base_model,
                base_weights_sha256, recipe)
            select job.tenant_id, job.result_model, 'fine_tuned', 'ready', base.architecture, base.modality,
                base.source_task, base.license, base.preprocessing, base.layers, coalesce(job.parent ->> 'id', base.id), job.id, $9, $10, $11,
                $12, $13, $16, coalesce(base.base_model, base.id), coalesce(base.base_weights_sha256, base.weights_sha256),
                job.recipe
            from job join models base on base.tenant_id = job.tenant_id and base.id = job.model
            where job.status = 'succeeded'
        ), event as (
            insert into job_events (job_id, seq, token, kind, level, message, data)
            select id, events, $2,
                case when status = 'queued' then 'requeued' else status end,
                case when status = 'failed' then 'error' when status in ('queued', 'paused') and $4 <> 'yielded' then 'warn'
                    else 'info' end,
                case status
                    when 'succeeded' then format('the job has succeeded: its model is %s', fine_tuned_model)
                    when 'cancelled' then 'the job is cancelled'
                    when 'failed' then error_message
                    when 'paused' then case when $4 = 'yielded' then 'the job is paused'
                        else format('attempt %s ended: %s; the job is paused', $2, $7::text) end
                    else case when $4 = 'yielded' then format('attempt %s handed the job back', $2)
                        else format('attempt %s ended: %s; the job is tried again', $2, $7::text) end end,
                jsonb_strip_nulls(jsonb_build_object('attempt', $2, 'outcome', $4, 'code', coalesce(error_code, $6),
                    'permanent', error_permanent))
            from job
        )
        select status from job"#,
        job.0,
        token,
        ending.expired_for,
        ending.outcome,
        ending.retryable,
        ending.code,
        ending.message,
        trace.log_tail.as_deref(),
        model.map(|model| model.objects.as_str()),
        model.map(|model| Json(&model.labels)) as Option<Json<&Vec<String>>>,
        model.map(|model| Json(&model.metrics)) as Option<Json<&Metrics>>,
        model.map(|model| Json(&model.report)) as Option<Json<&Report>>,
        model.map(|model| convert::from_count(model.parameters)),
        trace.exit_code,
        trace.exit_signal.as_deref(),
        model.map(|model| model.weights_sha256.as_str())
    );
    let word = word.fetch_optional(pool).await?;
    word.map(|word| convert::status(&word)).transpose()
}
