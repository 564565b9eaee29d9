//! What operators and tools ask: health, readiness, metrics, the contract.

use axum::{
    Extension,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    db,
    http::api::{contract::Contract, error::ApiError, state::AppState, telemetry},
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

/// Whether the process lives
#[utoipa::path(get, path = "/healthz", tag = "service", responses((status = 200, body = Health)))]
pub(crate) async fn healthz() -> axum::Json<Health> {
    axum::Json(HEALTH)
}

/// Whether the service can work
///
/// Its database answers and is migrated, its store can be read.
#[utoipa::path(get, path = "/readyz", tag = "service", responses((status = 200, body = Health)))]
pub(crate) async fn readyz(State(state): State<AppState>) -> Result<axum::Json<Health>, ApiError> {
    let not_ready = |message: &str| ApiError::Unavailable {
        code: "not_ready",
        message: message.to_owned(),
        retry_after_seconds: 2,
    };
    if !db::is_migrated(state.pool()).await? {
        return Err(not_ready(
            "the database lacks migrations of this version; run `rehead migrate`",
        ));
    }
    state.objects().check().await.map_err(|error| {
        tracing::warn!("the object store cannot be read: {error}");
        not_ready("the object store cannot be read")
    })?;
    Ok(axum::Json(HEALTH))
}

/// Prometheus metrics
#[utoipa::path(get, path = "/metrics", tag = "service", responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn metrics(State(state): State<AppState>) -> Result<Response, ApiError> {
    let handle = telemetry::install()?;
    // A scrape must not fail with the database: the rest is worth having then.
    match db::jobs::counts(state.pool()).await {
        Ok(counts) => {
            for status in crate::domain::job::JobStatus::ALL {
                let count = counts
                    .iter()
                    .find(|(of, _)| *of == status)
                    .map_or(0, |(_, count)| *count);
                metrics::gauge!("rehead_jobs", "status" => status.as_str()).set(count as f64);
            }
        }
        Err(error) => tracing::warn!("the jobs could not be counted: {error}"),
    }
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, content_type)], handle.render()).into_response())
}

/// This contract
#[utoipa::path(get, path = "/openapi.yaml", tag = "service",
    responses((status = 200, body = String, content_type = "application/yaml")))]
pub(crate) async fn openapi_yaml(Extension(Contract(text)): Extension<Contract>) -> Response {
    let content_type = HeaderValue::from_static("application/yaml");
    ([(header::CONTENT_TYPE, content_type)], text.to_string()).into_response()
}
