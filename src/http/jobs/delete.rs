//! `DELETE /v1/fine_tuning/jobs/{id}`.

use crate::{
    db::retention::Deleted as Deletion,
    domain::id::JobId,
    http::api::{auth::Caller, error::ApiError, extract::Id, page::Deleted},
    jobs::delete,
};

/// Delete a fine-tuning job
///
/// Deletes its history and checkpoints; its model stays. Only a job that has ended can be deleted.
#[utoipa::path(delete, path = "/v1/fine_tuning/jobs/{id}", tag = "jobs", operation_id = "delete_job", params(("id" = JobId, Path)),
    responses((status = 200, body = Deleted)))]
pub(crate) async fn delete(
    Caller { state, tenant }: Caller,
    Id(id): Id<JobId>,
) -> Result<axum::Json<Deleted>, ApiError> {
    let (pool, objects) = (state.pool.clone(), state.objects.clone());
    // In a task of its own: a client that disconnects must not leave a job half deleted.
    let deleted = async move { delete::delete(&pool, &objects, tenant, id).await };
    match tokio::spawn(deleted).await.map_err(anyhow::Error::from)?? {
        Deletion::Begun => Ok(Deleted::of("fine_tuning.job", id)),
        Deletion::NotFound => Err(ApiError::unknown(id)),
        Deletion::InUse(job) => Err(ApiError::conflict(
            "checkpoint_in_use",
            format!(
                "job `{job}` continues from one of its checkpoints and has not ended; cancel that job or wait for it"
            ),
        )),
        Deletion::NotEnded(status) => Err(ApiError::conflict(
            "job_not_ended",
            format!("the job is `{status}`; cancel it or wait for its end, then delete it"),
        )),
    }
}
