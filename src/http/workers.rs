//! `/v1/workers`: who trains, and whether anybody does.

use axum::extract::State;

use crate::{
    db::{self, workers::Worker},
    http::api::{auth::Tenant, error::ApiError, page::List, state::AppState},
};

/// List workers
///
/// Those of the last day, the newest first, 500 at most.
#[utoipa::path(get, path = "/v1/workers", tag = "workers", responses((status = 200, body = List<Worker>)))]
pub(crate) async fn list(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
) -> Result<axum::Json<List<Worker>>, ApiError> {
    let workers = db::workers::list(state.pool(), tenant).await?;
    Ok(axum::Json(List::new(workers, false, |worker: &Worker| {
        worker.id.to_string()
    })))
}
