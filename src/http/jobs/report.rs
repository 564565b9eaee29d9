//! The evaluation of a job's best checkpoint.

use axum::extract::State;

use crate::{
    db,
    domain::{id::JobId, report::Report},
    http::{
        api::{auth::Tenant, error::ApiError, extract::Id, state::AppState},
        jobs::snapshot::find,
    },
};

/// Get a job's report
///
/// The evaluation of its best checkpoint.
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{id}/report", tag = "jobs", operation_id = "get_job_report", params(("id" = JobId, Path)),
    responses((status = 200, body = Report)))]
pub(crate) async fn report(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Id(id): Id<JobId>,
) -> Result<axum::Json<Report>, ApiError> {
    let job = find(&state, tenant, id).await?;
    let report = db::models::report_of_job(state.pool(), tenant, id).await?;
    report.map(axum::Json).ok_or_else(|| ApiError::Conflict {
        code: "no_report",
        message: match (&job.fine_tuned_model, job.status.is_terminal()) {
            (Some(model), _) => {
                format!("the report was deleted with the model `{model}`")
            }
            (None, true) => format!(
                "the job is `{}` and has no report; create another job",
                job.status.as_str()
            ),
            (None, false) => {
                format!(
                    "the job is `{}`; `GET /v1/fine_tuning/jobs/{id}?wait=60` waits for its end",
                    job.status.as_str()
                )
            }
        },
    })
}
