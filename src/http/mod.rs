//! The HTTP API. All routes are on this page; a handler reads its request, makes one or two calls of `db`, and answers.
//! Nothing here parses a user's bytes beyond JSON and multipart framing, and nothing here links torch.

use anyhow::Context as _;
use axum::{Router, extract::DefaultBodyLimit, middleware};
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::db::persist::persist;

mod admission;
mod auth;
mod base_models;
mod contract;
mod controls;
mod curves;
mod determinism;
mod download;
mod envelope;
pub mod error;
mod export;
mod extract;
mod files;
mod history;
mod inference;
mod job_body;
mod job_object;
mod jobs;
mod list;
mod models;
mod multipart;
mod notices;
mod plan;
mod predict;
mod results;
mod samples;
mod server;
mod service;
mod state;
mod telemetry;
mod torchscript;
mod transfer_body;
mod wait;
mod workers;

pub use auth::NewKey;
pub use contract::openapi;
pub use state::AppState;

/// Every route; the contract is made of the same list.
fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(contract::Head::openapi())
        .routes(routes!(files::upload, files::list))
        .routes(routes!(files::get, files::delete))
        .routes(routes!(files::content))
        .routes(routes!(files::report))
        .routes(routes!(base_models::register))
        .routes(routes!(models::list))
        .routes(routes!(models::get, models::delete))
        .routes(routes!(models::layers))
        .routes(routes!(models::export))
        .routes(routes!(predict::predict))
        .routes(routes!(jobs::create, jobs::list))
        .routes(routes!(plan::plan))
        .routes(routes!(jobs::get, jobs::delete))
        .routes(routes!(controls::cancel))
        .routes(routes!(controls::pause))
        .routes(routes!(controls::resume))
        .routes(routes!(controls::stop))
        .routes(routes!(history::events))
        .routes(routes!(results::metrics))
        .routes(routes!(results::checkpoints))
        .routes(routes!(results::report))
        .routes(routes!(samples::list))
        .routes(routes!(results::curves))
        .routes(routes!(results::checkpoint_content))
        .routes(routes!(workers::list))
        .routes(routes!(service::healthz))
        .routes(routes!(service::readyz))
        .routes(routes!(service::metrics))
        .routes(routes!(service::openapi_yaml))
}

/// The routes with the contract's page, and around them the envelope that every answer passes.
fn app(state: AppState) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .merge(contract::page())
        .fallback(async || error::ApiError::UnknownRoute)
        .method_not_allowed_fallback(async || error::ApiError::MethodNotAllowed)
        // Each way of reading a body has its own limit (`extract::read_body`, `multipart::bytes`).
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(envelope::wrap))
        .with_state(state)
}

/// Serves the API on `listener` until `shutdown`, then lets running requests end.
///
/// # Errors
/// The address is not loopback and no key exists; the database refuses.
pub async fn serve(
    listener: tokio::net::TcpListener,
    state: AppState,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let address = listener
        .local_addr()
        .context("the listener has no address")?;
    // The database may have gone since it was connected to, and come back.
    let asked = persist("looking for API keys", || state.keys_exist());
    let Some(keys) = shutdown.run_until_cancelled(asked).await else {
        return Ok(());
    };
    let keys = keys.context("the database cannot be asked for API keys")?;
    if !keys && !address.ip().is_loopback() {
        anyhow::bail!(
            "{address} can be reached from other machines, and there is no API key yet: make one with \
             `rehead keys create --tenant NAME`, or listen on 127.0.0.1"
        );
    }
    state.set_address(address);
    let recorder = telemetry::install()?;
    if let Err(error) = state.inference().sweep().await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("old images could not be removed: {error}");
    }
    let stop = state.shutdown().clone();
    let listening = tokio::spawn(
        state
            .notices()
            .clone()
            .listen(state.pool().clone(), stop.clone()),
    );
    let upkeep = tokio::spawn(telemetry::keep_up(recorder, stop.clone()));
    let passing_on = tokio::spawn(async move {
        shutdown.cancelled().await;
        stop.cancel();
    });
    let served = server::accept(listener, app(state.clone()), state.shutdown().clone()).await;
    state.shutdown().cancel();
    passing_on.abort();
    state.inference().stop().await;
    let _ = tokio::join!(listening, upkeep);
    served
}
