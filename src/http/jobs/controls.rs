//! What a user asks of a job that exists: `cancel`, `pause`, `resume`, `stop`. Each may be asked again; a 409 names the
//! state that forbids it.

use axum::extract::State;

use crate::{
    db::{
        controls::{self, Answer},
        jobs::Job,
        tenants::TenantId,
    },
    domain::{id::JobId, job::Control},
    http::{
        api::{auth::Tenant, error::ApiError, extract::Id, state::AppState},
        jobs::{
            create::{not_found, object},
            object::JobObject,
        },
    },
};

/// Cancel a fine-tuning job
///
/// A job that waits is cancelled at once, a running one as soon as its worker sees it; nothing more is trained or
/// measured, and its checkpoints stay. A job that succeeds first stays a success.
#[utoipa::path(post, path = "/v1/fine_tuning/jobs/{id}/cancel", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobObject)))]
pub(crate) async fn cancel(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Id(id): Id<JobId>,
) -> Result<axum::Json<JobObject>, ApiError> {
    ask(&state, tenant, id, Control::Cancel).await
}

/// Pause a fine-tuning job
///
/// A job that waits is `paused` at once. A running one is `pausing` until its state is saved, then `paused`, and its device
/// is free; a trainer that does not save in time is ended, and the last checkpoint counts. `timeout_seconds` stands still.
#[utoipa::path(post, path = "/v1/fine_tuning/jobs/{id}/pause", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobObject)))]
pub(crate) async fn pause(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Id(id): Id<JobId>,
) -> Result<axum::Json<JobObject>, ApiError> {
    ask(&state, tenant, id, Control::Pause).await
}

/// Resume a paused fine-tuning job
///
/// It waits for a worker again, and goes on exactly where it was. One that is still `pausing` runs on.
#[utoipa::path(post, path = "/v1/fine_tuning/jobs/{id}/resume", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobObject)))]
pub(crate) async fn resume(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Id(id): Id<JobId>,
) -> Result<axum::Json<JobObject>, ApiError> {
    ask(&state, tenant, id, Control::Resume).await
}

/// Stop training and keep the best model
///
/// Training ends after the present step. What there is by then is measured once more, and the best becomes the model: report
/// and bundle as of any success. Holds across crashes; a paused job gets a worker for it.
#[utoipa::path(post, path = "/v1/fine_tuning/jobs/{id}/stop", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = JobObject)))]
pub(crate) async fn stop(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Id(id): Id<JobId>,
) -> Result<axum::Json<JobObject>, ApiError> {
    ask(&state, tenant, id, Control::Stop).await
}

async fn ask(
    state: &AppState,
    tenant: TenantId,
    id: JobId,
    control: Control,
) -> Result<axum::Json<JobObject>, ApiError> {
    match controls::ask(state.pool(), tenant, id, control).await? {
        Answer::Accepted => Ok(axum::Json(object(state, tenant, id).await?)),
        Answer::NotFound => Err(not_found(id)),
        Answer::Refused(job) => Err(refusal(control, &job)),
    }
}

/// Why the state of a job forbids what was asked.
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
            format!("the job is `{status}` already and cannot be {done}"),
        )
    } else if job.cancel_requested_at.is_some() {
        (
            "job_cancelling",
            format!("the job is `{status}` and being cancelled: it cannot be {done}"),
        )
    } else {
        (
            "not_trained",
            format!(
                "the job is `{status}` and has trained nothing that could be kept; cancel it, or stop it once it trains"
            ),
        )
    };
    ApiError::Conflict { code, message }
}
