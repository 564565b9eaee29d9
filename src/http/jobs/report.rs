//! The evaluation of a job's best checkpoint.

use crate::{
    db,
    domain::{id::JobId, report::Report},
    http::{
        api::{auth::Caller, error::ApiError, extract::Id},
        jobs::snapshot::{find, without_result},
    },
};

/// Get a job's report
///
/// The evaluation of its best checkpoint.
#[utoipa::path(get, path = "/v1/fine_tuning/jobs/{id}/report", tag = "jobs", operation_id = "get_job_report", params(("id" = JobId, Path)),
    responses((status = 200, body = Report)))]
pub(crate) async fn report(
    Caller { state, tenant }: Caller,
    Id(id): Id<JobId>,
) -> Result<axum::Json<Report>, ApiError> {
    let job = find(&state, tenant, id).await?;
    let report = db::models::report_of_job(&state.pool, tenant, id).await?;
    report.map(axum::Json).ok_or_else(|| {
        let message = match &job.fine_tuned_model {
            Some(model) => format!("the report was deleted with the model `{model}`"),
            None => without_result(&job, "report"),
        };
        ApiError::conflict("no_report", message)
    })
}
