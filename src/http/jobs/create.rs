//! `POST /v1/fine_tuning/jobs`.

use axum::response::{IntoResponse as _, Response};

use crate::{
    db::{self, jobs::Created},
    domain::{id::JobId, request::JobRequest},
    http::{
        api::{
            auth::Caller,
            error::{ApiError, QUEUE_FULL},
            extract::Json,
            idempotency::{self, IdempotencyKey},
            identity::Identity,
            state::AppState,
        },
        jobs::object::JobObject,
    },
    jobs::admit::admit,
    telemetry::traces,
};

/// Create a fine-tuning job
///
/// All options but `model` and `training_file` have a default. A refusal lists all problems.
#[utoipa::path(post, path = "/v1/fine_tuning/jobs", tag = "jobs", operation_id = "create_job",
    params(IdempotencyKey), request_body = JobRequest,
    responses((status = 200, body = JobObject, headers(("idempotent-replayed" = String, description = "`true` when the key was used before.")))))]
pub(crate) async fn create(
    Caller { state, tenant }: Caller,
    identity: Identity,
    key: IdempotencyKey,
    Json(body): Json,
) -> Result<Response, ApiError> {
    let idempotency = key.with_body(&body);
    let (job, is_replayed) = match admit(&state.pool, tenant, &body, idempotency).await? {
        Created::New(job) => {
            remember_trace(&state, job).await;
            (job, false)
        }
        Created::Replayed(job) => (job, true),
        Created::KeyConflict => return Err(idempotency::key_reused()),
        Created::QueueFull { limit } => {
            let message = format!(
                "{limit} jobs are waiting, which is the limit; cancel some, or try again later"
            );
            return Err(ApiError::too_many(QUEUE_FULL, message, 30));
        }
        Created::InputGone => {
            let message = "the model or a file was deleted while the job was created; create the job with others";
            return Err(ApiError::conflict("input_gone", message));
        }
    };
    let response = axum::Json(JobObject::get(&state, &identity, job).await?).into_response();
    Ok(match is_replayed {
        true => idempotency::replayed(response),
        false => response,
    })
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
