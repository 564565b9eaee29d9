//! The HTTP API. `router` lists all routes; a handler reads its request, makes one or two calls of
//! `db`, and answers. Nothing here parses a user's bytes beyond JSON and multipart framing, and
//! nothing here links torch.

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::{db::persist::persist, http::api::server, telemetry::recorder};

mod api;
mod files;
mod jobs;
mod measure;
mod meta;
mod models;
mod router;
mod service;
mod uploads;
mod workers;

pub use api::{auth::NewKey, state::AppState};
pub use router::openapi;

/// Serves the API on `listener` until `shutdown`, then waits for running requests.
///
/// # Errors
/// The address is not loopback and no key exists; the database cannot be read.
pub async fn serve(
    listener: tokio::net::TcpListener,
    mut state: AppState,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let address = listener
        .local_addr()
        .context("the listener has no address")?;
    // The database may be restarting.
    let checked = persist("looking for API keys", || state.keys_exist());
    let Some(keys) = shutdown.run_until_cancelled(checked).await else {
        return Ok(());
    };
    let keys = keys.context("cannot read API keys from the database")?;
    if !keys && !address.ip().is_loopback() {
        anyhow::bail!(
            "cannot listen on {address} without API keys, because other machines can reach it: create a key with \
             `rehead keys create --tenant NAME`, or listen on 127.0.0.1"
        );
    }
    let _ = state.address.set(address);
    state.shutdown = shutdown.child_token();
    recorder::install()?;
    let router = router::app(state.clone())?;
    state.predictor.sweep().await;
    let stop = state.shutdown.clone();
    let changes = state.changes.clone();
    let listening = tokio::spawn(changes.listen(state.pool.clone(), stop.clone()));
    // The first scrape finds every gauge.
    measure::measure(&state).await;
    let measuring = tokio::spawn(measure::run(state.clone()));
    let served = server::accept(listener, router, stop.clone()).await;
    stop.cancel();
    measuring.abort();
    state.predictor.stop().await;
    let _ = listening.await;
    served
}
