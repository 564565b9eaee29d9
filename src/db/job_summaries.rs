//! Jobs in short, for long lists: from one row of `jobs` and the last one of `attempts` each,
//! without the request, the recipe and the history. Sorted and searched here, so that a page never
//! needs more than it shows, and read again where they have changed.

use std::{collections::BTreeMap, time::Duration};

use sqlx::{PgExecutor, PgPool, types::Json};
use time::OffsetDateTime;

use super::{
    Page, Slice, convert,
    jobs::{Filter, JobProgress, Place, place_of, progress_of},
    tenants::TenantId,
};
use crate::domain::{
    checkpoint::Metrics,
    id::{FileId, JobId, WorkerId},
    job::{JobStatus, Phase},
    words,
};

/// How far readers of changes look back: a change is dated before its transaction commits.
const OVERLAP: Duration = Duration::from_secs(2);

words! {
    /// Sort key of a list of jobs.
    pub enum SortKey {
        /// The time of creation.
        CreatedAt = "created_at",
        /// The most telling metric of the best evaluation. Larger is better: errors are negative.
        Metric = "metric",
        /// Seconds from the first start to the end, or to `Order::as_of`.
        Duration = "duration",
        Model = "model",
        Status = "status",
    }
}

/// The order of a list, beside its direction.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    pub key: SortKey,
    /// The present, as the first page had it: durations of jobs that run must not grow from page to
    /// page.
    pub as_of: OffsetDateTime,
}

/// The value of a job that it is sorted by; `None` where it has none, which comes last.
#[derive(Debug, Clone, PartialEq)]
pub enum SortValue {
    None,
    Number(f64),
    Text(String),
}

/// A job in a sorted list, after which a page begins. With its value, since the job may have
/// another by then.
#[derive(Debug, Clone, PartialEq)]
pub struct Cursor {
    pub id: JobId,
    pub value: SortValue,
}

/// Conditions of a list; all must hold.
#[derive(Debug, Clone)]
pub struct Search {
    pub filter: Filter,
    /// A part of the suffix, a model's name, the id, or an entry `key=value` of the metadata, in
    /// whichever case.
    pub text: Option<String>,
}

/// A job in short; fields as in `jobs::Job`.
#[derive(Debug, Clone)]
pub struct Summary {
    pub id: JobId,
    pub status: JobStatus,
    pub phase: Phase,
    pub model: String,
    pub fine_tuned_model: Option<String>,
    pub suffix: Option<String>,
    pub training_file: FileId,
    pub validation_file: Option<FileId>,
    pub metadata: BTreeMap<String, String>,
    pub progress: JobProgress,
    pub metrics: Option<Metrics>,
    /// Samples that the metrics are measured on; `None` where the data set is deleted.
    pub validated: Option<u64>,
    pub error_code: Option<String>,
    pub last_attempt: Option<LastAttempt>,
    pub version: i64,
    /// False for a job that does not fulfill the conditions, among those that have changed.
    pub matches: bool,
    /// The value that it is sorted by.
    pub sorted_by: SortValue,
    pub place: Place,
    pub created_at: OffsetDateTime,
    pub started_at: Option<OffsetDateTime>,
    pub cancel_requested_at: Option<OffsetDateTime>,
    pub stop_requested_at: Option<OffsetDateTime>,
    pub finished_at: Option<OffsetDateTime>,
}

/// The last attempt of a job; fields as in `attempts::Attempt`.
#[derive(Debug, Clone)]
pub struct LastAttempt {
    pub number: i64,
    pub worker: WorkerId,
    pub host: Option<String>,
    pub started_at: OffsetDateTime,
    pub ended_at: Option<OffsetDateTime>,
    pub outcome: Option<String>,
    pub message: Option<String>,
}

/// Characters of an attempt's message that are read.
const MESSAGE: i32 = 200;

/// A query for summaries: the beginning up to a job's conditions, and what follows them up to a
/// table `page` of jobs, which is sorted by `position`. `$1` to `$8` are the tenant, the conditions
/// and the length of a message.
macro_rules! query_summaries {
    ($head:literal, $then:literal, ($tenant:expr, $search:expr), $($bindings:tt)*) => {
        sqlx::query!(
            $head + r#" ($2::text is null or j.status = $2) and ($3::text is null or j.request ->> 'model' = $3)
            and ($4::timestamptz is null or j.created_at > $4) and j.metadata @> $5
            and ($6::boolean is null or (j.finished_at is not null) = $6)
            and ($7::text is null
                or strpos(lower(concat_ws(E'\n', j.request ->> 'suffix', j.request ->> 'model', j.fine_tuned_model,
                    'ftjob-' || replace(j.id::text, '-', ''))), lower($7)) > 0
                or exists (select from jsonb_each_text(j.metadata) m where strpos(lower(m.key || '=' || m.value), lower($7)) > 0))"#
            + $then + r#" select j.id, j.status, j.phase, j.request ->> 'model' as "model!", j.request ->> 'suffix' as suffix,
            j.fine_tuned_model, j.training_file, j.validation_file, j.metadata as "metadata: Json<BTreeMap<String, String>>",
            j.step, j.n_steps, j.epoch, j.n_epochs, j.fraction, j.samples_per_second,
            j.metrics as "metrics: Json<Metrics>", j.error_code, j.version, j.resource_class, j.priority, j.seq,
            j.device_mb, j.spec_version, j.run_at, j.created_at, j.started_at, j.cancel_requested_at,
            j.stop_requested_at, j.finished_at, j.token, a.worker_id as "worker?", a.host as "host?",
            a.started_at as "attempt_started_at?", a.ended_at as "ended_at?", a.outcome as "outcome?",
            left(a.message, $8) as message, p.matches as "matches!", p.number as "number?", p.text as "text?",
            case when j.metrics is null then null when j.validation_file is null then
                (select (f.dataset #>> '{splits,validation}')::bigint from files f where f.id = j.training_file)
            else (select (f.dataset ->> 'samples')::bigint from files f where f.id = j.validation_file) end as validated
            from page p join jobs j on j.id = p.id left join attempts a on a.job_id = j.id and a.token = j.token
            order by p.position"#,
            $tenant.0,
            $search.filter.status.map(JobStatus::as_str),
            $search.filter.model,
            $search.filter.created_after,
            Json(&$search.filter.metadata) as Json<&BTreeMap<String, String>>,
            $search.filter.is_terminal,
            $search.text,
            MESSAGE,
            $($bindings)*
        )
        .try_map(|row| {
            let last_attempt = row.worker.zip(row.attempt_started_at);
            Ok(Summary {
                id: JobId(row.id),
                status: convert::status(&row.status)?,
                phase: convert::parse("jobs.phase", &row.phase)?,
                model: row.model,
                fine_tuned_model: row.fine_tuned_model,
                suffix: row.suffix,
                training_file: FileId(row.training_file),
                validation_file: row.validation_file.map(FileId),
                metadata: row.metadata.0,
                progress: progress_of!(row),
                metrics: row.metrics.map(|metrics| metrics.0),
                validated: row.validated.map(convert::to_count),
                error_code: row.error_code,
                last_attempt: last_attempt.map(|(worker, started_at)| LastAttempt {
                    number: row.token,
                    worker: WorkerId(worker),
                    host: row.host,
                    started_at,
                    ended_at: row.ended_at,
                    outcome: row.outcome,
                    message: row.message,
                }),
                version: row.version,
                matches: row.matches,
                sorted_by: match (row.number, row.text) {
                    (Some(number), _) => SortValue::Number(number),
                    (None, Some(text)) => SortValue::Text(text),
                    (None, None) => SortValue::None,
                },
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

/// A page of jobs in short. Jobs with the same value come in the order of their creation, the
/// newest first.
///
/// # Errors
/// Those of the database.
pub async fn list(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    (page, order): (Page<Cursor>, Order),
    search: &Search,
) -> sqlx::Result<Slice<Summary>> {
    let sign = if page.descending { -1.0 } else { 1.0 };
    let (after, value) = page.after.map(|after| (after.id.0, after.value)).unzip();
    let (number, text) = match value {
        Some(SortValue::Number(number)) => (Some(number * sign), None),
        Some(SortValue::Text(text)) => (None, Some(text)),
        Some(SortValue::None) | None => (None, None),
    };
    let summaries = query_summaries!(
        r#"with found as (
            select j.id, $10 * case $9
                    when 'metric' then coalesce((j.metrics ->> 'valid_accuracy')::double precision,
                        (j.metrics ->> 'valid_mean_average_precision')::double precision,
                        -(j.metrics ->> 'valid_rmse')::double precision)
                    when 'duration' then extract(epoch from coalesce(j.finished_at, $15) - j.started_at)::double precision
                end as number,
                case $9 when 'model' then j.request ->> 'model' when 'status' then j.status end as text
            from jobs j where j.tenant_id = $1 and"#,
        r#"), page as (
            select id, number * $10 as number, text, true as matches, row_number() over () as position from (
                select * from found
                where $11::uuid is null or case
                    when $9 = 'created_at' then case when $10 < 0 then id < $11 else id > $11 end
                    when $9 in ('model', 'status')
                        then text = $13 and id < $11 or case when $10 < 0 then text < $13 else text > $13 end
                    else case when $12::double precision is null then number is null and id < $11
                        else number > $12 or number = $12 and id < $11 or number is null end
                end
                order by case when $9 = 'created_at' and $10 > 0 then id end, number nulls last,
                    case when $10 < 0 then text end desc, case when $10 > 0 then text end, id desc
                limit $14
            ) sorted
        )"#,
        (tenant, search),
        order.key.as_str(),
        sign,
        after,
        number,
        text,
        i64::from(page.limit) + 1,
        order.as_of
    );
    Ok(Slice::of(summaries.fetch_all(executor).await?, page.limit))
}

/// Number of jobs that fulfill conditions, up to `limit`.
///
/// # Errors
/// Those of the database.
pub async fn count(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    search: &Search,
    limit: u32,
) -> sqlx::Result<u32> {
    let Search { filter, text } = search;
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from (
            select 1 as one from jobs j
            where j.tenant_id = $1 and ($2::text is null or j.status = $2)
                and ($3::text is null or j.request ->> 'model' = $3)
                and ($4::timestamptz is null or j.created_at > $4) and j.metadata @> $5
                and ($6::boolean is null or (j.finished_at is not null) = $6)
                and ($7::text is null
                    or strpos(lower(concat_ws(E'\n', j.request ->> 'suffix', j.request ->> 'model', j.fine_tuned_model,
                        'ftjob-' || replace(j.id::text, '-', ''))), lower($7)) > 0
                    or exists (select from jsonb_each_text(j.metadata) m
                        where strpos(lower(m.key || '=' || m.value), lower($7)) > 0))
            limit $8
        ) found"#,
        tenant.0,
        filter.status.map(JobStatus::as_str),
        filter.model.as_deref(),
        filter.created_after,
        Json(&filter.metadata) as Json<&BTreeMap<String, String>>,
        filter.is_terminal,
        text.as_deref(),
        i64::from(limit)
    );
    let count = count.fetch_one(executor).await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A state of a tenant's jobs: what changed since then can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Microseconds since 1970, of the database's clock.
    pub at: i64,
    /// Hash of the jobs, and their versions, that had changed in the time before it in which a
    /// change may not have been visible.
    pub recent: i64,
}

/// The state of a tenant's jobs.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub now: Version,
    /// True when a job has changed since the version that was asked for.
    pub has_changed: bool,
}

/// Looks for changes since a version, or for the version that holds now.
///
/// # Errors
/// Those of the database.
pub async fn look(pool: &PgPool, tenant: TenantId, since: Option<Version>) -> sqlx::Result<Look> {
    let row = sqlx::query!(
        r#"with moment as (select clock_timestamp() as now)
        select (extract(epoch from now) * 1000000)::bigint as "now!",
            (select coalesce(bit_xor(hashtextextended(j.id || ' ' || j.version, 0)), 0) from jobs j
                where j.tenant_id = $1 and j.changed_at <= now and j.changed_at > now - make_interval(secs => $3))
                as "hash!",
            (select coalesce(bit_xor(hashtextextended(j.id || ' ' || j.version, 0)), 0) from jobs j
                where j.tenant_id = $1 and j.changed_at <= $2 and j.changed_at > $2 - make_interval(secs => $3))
                as "earlier_hash!",
            exists (select from jobs j where j.tenant_id = $1 and j.changed_at > $2) as "has_new!"
        from moment"#,
        tenant.0,
        since.map(|since| moment(since.at)),
        OVERLAP.as_secs_f64()
    );
    let row = row.fetch_one(pool).await?;
    let is_other = since.is_some_and(|since| since.recent != row.earlier_hash);
    Ok(Look {
        now: Version {
            at: row.now,
            recent: row.hash,
        },
        has_changed: row.has_new || is_other,
    })
}

/// The jobs of a tenant that have changed since a version, or shortly before, the last change
/// first, each with whether it fulfills the conditions.
///
/// # Errors
/// Those of the database.
pub async fn changed(
    pool: &PgPool,
    tenant: TenantId,
    (since, limit): (Version, u32),
    search: &Search,
) -> sqlx::Result<Slice<Summary>> {
    let summaries = query_summaries!(
        r#"with page as (
            select j.id, null::double precision as number, null::text as text,
                row_number() over (order by j.changed_at desc, j.id desc) as position, ("#,
        r#") as matches
            from jobs j where j.tenant_id = $1 and j.changed_at > $9::timestamptz - make_interval(secs => $10)
            order by position limit $11
        )"#,
        (tenant, search),
        moment(since.at),
        OVERLAP.as_secs_f64(),
        i64::from(limit) + 1
    );
    Ok(Slice::of(summaries.fetch_all(pool).await?, limit))
}

/// The time of these microseconds. One that is out of range is in the future, where nothing has
/// changed.
fn moment(micros: i64) -> OffsetDateTime {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000);
    time.unwrap_or(OffsetDateTime::now_utc())
}
