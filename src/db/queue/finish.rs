//! The end of an attempt: by its worker, or because its lease expired.

use std::{collections::BTreeMap, time::Duration};

use sqlx::{PgPool, types::Json};

use crate::{
    db::{
        convert, retry,
        work::{Lease, ending_lease},
    },
    domain::{
        checkpoint::{ManifestEntry, Metrics},
        file::Purpose,
        id::{FileId, JobId},
        job::{Failure, JobStatus, Outcome},
        report::Report,
    },
};

/// The model that a job produced. Columns that it shares with its base model are copied from there.
#[derive(Debug, Clone)]
pub struct NewModel {
    /// Class names in label order.
    pub labels: Vec<String>,
    /// Metrics of the checkpoint that it was made from.
    pub metrics: Metrics,
    pub report: Report,
    /// Prefix of its bundle in the object store, ending in `/`.
    pub objects: String,
    /// Number of trainable parameters of backbone and head.
    pub parameters: u64,
    /// SHA-256 of its `model.safetensors`, lower-case hex.
    pub weights_sha256: String,
    /// All files of its bundle.
    pub files: BTreeMap<String, ManifestEntry>,
    pub results: Option<ResultFile>,
}

/// The file with a job's metrics, whose bytes are in the object store.
#[derive(Debug, Clone)]
pub struct ResultFile {
    pub id: FileId,
    pub bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// Name of every result file, as OpenAI's.
const RESULT_FILE: &str = "step_metrics.csv";

/// How the trainer of an attempt ended, as far as its worker knows.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    pub exit_code: Option<i32>,
    /// The signal that ended it, such as `SIGKILL`.
    pub exit_signal: Option<String>,
    /// Last lines of its standard error.
    pub log_tail: Option<String>,
    /// Why its job is released, unless that was requested.
    pub release_reason: Option<String>,
}

/// Ends an attempt: job, lease, model (if and only if it succeeded) and last event in one
/// statement.
///
/// A cancellation that comes late does not undo a success, but replaces every other outcome.
/// `None`: the lease is lost, nothing was written.
pub async fn finish(
    pool: &PgPool,
    job: JobId,
    token: i64,
    outcome: &Outcome,
    model: Option<&NewModel>,
    trace: &Trace,
) -> sqlx::Result<Option<JobStatus>> {
    let (failure, message) = match outcome {
        Outcome::Yielded => (None, trace.release_reason.as_ref()),
        Outcome::Succeeded | Outcome::Cancelled => (None, None),
        Outcome::Failed(failure) => (Some(failure), Some(&failure.message)),
        Outcome::Crashed { message } => (None, Some(message)),
    };
    let ending = Ending {
        outcome: outcome.as_str(),
        failure,
        message: message.map(String::as_str),
        trace: Some(trace),
        expired_for: None,
    };
    let lease = Lease::of_job(job, token);
    retry(|| end_attempt(pool, &lease, ending, model)).await
}

/// Ends an attempt whose lease expired more than `grace` ago. `None`: somebody else ended it, or a
/// heartbeat renewed the lease.
///
/// # Errors
/// Those of the database.
pub async fn lose(
    pool: &PgPool,
    lease: &Lease,
    grace: Duration,
) -> sqlx::Result<Option<JobStatus>> {
    let ending = Ending {
        outcome: "lost",
        message: Some("the lease expired: its worker sent no heartbeat in time"),
        expired_for: Some(grace.as_secs_f64()),
        ..Ending::default()
    };
    retry(|| end_attempt(pool, lease, ending, None)).await
}

/// How an attempt ends, for `end_attempt`.
#[derive(Debug, Clone, Copy, Default)]
struct Ending<'a> {
    /// A word of `attempts.outcome`.
    outcome: &'static str,
    failure: Option<&'a Failure>,
    message: Option<&'a str>,
    trace: Option<&'a Trace>,
    /// If set, the attempt ends only if its lease expired more than this many seconds ago.
    expired_for: Option<f64>,
}

/// The statement of `end_attempt`: deletes the lease, and writes everything that follows from it.
macro_rules! end_attempt {
    ($($bind:expr),+ $(,)?) => {
        ending_lease!(query_scalar, "train", r#", tenant as (
            update tenants t set running = t.running - 1 from lease where t.id = lease.tenant_id returning t.id
        ), verdict as (
            -- After the tenant: two ends of its jobs wait for each other there, and nowhere else.
            select j.id, case
                when $4 = 'succeeded' then 'succeeded'
                when $4 = 'cancelled' or j.cancel_requested_at is not null then 'cancelled'
                when may_retry(j, $4, $5, $6) then case when j.status = 'pausing' then 'paused' else 'queued' end
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
                run_at = now() + retry_delay('train', $4, case $4 when 'failed' then j.failures else j.crashes end),
                error_code = case when verdict.status = 'failed' then coalesce($6, 'worker_crash_loop') end,
                error_permanent = case when verdict.status = 'failed'
                    then $4 = 'failed' and (not $5 or coalesce($6 = 'out_of_memory', false)) end,
                error_message = case when verdict.status = 'failed' then
                    case when $4 = 'failed' then $7::text
                    else format('%s attempts ended without a result; the last: %s', j.crashes + 1, $7::text) end end,
                fine_tuned_model = case when verdict.status = 'succeeded' and $9::text is not null then j.result_model end,
                metrics = case when verdict.status = 'succeeded' then $11 else j.metrics end,
                result_file = case when verdict.status = 'succeeded' then $18::uuid end,
                finished_at = case when verdict.status not in ('queued', 'paused') then now() end,
                events = j.events + 1
            from verdict where j.id = verdict.id
            returning j.*
        ), attempt as (
            update attempts a set ended_at = now(), outcome = $4, message = $7, log_tail = $8, exit_code = $14,
                exit_signal = $15,
                -- Until its trainer is ready, the job's step is that of an earlier attempt.
                reached_step = case when a.device is not null then job.step end
            from job where a.job_id = job.id and a.token = $2
        ), model as (
            insert into models (tenant_id, id, kind, status, architecture, modality, source_task, license, input,
                layers, parent, job_id, objects, labels, metrics, report, parameters, weights_sha256, base_model,
                base_weights_sha256, recipe, files)
            select job.tenant_id, job.result_model, 'fine_tuned', 'ready', base.architecture, base.modality,
                base.source_task, base.license, base.input, base.layers, coalesce(job.parent ->> 'id', base.id), job.id, $9, $10, $11,
                $12, $13, $16, coalesce(base.base_model, base.id), coalesce(base.base_weights_sha256, base.weights_sha256),
                job.recipe, $17
            from job join models base on base.tenant_id = job.tenant_id and base.id = job.model
            where job.status = 'succeeded'
        ), results as (
            insert into files (id, tenant_id, filename, purpose, bytes, sha256, status)
            select job.result_file, job.tenant_id, $19, $20, $21, $22, 'processed' from job where job.result_file is not null
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
                    else case when $4 = 'yielded' then format('attempt %s released the job%s', $2, ': ' || $7::text)
                        else format('attempt %s ended: %s; the job will be retried', $2, $7::text) end end,
                jsonb_strip_nulls(jsonb_build_object('attempt', $2, 'outcome', $4, 'code', coalesce(error_code, $6),
                    'permanent', error_permanent))
            from job
        )
        select status from job"#, $($bind),+)
    };
}

/// Deletes the lease, and writes everything that follows from it in the same statement.
async fn end_attempt(
    pool: &PgPool,
    lease: &Lease,
    ending: Ending<'_>,
    model: Option<&NewModel>,
) -> sqlx::Result<Option<JobStatus>> {
    let unknown = Trace::default();
    let trace = ending.trace.unwrap_or(&unknown);
    let results = model.and_then(|model| model.results.as_ref());
    let status = end_attempt!(
        lease.subject,
        lease.token,
        ending.expired_for,
        ending.outcome,
        ending.failure.is_some_and(|failure| failure.retryable),
        ending.failure.map(|failure| failure.code.as_str()),
        ending.message,
        trace.log_tail.as_deref(),
        model.map(|model| model.objects.as_str()),
        model.map(|model| Json(&model.labels)) as Option<Json<&Vec<String>>>,
        model.map(|model| Json(&model.metrics)) as Option<Json<&Metrics>>,
        model.map(|model| Json(&model.report)) as Option<Json<&Report>>,
        model.map(|model| convert::from_count(model.parameters)),
        trace.exit_code,
        trace.exit_signal.as_deref(),
        model.map(|model| model.weights_sha256.as_str()),
        model.map(|model| Json(&model.files)) as Option<Json<&BTreeMap<String, ManifestEntry>>>,
        results.map(|results| results.id.0),
        RESULT_FILE,
        Purpose::FineTuneResults.as_str(),
        results.map(|results| convert::from_count(results.bytes)),
        results.map(|results| results.sha256.as_str())
    );
    let status = status.fetch_optional(pool).await?;
    status.map(|word| convert::status(&word)).transpose()
}
