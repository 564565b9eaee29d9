//! `/v1/workers`: the workers and their state.

use crate::{
    db::{self, Slice, workers::Worker},
    http::api::{auth::Admin, error::ApiError, page::List},
};

/// List workers
///
/// At most 500 workers of the last day, newest first. For admins; a job's `queue` says why it
/// waits.
#[utoipa::path(get, path = "/v1/workers", tag = "workers", operation_id = "list_workers",
    responses((status = 200, body = List<Worker>)))]
pub(crate) async fn list(
    Admin { state, tenant }: Admin,
) -> Result<axum::Json<List<Worker>>, ApiError> {
    let rows = db::workers::list(&state.pool, tenant).await?;
    let slice = Slice {
        rows,
        has_more: false,
    };
    Ok(List::of(
        slice,
        |worker| worker,
        |worker| worker.id.to_string(),
    ))
}
