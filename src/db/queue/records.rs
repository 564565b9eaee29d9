//! Records of a running attempt: progress, metrics, events, checkpoints. Each is written under the
//! lease.

use serde_json::{Value, json};
use sqlx::{PgPool, types::Json};

use crate::{
    db::{
        convert, events::NewEvent, jobs::JobProgress, metrics::Evaluation, retry, work::under_lease,
    },
    domain::{
        checkpoint::Metrics,
        id::{CheckpointId, JobId},
        job::Phase,
        progress::{Step, Usage},
    },
};

/// Reports of a trainer since the last write.
#[derive(Debug, Clone, Default)]
pub struct Records {
    pub phase: Option<Phase>,
    pub progress: Option<JobProgress>,
    pub steps: Vec<Step>,
    /// Each also becomes an event.
    pub evaluations: Vec<Evaluation>,
    /// Device and threads, when the trainer became ready.
    pub device: Option<(String, u32)>,
    pub events: Vec<NewEvent>,
    pub shrunk: Option<MicroBatch>,
    pub usage: Option<Usage>,
}

/// Smaller batches, since memory ran out.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Writes what a trainer reported. `false`: the lease is lost, nothing was written.
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
                metrics.headline()
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

/// `Records` as columns, which `unnest` takes.
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
            evaluations.push(json!({ "step": metrics.step, "metrics": metrics, "best": best }));
            let mut row = json!(metrics);
            row["best"] = json!(best);
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

/// The statement of `record_columns`.
macro_rules! record {
    ($($bind:expr),+ $(,)?) => {
        under_lease!(query_scalar, "train", ", job as (
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
                nondeterminism_reason = coalesce($24, j.nondeterminism_reason),
                events = j.events + cardinality($13::text[])
            from lease where j.id = lease.subject returning j.id, j.events
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
            insert into job_evaluations (job_id, step, metrics, best)
            select distinct on (e.step) job.id, e.*
            from job, jsonb_to_recordset($22) as e (step bigint, metrics jsonb, best boolean)
            on conflict (job_id, step) do update set metrics = excluded.metrics, best = excluded.best
        )
        select id from job", $($bind),+)
    };
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
    let id = record!(
        job.0,
        token,
        records.phase.map(Phase::as_str),
        progress.map(|progress| convert::from_count(progress.step)),
        progress
            .and_then(|progress| progress.n_steps)
            .map(convert::from_count),
        progress.map(|progress| convert::from_small(progress.epoch)),
        progress
            .and_then(|progress| progress.n_epochs)
            .map(convert::from_small),
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
        shrunk
            .and_then(|shrunk| shrunk.micro_batch)
            .map(convert::from_small),
        shrunk.map(|shrunk| shrunk.nondeterminism_reason.as_str()),
        usage
            .and_then(|usage| usage.peak_bytes)
            .map(convert::from_count),
        usage.map(|usage| convert::from_count(usage.prepared_samples)),
        usage.map(|usage| usage.preparing_seconds),
        usage.map(|usage| convert::from_count(usage.trained_samples)),
        usage.map(|usage| usage.training_seconds)
    );
    Ok(id.fetch_optional(pool).await?.is_some())
}
