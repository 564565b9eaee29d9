//! `/v1/fine_tuning/jobs`: create, list, get with a wait, delete.

use std::collections::BTreeMap;

use axum::{
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::{
    db::{
        self,
        jobs::{Created, Filter, Idempotency, Job},
        retention::Deleted as Deletion,
        tenants::TenantId,
    },
    domain::{
        codes, id::JobId, job::JobStatus, limits::IDEMPOTENCY_KEY_CHARACTERS, request::JobRequest,
    },
    http::{
        api::{
            auth::Tenant,
            error::ApiError,
            extract::{Id, Json, Params, read_query},
            page::{Deleted, List, Order, page},
            state::AppState,
            wait::seconds,
        },
        jobs::object::{JobObject, Seen},
    },
    jobs::{admit::admit, delete},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Create a fine-tuning job
///
/// Everything but `model` and `training_file` has a default. All problems are answered at once.
#[utoipa::path(post, path = "/v1/fine_tuning/jobs", tag = "jobs",
    params(("idempotency-key" = Option<String>, Header, description = "The same key and body give the first job again.")),
    request_body = JobRequest,
    responses((status = 200, body = JobObject, headers(("idempotent-replayed" = String, description = "`true` when the key was known.")))))]
pub(crate) async fn create(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Response, ApiError> {
    let idempotency = idempotency(&headers, &body)?;
    let created = admit(state.pool(), tenant, &body, idempotency).await?;
    answer(&state, tenant, created).await
}

/// The header, and the hash of the body it came with (of its values, not its spaces).
fn idempotency(
    headers: &HeaderMap,
    body: &serde_json::Value,
) -> Result<Option<Idempotency>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_CHARACTERS {
        let message =
            format!("must be 1 to {IDEMPOTENCY_KEY_CHARACTERS} printable ASCII characters");
        return Err(ApiError::invalid(
            "Idempotency-Key",
            codes::INVALID_VALUE,
            message,
        ));
    }
    let body_sha256 = Sha256::digest(body.to_string()).into();
    Ok(Some(Idempotency {
        key: key.to_owned(),
        body_sha256,
    }))
}

async fn answer(
    state: &AppState,
    tenant: TenantId,
    created: Created,
) -> Result<Response, ApiError> {
    let replayed = matches!(created, Created::Replayed(_));
    match created {
        Created::New(job) | Created::Replayed(job) => {
            let mut response = axum::Json(object(state, tenant, job).await?).into_response();
            if replayed {
                response
                    .headers_mut()
                    .insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
            }
            Ok(response)
        }
        Created::KeyConflict => Err(ApiError::Conflict {
            code: "idempotency_key_reused",
            message:
                "this `Idempotency-Key` came with another body before; use a new key for a new job"
                    .to_owned(),
        }),
        Created::QueueFull { limit } => Err(ApiError::TooMany {
            code: "queue_full",
            message: format!(
                "{limit} jobs are waiting already, the most there may be; cancel some, or try again later"
            ),
            retry_after_seconds: 30,
        }),
        Created::InputGone => Err(ApiError::Conflict {
            code: "input_gone",
            message: "the model or a file was deleted while the job was made".to_owned(),
        }),
    }
}

/// The object of the job of this id.
pub(crate) async fn object(
    state: &AppState,
    tenant: TenantId,
    id: JobId,
) -> Result<JobObject, ApiError> {
    let seen = Seen::get(state.pool(), tenant, id).await?;
    Ok(seen.ok_or_else(|| not_found(id))?.object())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobListQuery {
    /// The last id of the page before.
    after: Option<String>,
    /// Rows of a page; 20 when left out.
    #[param(minimum = 1)]
    limit: Option<u32>,
    /// Newest first (`desc`) or oldest first (`asc`).
    order: Option<Order>,
    /// Only jobs in this status.
    status: Option<JobStatus>,
    /// Only jobs that start from this model or checkpoint.
    model: Option<String>,
    /// Only jobs made after this, in Unix seconds.
    created_after: Option<i64>,
}

/// `metadata[k]=v`, any number of them; what else is there is for `JobListQuery`.
pub(crate) struct JobQuery {
    query: JobListQuery,
    metadata: BTreeMap<String, String>,
}

impl FromRequestParts<AppState> for JobQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
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
        Ok(Self {
            query,
            metadata: metadata.collect::<Result<_, _>>()?,
        })
    }
}

/// List fine-tuning jobs
#[utoipa::path(get, path = "/v1/fine_tuning/jobs", tag = "jobs",
    params(JobListQuery, ("metadata" = Option<BTreeMap<String, String>>, Query, style = DeepObject, explode,
        description = "Only jobs whose metadata hold these entries: `metadata[team]=recycling`.")),
    responses((status = 200, body = List<JobObject>)))]
pub(crate) async fn list(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    JobQuery { query, metadata }: JobQuery,
) -> Result<axum::Json<List<JobObject>>, ApiError> {
    let page = page(
        query.after.as_deref(),
        query.limit,
        query.order,
        state.limits(),
    )?;
    let created_after = query
        .created_after
        .map(OffsetDateTime::from_unix_timestamp)
        .transpose();
    let created_after = created_after.map_err(|_| {
        ApiError::invalid("created_after", codes::OUT_OF_RANGE, "must be Unix seconds")
    })?;
    let filter = Filter {
        status: query.status,
        model: query.model,
        created_after,
        metadata,
    };
    let slice = Seen::list(state.pool(), tenant, page, &filter).await?;
    let data = slice.rows.into_iter().map(Seen::listed).collect();
    Ok(axum::Json(List::new(
        data,
        slice.has_more,
        |job: &JobObject| job.id.to_string(),
    )))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobGetQuery {
    /// Hold the answer back for up to so many seconds, until …
    wait: Option<u64>,
    /// … the job has ended (`terminal`, the default), has started (`running`), or is not what it was (`change`: of the
    /// `ETag` in `if-none-match`, or of now).
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
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{id}", tag = "jobs",
    params(("id" = JobId, Path), JobGetQuery,
        ("if-none-match" = Option<String>, Header, description = "An `ETag` from before: 304 when nothing changed.")),
    responses((status = 200, body = JobObject, headers(("etag" = String, description = "Of this state."))), (status = 304)))]
pub(crate) async fn get(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Id(id): Id<JobId>,
    Params(query): Params<JobGetQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let pool = state.pool();
    let wait = seconds(query.wait, state.limits())?;
    let until = query.until.unwrap_or(JobUntil::Terminal);
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    let mut changes = state.changes().subscribe_to(id);
    let before = match (until, known) {
        (JobUntil::Change, None) => Seen::get(pool, tenant, id).await?.map(|seen| seen.etag()),
        (_, known) => known.map(str::to_owned),
    };
    let done = |seen: &Option<Seen>| {
        let Some(seen) = seen else { return true };
        let status = seen.job.status;
        match until {
            _ if status.is_terminal() => true,
            JobUntil::Terminal => false,
            JobUntil::Running => status.is_leased(),
            JobUntil::Change => before.as_ref().is_none_or(|before| *before != seen.etag()),
        }
    };
    let look = || Seen::get(pool, tenant, id);
    let seen = changes
        .until(&id.to_string(), wait, state.shutdown(), look, done)
        .await?
        .ok_or_else(|| not_found(id))?;
    let etag = seen.etag();
    let mut response = if known == Some(etag.as_str()) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        axum::Json(seen.object()).into_response()
    };
    if let Ok(etag) = HeaderValue::try_from(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// "There is no such job."
pub(crate) fn not_found(id: JobId) -> ApiError {
    ApiError::not_found("fine-tuning job", &id.to_string())
}

/// The job of this id.
///
/// # Errors
/// There is none.
pub(crate) async fn find(state: &AppState, tenant: TenantId, id: JobId) -> Result<Job, ApiError> {
    db::jobs::get(state.pool(), tenant, id)
        .await?
        .ok_or_else(|| not_found(id))
}

/// Delete a fine-tuning job
///
/// Its history and checkpoints go with it; the model that it made stays. Only a job that has ended can be deleted.
#[utoipa::path(delete, path = "/v1/fine_tuning/jobs/{id}", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = Deleted)))]
pub(crate) async fn delete(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Id(id): Id<JobId>,
) -> Result<axum::Json<Deleted>, ApiError> {
    let (pool, objects) = (state.pool().clone(), state.objects().clone());
    // In a task of its own: a client that hangs up leaves no job half deleted.
    let deleted = async move { delete::delete(&pool, &objects, tenant, id).await };
    match tokio::spawn(deleted).await.map_err(anyhow::Error::from)?? {
        Deletion::Begun => Ok(axum::Json(Deleted {
            id: id.to_string(),
            object: "fine_tuning.job",
            deleted: true,
        })),
        Deletion::NotFound => Err(not_found(id)),
        Deletion::InUse(job) => Err(ApiError::Conflict {
            code: "checkpoint_in_use",
            message: format!(
                "job `{job}` goes on from one of its checkpoints and has not ended; cancel it or wait for it"
            ),
        }),
        Deletion::NotEnded(status) => Err(ApiError::Conflict {
            code: "job_not_ended",
            message: format!(
                "the job is `{}`: cancel it or wait for its end, then delete it",
                status.as_str()
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idempotency_is_about_values_not_spaces() {
        let headers: HeaderMap = [(IDEMPOTENCY_KEY, HeaderValue::from_static("k"))]
            .into_iter()
            .collect();
        let hash = |text: &str| {
            let body = serde_json::from_str(text).unwrap();
            idempotency(&headers, &body).unwrap().unwrap().body_sha256
        };
        assert_eq!(hash(r#"{"a": 1}"#), hash(r#"{"a":1}"#));
        assert_ne!(hash(r#"{"a": 1}"#), hash(r#"{"a":2}"#));
        let long: HeaderMap = [(IDEMPOTENCY_KEY, "k".repeat(256).parse().unwrap())]
            .into_iter()
            .collect();
        assert!(idempotency(&long, &serde_json::Value::Null).is_err());
    }
}
