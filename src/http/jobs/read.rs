//! Lists jobs, and gets one, on request once it has changed.

use std::collections::BTreeMap;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
    response::Response,
};
use serde::{Deserialize, de::DeserializeOwned};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::{
    db::{Page, jobs::Filter},
    domain::{codes, id::JobId, job::JobStatus},
    http::{
        api::{
            auth::Caller,
            conditional::{has_changed, is_conditional, respond, wants_current},
            error::ApiError,
            extract::{Id, Params, read_query},
            identity::Identity,
            page::{List, Order, Rows, page},
            state::AppState,
            wait::seconds,
        },
        jobs::{object::JobObject, snapshot::JobSnapshot},
    },
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobListQuery {
    /// `last_id` of the previous page.
    after: Option<JobId>,
    /// Named by each route, which have other maxima.
    #[param(ignore)]
    limit: Option<u32>,
    /// `desc` (newest first, the default) or `asc`.
    #[param(inline)]
    order: Option<Order>,
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

/// `JobListQuery`, and any number of `metadata[k]=v`.
pub(crate) struct JobQuery {
    query: JobListQuery,
    metadata: BTreeMap<String, String>,
}

impl JobQuery {
    /// The page, of a list with these rows, and the conditions.
    ///
    /// # Errors
    /// A value is out of range.
    pub(crate) fn read(self, rows: Rows) -> Result<(Page<JobId>, Filter), ApiError> {
        let Self { query, metadata } = self;
        let page = page::<JobId>(None, query.limit, query.order, rows)?;
        let filter = Filter {
            status: query.status,
            model: query.model,
            created_after: query.created_after.map(time_of).transpose()?,
            is_terminal: query.is_terminal,
            metadata,
        };
        let after = query.after;
        Ok((Page { after, ..page }, filter))
    }
}

impl FromRequestParts<AppState> for JobQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let (query, metadata) = read_job_query(parts)?;
        Ok(Self { query, metadata })
    }
}

/// Reads a query of known parameters, and any number of `metadata[k]=v`.
///
/// # Errors
/// An unknown name, or a value that does not fit.
pub(crate) fn read_job_query<T: DeserializeOwned>(
    parts: &Parts,
) -> Result<(T, BTreeMap<String, String>), ApiError> {
    let is_metadata = |pair: &&str| {
        pair.starts_with("metadata[") || pair.to_ascii_lowercase().starts_with("metadata%5b")
    };
    let (metadata, rest): (Vec<&str>, Vec<&str>) = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .partition(is_metadata);
    let query = read_query(&rest.join("&"))?;
    let pairs: Vec<(String, String)> = read_query(&metadata.join("&"))?;
    let metadata = pairs.into_iter().map(|(name, value)| {
        let key = name
            .strip_prefix("metadata[")
            .and_then(|rest| rest.strip_suffix(']'));
        let wrong = || {
            ApiError::invalid(
                name.clone(),
                codes::UNKNOWN_FIELD,
                "must be of the form `metadata[key]=value`",
            )
        };
        key.map(|key| (key.to_owned(), value)).ok_or_else(wrong)
    });
    Ok((query, metadata.collect::<Result<_, _>>()?))
}

/// List fine-tuning jobs
#[utoipa::path(get, path = "/v1/fine_tuning/jobs", tag = "jobs", operation_id = "list_jobs",
    params(JobListQuery, ("limit" = Option<u32>, Query, minimum = 1, maximum = 100,
        description = "Rows per page; 20 by default."), ("metadata" = Option<BTreeMap<String, String>>, Query, style = DeepObject, explode,
        description = "Only jobs whose metadata contain these entries: `metadata[team]=recycling`.")),
    responses((status = 200, body = List<JobObject>)))]
pub(crate) async fn list(
    Caller { state, tenant }: Caller,
    Identity { role, .. }: Identity,
    query: JobQuery,
) -> Result<axum::Json<List<JobObject>>, ApiError> {
    let (page, filter) = query.read(Rows::usual(&state.limits))?;
    let slice = JobSnapshot::list(&state, tenant, page, &filter).await?;
    let object = |snapshot: JobSnapshot| JobObject::listed(&snapshot, role);
    Ok(List::of(slice, object, |job| job.id.to_string()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobGetQuery {
    /// Seconds to hold the response back, at most, until the condition in `until` holds.
    #[param(maximum = 60)]
    wait: Option<u64>,
    /// The job has ended (`terminal`, the default), has started (`running`), or has changed
    /// (`change`: since the `ETag` in `if-none-match`, otherwise since the request).
    #[param(inline)]
    until: Option<JobUntil>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobUntil {
    Terminal,
    Running,
    Change,
}

/// Get a fine-tuning job
///
/// Changes that workers and other servers made in the last quarter of a second may be missing,
/// except with `wait`, or with `cache-control: no-cache`.
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{id}", tag = "jobs", operation_id = "get_job",
    params(("id" = JobId, Path), JobGetQuery,
        ("if-none-match" = Option<String>, Header, description = "`ETag` of an earlier response; 304 when nothing has changed.")),
    responses((status = 200, body = JobObject, headers(("etag" = String, description = "Version of the job."))), (status = 304)))]
pub(crate) async fn get(
    Caller { state, tenant }: Caller,
    identity: Identity,
    Id(id): Id<JobId>,
    Params(query): Params<JobGetQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wait = seconds(query.wait, &state.limits)?;
    let answer = |snapshot: &JobSnapshot| {
        let object = || JobObject::new(snapshot, identity.role);
        respond(&headers, snapshot.etag(), object)
    };
    if wait.is_zero() {
        let snapshot = match wants_current(&headers) {
            true => JobSnapshot::read(&state, tenant, id).await?,
            false => JobSnapshot::recent(&state, tenant, id).await?,
        };
        return snapshot
            .as_ref()
            .map(answer)
            .ok_or_else(|| ApiError::unknown(id));
    }
    let _place = state.quotas.wait(&identity, wait)?;
    let until = query.until.unwrap_or(JobUntil::Terminal);
    let mut changes = state.changes.subscribe_to(id);
    // Without a tag to compare with, a change is one since the request.
    let before = match until {
        JobUntil::Change if !is_conditional(&headers) => {
            JobSnapshot::read(&state, tenant, id).await?
        }
        _ => None,
    };
    let before = before.map(|snapshot| snapshot.etag());
    let done = |snapshot: &Option<JobSnapshot>| {
        let Some(snapshot) = snapshot else {
            return true;
        };
        let status = snapshot.rows.job.status;
        match until {
            _ if status.is_terminal() => true,
            JobUntil::Terminal => false,
            JobUntil::Running => status.is_leased(),
            JobUntil::Change => has_changed(&headers, before.as_deref(), &snapshot.etag()),
        }
    };
    let look = || JobSnapshot::read(&state, tenant, id);
    let snapshot = changes
        .until(&id.to_string(), wait, &state.shutdown, look, done)
        .await?
        .ok_or_else(|| ApiError::unknown(id))?;
    Ok(answer(&snapshot))
}

/// # Errors
/// The time is out of range.
pub(crate) fn time_of(seconds: u64) -> Result<OffsetDateTime, ApiError> {
    let time = i64::try_from(seconds).ok();
    let time = time.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.ok_or_else(|| {
        let message = "must be a time in Unix seconds, at most that of the end of the year 9999";
        ApiError::invalid("created_after", codes::OUT_OF_RANGE, message)
    })
}
