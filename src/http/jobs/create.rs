//! `POST /v1/fine_tuning/jobs`.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse as _, Response},
};
use sha2::{Digest as _, Sha256};

use crate::{
    db::{
        self,
        jobs::{Created, Idempotency},
    },
    domain::{codes, id::JobId, limits::IDEMPOTENCY_KEY_CHARACTERS, request::JobRequest},
    http::{
        api::{
            auth::Caller,
            error::{ApiError, QUEUE_FULL},
            extract::Json,
            identity::Identity,
            state::AppState,
        },
        jobs::object::JobObject,
    },
    jobs::admit::admit,
    telemetry::traces,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Create a fine-tuning job
///
/// All options but `model` and `training_file` have a default. A refusal lists all problems.
#[utoipa::path(post, path = "/v1/fine_tuning/jobs", tag = "jobs", operation_id = "create_job",
    params(("idempotency-key" = Option<String>, Header, description = "The same key with the same body gives the first job again.")),
    request_body = JobRequest,
    responses((status = 200, body = JobObject, headers(("idempotent-replayed" = String, description = "`true` when the key was used before.")))))]
pub(crate) async fn create(
    Caller { state, tenant }: Caller,
    identity: Identity,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Response, ApiError> {
    let idempotency = idempotency(&headers, &body)?;
    let (job, replayed) = match admit(&state.pool, tenant, &body, idempotency).await? {
        Created::New(job) => {
            remember_trace(&state, job).await;
            (job, false)
        }
        Created::Replayed(job) => (job, true),
        Created::KeyConflict => {
            let message =
                "this `Idempotency-Key` was used with another body; use a new key for a new job";
            return Err(ApiError::conflict("idempotency_key_reused", message));
        }
        Created::QueueFull { limit } => {
            let message = format!(
                "{limit} jobs are waiting, which is the limit; cancel some, or try again later"
            );
            let full = ApiError::new(StatusCode::TOO_MANY_REQUESTS, QUEUE_FULL, message);
            return Err(full.retry_after(30));
        }
        Created::InputGone => {
            let message = "the model or a file was deleted while the job was created; create the job with others";
            return Err(ApiError::conflict("input_gone", message));
        }
    };
    let mut response = axum::Json(JobObject::get(&state, &identity, job).await?).into_response();
    if replayed {
        let replayed = HeaderValue::from_static("true");
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, replayed);
    }
    Ok(response)
}

/// Remembers the trace of this request, to which the job's attempts are linked. A job is created
/// without it, too.
async fn remember_trace(state: &AppState, job: JobId) {
    if let Some(context) = traces::current()
        && let Err(error) = db::traces::remember(&state.pool, job, &context).await
    {
        tracing::debug!("cannot remember the trace of a job: {error}");
    }
}

/// The key, and the hash of the body's values (its white space does not count).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idempotency_ignores_white_space() {
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
