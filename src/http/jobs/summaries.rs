//! Lists jobs in short: what a table of many jobs shows, in a tenth of the bytes; sorted, searched
//! and counted by the database, and kept current by asking for what has changed.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use axum::{extract::FromRequestParts, http::request::Parts};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::timestamp};
use tokio::time::{Instant, sleep};
use utoipa::{IntoParams, ToSchema};

use crate::{
    db::{
        Page, Slice,
        job_summaries::{
            self, Cursor, LastAttempt, Look, Order, Search, SortKey, SortValue, Summary, Version,
        },
        jobs::Filter,
        queue_position::QueuePosition,
        tenants::TenantId,
    },
    domain::{
        codes,
        id::{FileId, JobId, WorkerId},
        job::{JobStatus, Phase},
        problem::Problem,
        recipe::Metric,
        report::wilson,
        role::Role,
        words,
    },
    http::{
        api::{
            auth::Caller,
            error::{ApiError, refuse_any},
            identity::Identity,
            page::{COUNTED_ROWS, Count, Order as Direction, Rows, page, search_text},
            state::AppState,
            wait::seconds,
        },
        jobs::{
            object::Queue,
            read::{read_job_query, time_of},
            snapshot::position,
        },
    },
};

/// Interval at which a request that waits for changes looks for them.
const LOOK: Duration = Duration::from_millis(500);
/// Decimals of a metric, and of an interval.
const DECIMALS: [i32; 2] = [6, 4];

/// A fine-tuning job in short: fields as in the job, absent where they would be `null`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobSummary {
    id: JobId,
    /// `fine_tuning.job.summary`.
    object: &'static str,
    #[serde(with = "timestamp")]
    #[schema(value_type = i64)]
    created_at: OffsetDateTime,
    #[serde(with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    started_at: Option<OffsetDateTime>,
    #[serde(with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    finished_at: Option<OffsetDateTime>,
    #[serde(with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    cancel_requested_at: Option<OffsetDateTime>,
    #[serde(with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    stop_requested_at: Option<OffsetDateTime>,
    status: JobStatus,
    phase: Phase,
    /// Completed share of the current phase.
    fraction: f64,
    /// Until the job has ended, as `n_steps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_steps: Option<u64>,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fine_tuned_model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suffix: Option<String>,
    training_file: FileId,
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_file: Option<FileId>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    /// The most telling metric of the best evaluation so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<BestMetric>,
    /// Code of the error, when it has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<String>,
    /// Queue position, while queued.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<Queue>,
    /// Until the job has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_attempt: Option<AttemptSummary>,
    /// Incremented by every change of the job.
    version: i64,
    /// With `changed_since`: whether the job fulfills the conditions of the list, as it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    matches: Option<bool>,
}

/// Accuracy, mean average precision or RMSE, by the task.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BestMetric {
    name: Metric,
    /// Rounded to six decimals.
    value: f64,
    /// Wilson's 95 % interval of an accuracy, rounded to four decimals.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<[f64; 2]>,
}

impl BestMetric {
    /// The metric of an evaluation on so many samples.
    fn new((name, value): (Metric, f64), samples: Option<u64>) -> Self {
        let samples = samples.filter(|_| name == Metric::ValidAccuracy);
        let interval = samples.map(|samples| {
            let hits = (value * samples as f64).round() as u64;
            wilson(hits, samples).map(|end| rounded(end, DECIMALS[1]))
        });
        Self {
            name,
            value: rounded(value, DECIMALS[0]),
            interval,
        }
    }
}

fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value * scale).round() / scale
}

/// The last attempt in short.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AttemptSummary {
    /// Counted from 1.
    number: i64,
    worker: WorkerId,
    /// Host of the worker; for admins.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(with = "timestamp")]
    #[schema(value_type = i64)]
    started_at: OffsetDateTime,
    #[serde(with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    ended_at: Option<OffsetDateTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    /// Its first 200 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// A page of jobs in short.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobSummaryList {
    /// `list`.
    object: &'static str,
    data: Vec<JobSummary>,
    /// True when there are rows after `last_id`.
    has_more: bool,
    first_id: Option<String>,
    /// Cursor for `after`.
    last_id: Option<String>,
    /// Number of jobs on all pages; absent with `changed_since`.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<Count>,
    /// The state of all jobs, for `changed_since`.
    version: String,
}

words! {
    /// Sort keys, with `-` in descending order.
    enum Sort {
        CreatedAt = "created_at",
        CreatedAtDescending = "-created_at",
        Metric = "metric",
        MetricDescending = "-metric",
        Duration = "duration",
        DurationDescending = "-duration",
        Model = "model",
        ModelDescending = "-model",
        Status = "status",
        StatusDescending = "-status",
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SummaryListQuery {
    /// `last_id` of the previous page, which has the same `sort`.
    after: Option<String>,
    /// Rows per page; 20 by default.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<u32>,
    /// `desc` (newest first, the default) or `asc`; without `sort`.
    #[param(inline)]
    order: Option<Direction>,
    /// Sort key; with `-` in descending order. `-created_at` by default. `-metric` begins with the
    /// best job: errors count as negative. `duration` is that from the first start to the end, or
    /// to now. Jobs without a value come last.
    #[param(inline)]
    sort: Option<Sort>,
    /// Only jobs with this text in their suffix, their model, their fine-tuned model, their id, or
    /// an entry `key=value` of their metadata, in whichever case. Taken literally: `%` and `_` are
    /// ordinary characters.
    #[param(max_length = 255)]
    q: Option<String>,
    /// `version` of an earlier answer. The answer has the jobs that have changed since then, or
    /// shortly before, the last change first, each with whether it `matches` the conditions now; a
    /// client drops those whose `version` it has. With `has_more`, more have changed than the page
    /// has room for: read the list again. Deleted jobs are not reported.
    #[param(pattern = "^[0-9]{1,18}-[0-9a-f]{16}$")]
    changed_since: Option<String>,
    /// Seconds to hold the response back, at most, until a job has changed; with `changed_since`.
    #[param(maximum = 60)]
    wait: Option<u64>,
    /// Only jobs with this status.
    status: Option<JobStatus>,
    /// Only jobs that have ended (`true`), or only those that have not (`false`).
    is_terminal: Option<bool>,
    /// Only jobs that start from this model or checkpoint.
    model: Option<String>,
    /// Only jobs created after this time, in Unix seconds.
    #[param(minimum = 0, maximum = 253_402_300_799_i64)]
    created_after: Option<u64>,
}

/// A request for a list, checked.
pub(crate) struct SummaryQuery {
    page: Page<Cursor>,
    order: Order,
    search: Search,
    since: Option<Version>,
    wait: Duration,
}

impl FromRequestParts<AppState> for SummaryQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let (query, metadata): (SummaryListQuery, _) = read_job_query(parts)?;
        refuse_any(query.contradictions())?;
        let sort = query.sort.unwrap_or(match query.order {
            Some(Direction::Asc) => Sort::CreatedAt,
            _ => Sort::CreatedAtDescending,
        });
        let key = sort.as_str().trim_start_matches('-').parse::<SortKey>();
        let key = key.map_err(anyhow::Error::from)?;
        let rows = Rows::of_summaries(&state.limits);
        let found = page::<TextCursor>(query.after.as_deref(), query.limit, None, rows)?;
        let after = found.after.map(|cursor| cursor.of(key)).transpose()?;
        let (after, as_of) = after.unzip();
        let as_of = as_of.flatten().unwrap_or(OffsetDateTime::now_utc());
        Ok(Self {
            page: Page {
                after,
                limit: found.limit,
                descending: sort.as_str().starts_with('-'),
            },
            order: Order { key, as_of },
            since: query
                .changed_since
                .map(|text| read_version(&text))
                .transpose()?,
            wait: seconds(query.wait, &state.limits)?,
            search: Search {
                filter: Filter {
                    status: query.status,
                    model: query.model,
                    created_after: query.created_after.map(time_of).transpose()?,
                    is_terminal: query.is_terminal,
                    metadata,
                },
                text: search_text("q", query.q)?,
            },
        })
    }
}

impl SummaryListQuery {
    /// Parameters that exclude each other.
    fn contradictions(&self) -> Vec<Problem> {
        let follows = self.changed_since.is_some();
        let pairs = [
            (
                "order",
                self.order.is_some() && self.sort.is_some(),
                "`sort` has the order: leave `order` out",
            ),
            (
                "sort",
                self.sort.is_some() && follows,
                "changed jobs come in the order of their changes: leave `sort` out",
            ),
            (
                "after",
                self.after.is_some() && follows,
                "changed jobs have one page: leave `after` out",
            ),
            (
                "wait",
                self.wait.is_some() && !follows,
                "is for `changed_since`",
            ),
        ];
        let wrong = pairs.into_iter().filter(|(_, is_wrong, _)| *is_wrong);
        let problem = |(name, _, why)| Problem::new(name, codes::CONTRADICTION, why);
        wrong.map(problem).collect()
    }
}

/// A cursor as text: the id, and behind a colon the value that the list is sorted by, if it is not
/// sorted by the time of creation.
struct TextCursor {
    id: JobId,
    value: Option<String>,
}

impl FromStr for TextCursor {
    type Err = <JobId as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, value) = match text.split_once(':') {
            Some((id, value)) => (id, Some(value.to_owned())),
            None => (text, None),
        };
        Ok(Self {
            id: id.parse()?,
            value,
        })
    }
}

impl TextCursor {
    /// The cursor, and the present of a list that is sorted by duration.
    ///
    /// # Errors
    /// It is that of a list with another key.
    fn of(self, key: SortKey) -> Result<(Cursor, Option<OffsetDateTime>), ApiError> {
        let wrong = || {
            let message = "must be `last_id` of the previous page of a list with the same `sort`";
            ApiError::invalid("after", codes::INVALID_VALUE, message)
        };
        let number = |text: &str| {
            let number = text.parse().ok().filter(|number: &f64| number.is_finite());
            number.map(SortValue::Number).ok_or_else(wrong)
        };
        let mut as_of = None;
        let value = match (key, self.value.as_deref()) {
            (SortKey::CreatedAt, None) => SortValue::None,
            (SortKey::Metric | SortKey::Duration, Some("")) => SortValue::None,
            (SortKey::Metric, Some(text)) => number(text)?,
            (SortKey::Duration, Some(text)) => {
                let (text, micros) = text.split_once('@').ok_or_else(wrong)?;
                let micros = micros.parse::<i64>().map_err(|_| wrong())?;
                let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000);
                as_of = Some(time.map_err(|_| wrong())?);
                number(text)?
            }
            (SortKey::Model | SortKey::Status, Some(text)) => SortValue::Text(text.to_owned()),
            _ => return Err(wrong()),
        };
        Ok((Cursor { id: self.id, value }, as_of))
    }
}

/// The cursor of a job in a list.
fn cursor(id: JobId, order: Order, value: &SortValue) -> String {
    match (order.key, value) {
        (SortKey::CreatedAt, _) => id.to_string(),
        (_, SortValue::None) => format!("{id}:"),
        (SortKey::Duration, SortValue::Number(number)) => {
            let micros = order.as_of.unix_timestamp_nanos() / 1_000;
            format!("{id}:{number}@{micros}")
        }
        (_, SortValue::Number(number)) => format!("{id}:{number}"),
        (_, SortValue::Text(text)) => format!("{id}:{text}"),
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.at, self.recent)
    }
}

fn read_version(text: &str) -> Result<Version, ApiError> {
    let parts = text.split_once('-').filter(|(_, hash)| hash.len() == 16);
    let version = parts.and_then(|(at, hash)| {
        Some(Version {
            at: at.parse().ok().filter(|at| *at >= 0)?,
            recent: u64::from_str_radix(hash, 16).ok()?.cast_signed(),
        })
    });
    version.ok_or_else(|| {
        let message = "must be `version` of an earlier answer of this list";
        ApiError::invalid("changed_since", codes::INVALID_VALUE, message)
    })
}

/// List fine-tuning jobs in short
///
/// For tables of many jobs: up to 10,000 a page, unless the operator set another limit. The table
/// stays current with `changed_since` and `wait`, by one request for all of its jobs.
#[utoipa::path(get, path = "/v1/fine_tuning/job_summaries", tag = "jobs", operation_id = "list_job_summaries",
    params(SummaryListQuery, ("metadata" = Option<BTreeMap<String, String>>, Query, style = DeepObject, explode,
        description = "Only jobs whose metadata contain these entries: `metadata[team]=recycling`.")),
    responses((status = 200, body = JobSummaryList)))]
pub(crate) async fn list(
    Caller { state, tenant }: Caller,
    identity: Identity,
    query: SummaryQuery,
) -> Result<axum::Json<JobSummaryList>, ApiError> {
    let _place = state.quotas.wait(&identity, query.wait)?;
    // Before the rows are read: what changes meanwhile is among those of the next request.
    let look = look(&state, tenant, &query).await?;
    let (slice, count) = match query.since {
        Some(since) if look.has_changed => {
            let page = (since, query.page.limit);
            let changed = job_summaries::changed(&state.pool, tenant, page, &query.search).await?;
            (changed, None)
        }
        Some(_) => {
            let none = Slice {
                rows: Vec::new(),
                has_more: false,
            };
            (none, None)
        }
        None => {
            let (pool, search) = (&state.pool, &query.search);
            let page = (query.page, query.order);
            let slice = job_summaries::list(pool, tenant, page, search).await?;
            let count = job_summaries::count(pool, tenant, search, COUNTED_ROWS + 1).await?;
            (slice, Some(Count::of(count)))
        }
    };
    let order = query.order;
    let cursor = |row: &Summary| cursor(row.id, order, &row.sorted_by);
    let (first_id, last_id) = (
        slice.rows.first().map(cursor),
        slice.rows.last().map(cursor),
    );
    let follows = query.since.is_some();
    let mut data = Vec::with_capacity(slice.rows.len());
    for summary in slice.rows {
        let queue = position(&state, tenant, summary.status, &summary.place).await?;
        data.push(object((summary, queue), identity.role, follows));
    }
    Ok(axum::Json(JobSummaryList {
        object: "list",
        data,
        has_more: slice.has_more,
        first_id,
        last_id,
        count,
        version: look.now.to_string(),
    }))
}

/// Looks for changes until there is one, or the time is over.
async fn look(state: &AppState, tenant: TenantId, query: &SummaryQuery) -> Result<Look, ApiError> {
    let deadline = Instant::now() + query.wait;
    loop {
        let look = job_summaries::look(&state.pool, tenant, query.since).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        if look.has_changed || left.is_zero() {
            return Ok(look);
        }
        tokio::select! {
            () = sleep(LOOK.min(left)) => {}
            () = state.shutdown.cancelled() => return Ok(look),
        }
    }
}

fn object(
    (summary, queue): (Summary, Option<QueuePosition>),
    role: Role,
    follows: bool,
) -> JobSummary {
    let progress = summary.progress;
    let has_ended = summary.status.is_terminal();
    let is_done = summary.status == JobStatus::Succeeded;
    let metric = summary.metrics;
    let metric = metric.map(|metrics| BestMetric::new(metrics.headline(), summary.validated));
    JobSummary {
        id: summary.id,
        object: "fine_tuning.job.summary",
        created_at: summary.created_at,
        started_at: summary.started_at,
        finished_at: summary.finished_at,
        cancel_requested_at: summary.cancel_requested_at,
        stop_requested_at: summary.stop_requested_at,
        status: summary.status,
        phase: summary.phase,
        fraction: if is_done { 1.0 } else { progress.fraction },
        step: (!has_ended).then_some(progress.step),
        n_steps: progress.n_steps.filter(|_| !has_ended),
        model: summary.model,
        fine_tuned_model: summary.fine_tuned_model,
        suffix: summary.suffix,
        training_file: summary.training_file,
        validation_file: summary.validation_file,
        metadata: summary.metadata,
        metric,
        error_code: summary.error_code,
        queue: queue.map(|position| Queue::new(position, OffsetDateTime::now_utc())),
        last_attempt: summary
            .last_attempt
            .filter(|_| !has_ended)
            .map(|attempt| AttemptSummary::new(attempt, role)),
        version: summary.version,
        matches: follows.then_some(summary.matches),
    }
}

impl AttemptSummary {
    /// The attempt as a key of this role sees it.
    fn new(attempt: LastAttempt, role: Role) -> Self {
        Self {
            number: attempt.number,
            worker: attempt.worker,
            host: attempt.host.filter(|_| role == Role::Admin),
            started_at: attempt.started_at,
            ended_at: attempt.ended_at,
            outcome: attempt.outcome,
            message: attempt.message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_is_read_as_it_was_written() {
        let id = JobId::new();
        let as_of = OffsetDateTime::from_unix_timestamp(1_796_000_000).unwrap();
        for (key, value) in [
            (SortKey::CreatedAt, SortValue::None),
            (SortKey::Metric, SortValue::None),
            (SortKey::Metric, SortValue::Number(0.1 + 0.2)),
            (SortKey::Duration, SortValue::Number(-1e-7)),
            (SortKey::Duration, SortValue::None),
            (SortKey::Model, SortValue::Text("a:b@c".to_owned())),
        ] {
            let order = Order { key, as_of };
            let text: TextCursor = cursor(id, order, &value).parse().unwrap();
            let is_aged = key == SortKey::Duration && value != SortValue::None;
            let (read, present) = text.of(key).unwrap();
            assert_eq!(read, Cursor { id, value });
            assert_eq!(present, is_aged.then_some(as_of));
        }
        let of_other = |text: &str, key| {
            let cursor: TextCursor = format!("{id}{text}").parse().unwrap();
            cursor.of(key).is_err()
        };
        assert!(of_other(":0.5", SortKey::CreatedAt) && of_other(":0.5", SortKey::Duration));
        assert!(of_other("", SortKey::Metric) && of_other(":x", SortKey::Metric));
        assert!(of_other(":nan@1", SortKey::Duration) && of_other("", SortKey::Status));
    }

    #[test]
    fn version_is_read_as_it_was_written() {
        for recent in [0, -1, i64::MIN, 7] {
            let version = Version {
                at: 1_796_000_000_123_456,
                recent,
            };
            assert_eq!(read_version(&version.to_string()).unwrap(), version);
        }
        for wrong in [
            "",
            "1",
            "1-",
            "-1-0000000000000000",
            "x-0000000000000000",
            "1-000000000000000g",
        ] {
            assert!(read_version(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn interval_is_wilsons_of_an_accuracy() {
        let metric = BestMetric::new((Metric::ValidAccuracy, 0.8), Some(10));
        assert_eq!(metric.interval, Some([0.4902, 0.9433]));
        let none = BestMetric::new((Metric::ValidRmse, 0.8), Some(10));
        assert_eq!(none.interval, None);
    }
}
