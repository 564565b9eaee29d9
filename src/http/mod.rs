//! The HTTP API. `router` lists all routes; a handler reads its request, makes one or two calls of
//! `db`, and answers. Nothing here parses a user's bytes beyond JSON and multipart framing, and
//! nothing here links torch.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    db::persist::persist,
    http::{jobs::object::JobObject, server::Acceptor},
    telemetry::recorder,
    webhooks::Sender,
};

mod api;
mod files;
mod jobs;
mod keys;
mod measure;
mod meta;
mod models;
mod rankings;
mod router;
mod server;
mod service;
mod sessions;
mod ui;
mod uploads;
mod webhooks;
mod workers;

pub use api::state::AppState;
pub use router::openapi;

/// Who can use the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Every process of this machine, without a key.
    Open,
    /// Whoever has a key.
    Keys,
    /// Nobody: keys are needed, and there is none.
    Nobody,
}

/// Finds out who could use the service if it listened on `address`.
///
/// # Errors
/// The database cannot be read.
pub async fn access(state: &AppState, address: SocketAddr) -> anyhow::Result<Access> {
    // The database may be restarting.
    let keys_exist = persist("looking for API keys", || state.keys_exist()).await;
    let keys_exist = keys_exist.context("cannot read API keys from the database")?;
    Ok(match keys_exist {
        true => Access::Keys,
        false if address.ip().is_loopback() && !state.keys_required() => Access::Open,
        false => Access::Nobody,
    })
}

/// Serves the API until `shutdown`, then waits for running requests.
///
/// # Errors
/// The listener has no address, or the contract cannot be written.
pub async fn serve(
    listener: TcpListener,
    mut state: AppState,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let address = listener.local_addr();
    let _ = state
        .address
        .set(address.context("the listener has no address")?);
    state.shutdown = shutdown.child_token();
    recorder::install()?;
    let router = router::app(state.clone())?;
    state.predictor.sweep().await;
    let stop = state.shutdown.clone();
    let changes = state.changes.clone();
    let listening = tokio::spawn(changes.listen(state.pool.clone(), stop.clone()));
    let sender = Sender {
        pool: state.pool.clone(),
        outgoing: state.outgoing.clone(),
        args: state.webhooks.clone(),
    };
    let of_job = state.clone();
    let job = move |tenant, id| JobObject::event_data(of_job.clone(), tenant, id);
    let refreshing = {
        let state = state.clone();
        tokio::spawn(async move {
            tokio::join!(state.recent_jobs.run(&state.pool), state.follow_keys());
        })
    };
    let sending = tokio::spawn(sender.run(job, stop.clone()));
    // The first scrape finds every gauge.
    measure::measure(&state).await;
    let measuring = tokio::spawn(measure::run(state.clone()));
    let acceptor = Acceptor {
        router,
        limits: state.limits.clone(),
        trusted_proxies: state.access.trusted_proxies.clone(),
        shutdown: stop.clone(),
    };
    acceptor.run(listener).await;
    stop.cancel();
    measuring.abort();
    refreshing.abort();
    state.predictor.stop().await;
    let _ = tokio::join!(listening, sending);
    Ok(())
}
