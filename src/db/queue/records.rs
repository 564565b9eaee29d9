//! Records of a running attempt: progress, metrics, events, checkpoints. Each is written under the
//! lease.

use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{PgPool, types::Json};

use crate::{
    db::{
        convert,
        events::{Level, NewEvent},
        jobs::JobProgress,
        metrics::Evaluation,
        retry,
        work::under_lease,
    },
    domain::{
        checkpoint::Metrics,
        id::{CheckpointId, JobId},
        job::Phase,
        progress::{Step, Usage},
    },
};

/// Reports of a trainer since the last write.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Records {
    pub phase: Option<Phase>,
    #[serde(flatten)]
    pub progress: Option<JobProgress>,
    #[serde(skip)]
    pub steps: Vec<Step>,
    /// Each also becomes an event.
    #[serde(skip)]
    pub evaluations: Vec<Evaluation>,
    /// Device and threads, when the trainer became ready.
    #[serde(skip)]
    pub device: Option<(String, u32)>,
    #[serde(skip)]
    pub events: Vec<NewEvent>,
    #[serde(flatten)]
    pub shrunk: Option<MicroBatch>,
    #[serde(flatten)]
    pub usage: Option<Usage>,
}

/// Smaller batches, since memory ran out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MicroBatch {
    /// Samples that run together in training, where it is about those.
    pub micro_batch: Option<u32>,
    /// Why another run may not produce the same bits.
    pub nondeterminism_reason: String,
}

/// A checkpoint whose objects are all stored.
#[derive(Debug, Clone)]
pub struct NewCheckpoint {
    pub step: u64,
    pub epoch: u32,
    /// Prefix in the object store, ending in `/`.
    pub objects: String,
    pub bytes: u64,
    /// Lower-case hex.
    pub manifest_sha256: String,
    pub metrics: Option<Metrics>,
    pub best: bool,
    /// How long training was blocked while it was saved.
    pub stall_ms: u64,
}

/// Stores the peak memory of an attempt; later attempts are only claimed where that fits.
pub async fn measured(pool: &PgPool, job: JobId, token: i64, peak_mb: u32) -> sqlx::Result<()> {
    let note = || {
        under_lease!(query, "train", ", job as (
                update jobs j set device_mb = greatest(j.device_mb, $3) from lease where j.id = lease.subject
            )
            update attempts a set peak_bytes = greatest(coalesce(a.peak_bytes, 0), $3::bigint << 20) from lease where a.job_id = lease.subject and a.token = $2",
            job.0,
            token,
            convert::from_small(peak_mb)
        )
        .execute(pool)
    };
    retry(note).await?;
    Ok(())
}

/// The statement of `record`.
macro_rules! record {
    ($($bind:expr),+ $(,)?) => {
        under_lease!(query_scalar, "train", ", r as (
            select * from jsonb_to_record($3) as r (phase text, step bigint, n_steps bigint, epoch int, n_epochs int,
                fraction double precision, samples_per_second double precision, device text, threads int, metrics jsonb,
                micro_batch int, nondeterminism_reason text, peak_bytes bigint, prepared_samples bigint,
                preparing_seconds double precision, trained_samples bigint, training_seconds double precision)
        ), job as (
            update jobs j set
                phase = coalesce(r.phase, j.phase),
                step = coalesce(r.step, j.step),
                n_steps = coalesce(r.n_steps, j.n_steps),
                epoch = coalesce(r.epoch, j.epoch),
                n_epochs = coalesce(r.n_epochs, j.n_epochs),
                fraction = coalesce(r.fraction, case when r.phase is null then j.fraction else 0 end),
                samples_per_second = coalesce(r.samples_per_second, j.samples_per_second),
                device = coalesce(r.device, j.device),
                threads = coalesce(r.threads, j.threads),
                metrics = coalesce(r.metrics, j.metrics),
                micro_batch = coalesce(r.micro_batch, j.micro_batch),
                nondeterminism_reason = coalesce(r.nondeterminism_reason, j.nondeterminism_reason),
                events = j.events + jsonb_array_length($4)
            from lease, r where j.id = lease.subject returning j.id, j.events
        ), attempt as (
            update attempts a set device = coalesce(r.device, a.device), threads = coalesce(r.threads, a.threads),
                peak_bytes = coalesce(r.peak_bytes, a.peak_bytes),
                prepared_samples = coalesce(r.prepared_samples, a.prepared_samples),
                preparing_seconds = coalesce(r.preparing_seconds, a.preparing_seconds),
                trained_samples = coalesce(r.trained_samples, a.trained_samples),
                training_seconds = coalesce(r.training_seconds, a.training_seconds)
            from job, r
            where a.job_id = job.id and a.token = $2 and (r.device is not null or r.prepared_samples is not null)
        ), event as (
            insert into job_events (job_id, seq, token, kind, level, message, data)
            select job.id, job.events - jsonb_array_length($4) + e.ordinal, $2, e.kind, e.level, e.message, e.data
            from job, rows from (jsonb_to_recordset($4) as (kind text, level text, message text, data jsonb))
                with ordinality as e (kind, level, message, data, ordinal)
        ), step as (
            insert into job_steps (job_id, step, epoch, train_loss, learning_rate, samples_per_second)
            select distinct on (s.step) job.id, s.* from job, jsonb_to_recordset($5) as s (step bigint, epoch int,
                train_loss double precision, learning_rate double precision, samples_per_second double precision)
            on conflict (job_id, step) do update set epoch = excluded.epoch, train_loss = excluded.train_loss,
                learning_rate = excluded.learning_rate, samples_per_second = excluded.samples_per_second
        ), evaluation as (
            insert into job_evaluations (job_id, step, metrics, best)
            select distinct on (step) job.id, (e.metrics ->> 'step')::bigint as step, e.metrics, e.best
            from job, jsonb_to_recordset($6) as e (metrics jsonb, best boolean)
            on conflict (job_id, step) do update set metrics = excluded.metrics, best = excluded.best
        )
        select id from job", $($bind),+)
    };
}

/// Writes what a trainer reported. `false`: the lease is lost, nothing was written.
pub async fn record(
    pool: &PgPool,
    job: JobId,
    token: i64,
    records: &Records,
) -> sqlx::Result<bool> {
    let (row, events) = (row_of(records), events_of(records));
    let record = || {
        record!(
            job.0,
            token,
            row,
            events,
            json!(records.steps),
            json!(records.evaluations)
        )
        .fetch_optional(pool)
    };
    Ok(retry(record).await?.is_some())
}

/// Columns of the job and its attempt; those that are left out or null keep their values.
fn row_of(records: &Records) -> Value {
    let mut row = json!(records);
    if let Some((device, threads)) = &records.device {
        row["device"] = json!(device);
        row["threads"] = json!(threads);
    }
    if let Some(best) = records.evaluations.iter().rfind(|one| one.best) {
        row["metrics"] = json!(best.metrics);
    }
    row
}

/// Events, in their order.
fn events_of(records: &Records) -> Value {
    let evaluated = records
        .evaluations
        .iter()
        .map(|Evaluation { metrics, best }| {
            let (epoch, headline, loss) =
                (metrics.epoch, metrics.headline_text(), metrics.valid_loss);
            let message = format!("epoch {epoch}: {headline}, loss {loss:.4}");
            let mut data = json!(metrics);
            data["best"] = json!(best);
            event("evaluated", Level::Info, message, &data)
        });
    let phase = records.phase.map(|phase| {
        let message = phase.as_str().replace('_', " ");
        event("phase", Level::Info, message, &json!({ "phase": phase }))
    });
    let messages = records
        .events
        .iter()
        .map(|one| event("message", one.level, one.message.clone(), &one.data));
    evaluated.chain(phase).chain(messages).collect()
}

fn event(kind: &str, level: Level, message: String, data: &Value) -> Value {
    json!({ "kind": kind, "level": level, "message": message, "data": data })
}

/// Adds a checkpoint. `None`: the lease is lost, nothing was written, and the caller deletes its
/// objects.
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
                metrics.headline_text()
            )
        }
        _ => format!("step {} saved", checkpoint.step),
    };
    let commit = || {
        under_lease!(query_scalar, "train", ", checkpoint as (
                insert into checkpoints (id, job_id, token, step, epoch, objects, bytes, manifest_sha256, metrics, best)
                select $3, lease.subject, lease.token, $4, $5, $6, $7, $8, $9, $10 from lease returning id, job_id
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
