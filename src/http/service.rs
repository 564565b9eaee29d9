//! Routes for operators and tools: health, readiness, metrics, the contract.

use axum::{
    Extension,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    db,
    http::api::{contract::Contract, error::ApiError, state::AppState},
    telemetry::recorder,
};

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`.
    status: &'static str,
    version: &'static str,
}

const HEALTH: Health = Health {
    status: "ok",
    version: env!("CARGO_PKG_VERSION"),
};

/// Check that the process runs
#[utoipa::path(get, path = "/healthz", tag = "service", operation_id = "get_health", responses((status = 200, body = Health)))]
pub(crate) async fn healthz() -> axum::Json<Health> {
    axum::Json(HEALTH)
}

/// Check that the service is ready
///
/// Its database is reachable and migrated, its object store can be read.
#[utoipa::path(get, path = "/readyz", tag = "service", operation_id = "get_readiness", responses((status = 200, body = Health)))]
pub(crate) async fn readyz(State(state): State<AppState>) -> Result<axum::Json<Health>, ApiError> {
    let not_ready = |message| ApiError::unavailable("not_ready", message, 2);
    if !db::is_migrated(&state.pool).await? {
        return Err(not_ready(
            "the database lacks migrations of this version; run `rehead migrate`",
        ));
    }
    state.objects.check().await.map_err(|error| {
        tracing::warn!("cannot read the object store: {error}");
        not_ready("cannot read the object store; see the log")
    })?;
    Ok(axum::Json(HEALTH))
}

/// Get Prometheus metrics
#[utoipa::path(get, path = "/metrics", tag = "service", operation_id = "get_service_metrics", responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn metrics() -> Response {
    let content_type = [(header::CONTENT_TYPE, recorder::CONTENT_TYPE)];
    (content_type, recorder::render()).into_response()
}

/// Get this contract
#[utoipa::path(get, path = "/openapi.yaml", tag = "service", operation_id = "get_contract",
    responses((status = 200, body = serde_json::Value, content_type = "application/yaml")))]
pub(crate) async fn openapi_yaml(Extension(Contract(text)): Extension<Contract>) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/yaml")];
    (content_type, text.to_string()).into_response()
}
