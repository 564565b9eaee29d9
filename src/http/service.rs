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
    http::api::{
        auth::{Admin, IsAdmin},
        contract::Contract,
        error::ApiError,
        state::AppState,
    },
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
/// Its database is reachable and migrated, its object store can be read. Only admins are told what
/// is missing.
#[utoipa::path(get, path = "/readyz", tag = "service", operation_id = "get_readiness", responses((status = 200, body = Health)))]
pub(crate) async fn readyz(
    State(state): State<AppState>,
    IsAdmin(is_admin): IsAdmin,
) -> Result<axum::Json<Health>, ApiError> {
    let Err(reason) = check_ready(&state).await else {
        return Ok(axum::Json(HEALTH));
    };
    tracing::warn!("not ready: {reason}");
    let message = if is_admin {
        reason
    } else {
        "the service is not ready; its log, or this route with an admin's key, says why"
    };
    Err(ApiError::unavailable("not_ready", message, 2))
}

/// # Errors
/// A part is not ready; the text says which, and what to do.
async fn check_ready(state: &AppState) -> Result<(), &'static str> {
    match db::is_migrated(&state.pool).await {
        Ok(true) => {}
        Ok(false) => {
            return Err("the database lacks migrations of this version; run `rehead migrate`");
        }
        Err(error) => {
            tracing::warn!("cannot reach the database: {error}");
            return Err("cannot reach the database; see the log");
        }
    }
    state.objects.check().await.map_err(|error| {
        tracing::warn!("cannot read the object store: {error}");
        "cannot read the object store; see the log"
    })
}

/// Get Prometheus metrics
///
/// For admins; `--metrics-listen` is an address that answers without a key.
#[utoipa::path(get, path = "/metrics", tag = "service", operation_id = "get_service_metrics", responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn metrics(_: Admin) -> Response {
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
