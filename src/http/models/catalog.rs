//! `/v1/models`: base models and fine-tuned models, their layers and exports.

use axum::{http::HeaderMap, response::Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::{
    db::{
        self,
        models::{Deleted as Outcome, Filter, Model, ModelStatus, Owner},
        tenants::TenantId,
    },
    domain::{base_model::Layers, export::ExportFormat, object::Bundle},
    http::{
        api::{
            auth::Caller,
            conditional::{etag_of, has_changed, is_conditional, respond},
            download::Place,
            error::{ApiError, unless_deleted},
            extract::{ModelName, Params},
            identity::Identity,
            page::{Deleted, List, Order, Rows, page},
            state::AppState,
            wait::seconds,
        },
        models::export,
    },
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ModelListQuery {
    /// `last_id` of the previous page.
    after: Option<String>,
    /// Rows per page; by default all, because OpenAI's clients ask for one page only. A page of
    /// models with many labels may have fewer.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<u32>,
    /// `desc` (newest first, the default) or `asc`.
    #[param(inline)]
    order: Option<Order>,
    /// Only base models (`base`) or only fine-tuned models (`user`).
    owned_by: Option<Owner>,
    /// Only models with this network, by timm's name.
    architecture: Option<String>,
    /// Only models whose `source_task` has this `name`.
    source_task: Option<String>,
}

/// List models
#[utoipa::path(get, path = "/v1/models", tag = "models", operation_id = "list_models", params(ModelListQuery),
    responses((status = 200, body = List<Model>)))]
pub(crate) async fn list(
    Caller { state, tenant }: Caller,
    Params(query): Params<ModelListQuery>,
) -> Result<axum::Json<List<Model>>, ApiError> {
    let after = query.after.as_deref();
    let page = page(
        after,
        query.limit,
        query.order,
        Rows::of_models(&state.limits),
    )?;
    let filter = Filter {
        owned_by: query.owned_by,
        architecture: query.architecture,
        source_task: query.source_task,
    };
    let slice = db::models::list(&state.pool, tenant, page, &filter).await?;
    Ok(List::of(
        slice,
        |model| model,
        |model: &Model| model.id.clone(),
    ))
}

/// The model with this id.
///
/// # Errors
/// There is no such model.
pub(crate) async fn find(state: &AppState, tenant: TenantId, id: &str) -> Result<Model, ApiError> {
    db::models::get(&state.pool, tenant, id)
        .await?
        .ok_or_else(|| ApiError::not_found("model", id))
}

/// The model with this id, and its objects.
///
/// # Errors
/// There is no such model, or it is not ready.
pub(crate) async fn find_ready(
    state: &AppState,
    tenant: TenantId,
    id: &str,
) -> Result<(Model, Bundle), ApiError> {
    let model = find(state, tenant, id).await?;
    match model.bundle() {
        Some(bundle) => Ok((model, bundle)),
        None => Err(ApiError::conflict(
            "not_ready",
            format!(
                "model `{id}` is not ready: its weights are being imported, or were refused; see `GET /v1/models/{id}`"
            ),
        )),
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ModelQuery {
    /// Seconds to hold the response back, at most, until the condition in `until` holds.
    #[param(maximum = 60)]
    wait: Option<u64>,
    /// The import of a base model has ended, successfully or not (`imported`, the default), or the
    /// model has changed (`change`: since the `ETag` in `if-none-match`, otherwise since the
    /// request).
    #[param(inline)]
    until: Option<ModelUntil>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ModelUntil {
    Imported,
    Change,
}

/// Get a model
#[utoipa::path(get, path = "/v1/models/{id}", tag = "models", operation_id = "get_model",
    params(("id" = String, Path), ModelQuery,
        ("if-none-match" = Option<String>, Header, description = "`ETag` of an earlier response; 304 when nothing has changed.")),
    responses((status = 200, body = Model, headers(("etag" = String, description = "Version of the model."))), (status = 304)))]
pub(crate) async fn get(
    Caller { state, tenant }: Caller,
    identity: Identity,
    ModelName(id): ModelName,
    Params(query): Params<ModelQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wait = seconds(query.wait, &state.limits)?;
    let _place = state.quotas.wait(&identity, wait)?;
    let until = query.until.unwrap_or(ModelUntil::Imported);
    let mut changes = state.changes.subscribe();
    let look = || db::models::get(&state.pool, tenant, &id);
    // Without a tag to compare with, a change is one since the request.
    let before = match until {
        ModelUntil::Change if !is_conditional(&headers) => look().await?.as_ref().map(etag_of),
        _ => None,
    };
    let done = |model: &Option<Model>| match (model, until) {
        (None, _) => true,
        (Some(model), ModelUntil::Imported) => model.status != ModelStatus::Importing,
        (Some(model), ModelUntil::Change) => {
            has_changed(&headers, before.as_deref(), &etag_of(model))
        }
    };
    let model = changes
        .until(&id, wait, &state.shutdown, look, done)
        .await?
        .ok_or_else(|| ApiError::not_found("model", &id))?;
    Ok(respond(&headers, etag_of(&model), || model))
}

/// Get a model's layers
///
/// Stages, blocks and tensors of its backbone in forward order, with the names that `freeze` and
/// `cut` take.
#[utoipa::path(get, path = "/v1/models/{id}/layers", tag = "models", operation_id = "get_model_layers", params(("id" = String, Path)),
    responses((status = 200, body = Layers)))]
pub(crate) async fn layers(
    Caller { state, tenant }: Caller,
    ModelName(id): ModelName,
) -> Result<axum::Json<Layers>, ApiError> {
    find_ready(&state, tenant, &id).await?;
    let layers = db::models::layers(&state.pool, tenant, &id).await?;
    layers
        .map(axum::Json)
        .ok_or_else(|| ApiError::not_found("model", &id))
}

/// Delete a model
#[utoipa::path(delete, path = "/v1/models/{id}", tag = "models", operation_id = "delete_model", params(("id" = String, Path)),
    responses((status = 200, body = Deleted)))]
pub(crate) async fn delete(
    Caller { state, tenant }: Caller,
    ModelName(id): ModelName,
) -> Result<axum::Json<Deleted>, ApiError> {
    let model = find(&state, tenant, &id).await?;
    match db::models::delete(&state.pool, tenant, &id).await? {
        Outcome::NotFound => return Err(ApiError::not_found("model", &id)),
        Outcome::InUse(job) => {
            let message = format!(
                "job `{job}` starts from this model and has not ended; cancel it or wait for it"
            );
            return Err(ApiError::conflict("model_in_use", message));
        }
        Outcome::Yes { objects_unused } => {
            if let Some(prefix) = model.objects.filter(|_| objects_unused) {
                // In a task of its own: the row is deleted, so a disconnect must not stop the
                // deletion of the objects.
                let objects = state.objects.clone();
                let remove = async move {
                    if let Some(job) = model.job {
                        objects.delete_prefix(&db::exports::prefix(job)).await?;
                    }
                    objects.delete_prefix(&prefix).await
                };
                tokio::spawn(remove).await.map_err(anyhow::Error::from)??;
            }
        }
    }
    Ok(Deleted::of("model", id))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportQuery {
    /// `zip` (the default): the model bundle. `torchscript`: a file for `torch.jit.load`. `onnx`: a
    /// file for ONNX Runtime, OpenVINO and others (docs/onnx.md).
    #[param(inline)]
    format: Option<ExportFormat>,
}

/// Export a model
///
/// The model bundle: weights by timm's names, configuration, preprocessing, labels, metrics, model
/// card. Or, for a fine-tuned model, one file that takes preprocessed images [N, C, S, S] and
/// returns logits [N, classes]: it is written on the first request, and checked against the
/// bundle's golden logits.
#[utoipa::path(get, path = "/v1/models/{id}/export", tag = "models", operation_id = "export_model", params(("id" = String, Path), ExportQuery),
    responses((status = 200, content((Vec<u8> = "application/zip"), (Vec<u8> = "application/octet-stream")))))]
pub(crate) async fn export(
    Caller { state, tenant }: Caller,
    place: Place,
    ModelName(id): ModelName,
    Params(query): Params<ExportQuery>,
) -> Result<Response, ApiError> {
    let (model, bundle) = find_ready(&state, tenant, &id).await?;
    let format = query.format.unwrap_or(ExportFormat::Zip);
    let sent = match format.network() {
        None => export::zip(&state.objects, &bundle, &model.id).await,
        Some(_) if model.owned_by == Owner::Base => {
            let message = format!(
                "`{id}` is a base model, which has no head; fine-tune it first, or export it as `zip`"
            );
            Err(ApiError::invalid("format", "not_fine_tuned", message))
        }
        Some(format) => export::network(&state, &model, format).await,
    };
    let sent = unless_deleted(sent, find(&state, tenant, &id)).await?;
    Ok(place.until_sent(sent))
}
