//! `/v1/workers`: the workers and their state.

use axum::extract::State;

use crate::{
    db::{self, workers::Worker},
    http::api::{auth::Tenant, error::ApiError, page::List, state::AppState},
};

/// List workers
///
/// At most 500 workers of the last day, newest first.
#[utoipa::path(get, path = "/v1/workers", tag = "workers", operation_id = "list_workers",
    responses((status = 200, body = List<Worker>)))]
pub(crate) async fn list(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
) -> Result<axum::Json<List<Worker>>, ApiError> {
    let workers = db::workers::list(state.pool(), tenant).await?;
    Ok(axum::Json(List::new(workers, false, |worker: &Worker| {
        worker.id.to_string()
    })))
}
