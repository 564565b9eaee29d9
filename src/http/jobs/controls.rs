//! Control requests: `cancel`, `pause`, `resume`, `stop`. Each is idempotent; a 409 names the
//! status that forbids it.

use crate::{
    db::{
        controls::{self, Answer},
        jobs::Job,
    },
    domain::{id::JobId, job::Control},
    http::{
        api::{auth::Caller, error::ApiError, extract::Id, identity::Identity, state::AppState},
        jobs::object::JobObject,
    },
};

/// Cancel a fine-tuning job
///
/// A waiting job is cancelled at once, a running one as soon as its worker reads the request. It
/// trains no further and makes no model; its checkpoints stay. A job that succeeds first stays
/// succeeded.
#[utoipa::path(post, path = "/v1/fine_tuning/jobs/{id}/cancel", tag = "jobs", operation_id = "cancel_job", params(("id" = JobId, Path)),
    responses((status = 200, body = JobObject)))]
pub(crate) async fn cancel(
    Caller { state, .. }: Caller,
    identity: Identity,
    Id(id): Id<JobId>,
) -> Result<axum::Json<JobObject>, ApiError> {
    ask(&state, &identity, id, Control::Cancel).await
}

/// Pause a fine-tuning job
///
/// A waiting job is `paused` at once. A running one is `pausing` until it has saved a checkpoint,
/// then `paused`, and its device is free. A trainer that does not save in time is killed, and the
/// last checkpoint counts. `timeout_seconds` does not run meanwhile.
#[utoipa::path(post, path = "/v1/fine_tuning/jobs/{id}/pause", tag = "jobs", operation_id = "pause_job", params(("id" = JobId, Path)),
    responses((status = 200, body = JobObject)))]
pub(crate) async fn pause(
    Caller { state, .. }: Caller,
    identity: Identity,
    Id(id): Id<JobId>,
) -> Result<axum::Json<JobObject>, ApiError> {
    ask(&state, &identity, id, Control::Pause).await
}

/// Resume a paused fine-tuning job
///
/// The job waits for a worker again and continues from its last checkpoint. A job that is still
/// `pausing` keeps running.
#[utoipa::path(post, path = "/v1/fine_tuning/jobs/{id}/resume", tag = "jobs", operation_id = "resume_job", params(("id" = JobId, Path)),
    responses((status = 200, body = JobObject)))]
pub(crate) async fn resume(
    Caller { state, .. }: Caller,
    identity: Identity,
    Id(id): Id<JobId>,
) -> Result<axum::Json<JobObject>, ApiError> {
    ask(&state, &identity, id, Control::Resume).await
}

/// Stop training early and keep the best model
///
/// Training ends after the current step. The weights are evaluated once more, and the best
/// checkpoint becomes the model, with report and bundle as for any job that succeeds. The request
/// survives crashes; a paused job waits for a worker to carry it out.
#[utoipa::path(post, path = "/v1/fine_tuning/jobs/{id}/stop", tag = "jobs", operation_id = "stop_job", params(("id" = JobId, Path)),
    responses((status = 200, body = JobObject)))]
pub(crate) async fn stop(
    Caller { state, .. }: Caller,
    identity: Identity,
    Id(id): Id<JobId>,
) -> Result<axum::Json<JobObject>, ApiError> {
    ask(&state, &identity, id, Control::Stop).await
}

async fn ask(
    state: &AppState,
    identity: &Identity,
    id: JobId,
    control: Control,
) -> Result<axum::Json<JobObject>, ApiError> {
    match controls::ask(&state.pool, identity.tenant, id, control).await? {
        Answer::Accepted => Ok(axum::Json(JobObject::get(state, identity, id).await?)),
        Answer::NotFound => Err(ApiError::unknown(id)),
        Answer::Refused(job) => Err(refusal(control, &job)),
    }
}

/// Why the job's status forbids the request.
fn refusal(control: Control, job: &Job) -> ApiError {
    let done = match control {
        Control::Cancel => "cancelled",
        Control::Pause => "paused",
        Control::Resume => "resumed",
        Control::Stop => "stopped",
    };
    let status = job.status.as_str();
    let (code, message) = if job.status.is_terminal() {
        (
            "job_ended",
            format!("the job is `{status}` and cannot be {done}"),
        )
    } else if job.cancel_requested_at.is_some() {
        (
            "job_cancelling",
            format!("the job is `{status}` and is being cancelled; it cannot be {done}"),
        )
    } else {
        (
            "not_trained",
            format!(
                "the job is `{status}` and has no checkpoint to keep; cancel it, or stop it once it trains"
            ),
        )
    };
    ApiError::conflict(code, message)
}
