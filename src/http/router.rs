//! Every route of the API on one page, with the contract that is generated from the same list.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::DefaultBodyLimit,
    http::{HeaderMap, Method, Uri},
    middleware,
    response::IntoResponse as _,
};
use utoipa::{OpenApi as _, openapi::OpenApi};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::http::{
    api::{
        auth,
        contract::{self, Contract},
        envelope,
        error::ApiError,
        extract, linger,
        state::AppState,
    },
    files, jobs, keys, meta, models, rankings, service, sessions, ui, uploads, webhooks, workers,
};

/// Every route; the contract is generated from the same list.
fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(contract::Head::openapi())
        .routes(routes!(files::create::create, files::read::list))
        .routes(routes!(files::read::get, files::read::delete))
        .routes(routes!(files::read::content))
        .routes(routes!(files::read::report))
        .routes(routes!(files::samples::thumbnail))
        .routes(routes!(files::samples::content))
        .routes(routes!(files::samples::make))
        .routes(routes!(files::corrections::create))
        .routes(routes!(uploads::create::create))
        .routes(routes!(uploads::parts::add))
        .routes(routes!(uploads::complete::complete))
        .routes(routes!(uploads::cancel::cancel))
        .routes(routes!(models::register::register))
        .routes(routes!(models::catalog::list))
        .routes(routes!(models::catalog::get, models::catalog::delete))
        .routes(routes!(models::catalog::layers))
        .routes(routes!(models::catalog::export))
        .routes(routes!(models::predict::predict))
        .routes(routes!(models::push::create))
        .routes(routes!(models::push::list))
        .routes(routes!(models::push::get, models::push::delete))
        .routes(routes!(rankings::create, rankings::list))
        .routes(routes!(rankings::get, rankings::delete))
        .routes(routes!(jobs::create::create, jobs::read::list))
        .routes(routes!(jobs::summaries::list))
        .routes(routes!(jobs::plan::plan))
        .routes(routes!(jobs::read::get, jobs::delete::delete))
        .routes(routes!(jobs::controls::cancel))
        .routes(routes!(jobs::controls::pause))
        .routes(routes!(jobs::controls::resume))
        .routes(routes!(jobs::controls::stop))
        .routes(routes!(jobs::events::events))
        .routes(routes!(jobs::metrics::metrics))
        .routes(routes!(jobs::checkpoints::checkpoints))
        .routes(routes!(jobs::report::report))
        .routes(routes!(jobs::samples::list))
        .routes(routes!(jobs::metrics::curves))
        .routes(routes!(jobs::checkpoints::checkpoint_content))
        .routes(routes!(webhooks::create, webhooks::list))
        .routes(routes!(webhooks::get, webhooks::update, webhooks::delete))
        .routes(routes!(webhooks::rotate_secret))
        .routes(routes!(webhooks::test))
        .routes(routes!(webhooks::deliveries))
        .routes(routes!(webhooks::delivery))
        .routes(routes!(webhooks::redeliver))
        .routes(routes!(workers::list))
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::revoke))
        .routes(routes!(sessions::create, sessions::get, sessions::delete))
        .routes(routes!(meta::statuses::list))
        .routes(routes!(meta::error_codes::list))
        .routes(routes!(meta::limits::get))
        .routes(routes!(service::healthz))
        .routes(routes!(service::readyz))
        .routes(routes!(service::metrics))
        .routes(routes!(service::openapi_yaml))
}

/// The routes, the page of the contract and the dashboard, inside the envelope of every response.
///
/// # Errors
/// The contract cannot be written as YAML.
pub(crate) fn app(state: AppState) -> anyhow::Result<Router> {
    let (router, description) = routes().split_for_parts();
    let routes: Arc<[String]> = description.paths.paths.keys().cloned().collect();
    let contract = Contract(contract::complete(description).to_yaml()?.into());
    Ok(router
        .merge(contract::page())
        .merge(ui::page())
        .fallback(move |method: Method, uri: Uri, headers: HeaderMap| {
            let page = ui::redirect(&method, &uri, &headers);
            let near = near_route(uri.path(), &routes);
            async move { page.unwrap_or_else(|| ApiError::unknown_route(near).into_response()) }
        })
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        // Each reader of a body has its own limit (`extract::read_body`, `multipart::bytes`).
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(extract::refuse_encoded))
        .layer(middleware::from_fn_with_state(
            state.clone(),
            auth::authenticate,
        ))
        .layer(Extension(contract))
        .layer(middleware::from_fn(envelope::wrap))
        .layer(middleware::from_fn(linger::linger))
        .with_state(state))
}

/// The path that was meant, for one that no route has: without `/v1`, or with a slash at its end.
fn near_route(path: &str, routes: &[String]) -> Option<String> {
    let is_route = |path: &str| {
        let fits = |(part, of): (&str, &str)| part == of || of.starts_with('{') && !part.is_empty();
        routes.iter().any(|route| {
            let parts = path.split('/').zip(route.split('/'));
            path.split('/').count() == route.split('/').count() && parts.into_iter().all(fits)
        })
    };
    let path = path.trim_end_matches('/');
    [path.to_owned(), format!("/v1{path}")]
        .into_iter()
        .find(|path| is_route(path))
}

/// The contract, generated from the routes and types. `rehead openapi` prints it as YAML.
pub fn openapi() -> OpenApi {
    contract::complete(routes().into_openapi())
}
