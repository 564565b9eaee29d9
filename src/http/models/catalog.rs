//! `/v1/models`: base models and fine-tuned models, their layers and exports.

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    db::{
        self,
        models::{Deleted as Outcome, Filter, Model, ModelKind, ModelStatus},
        tenants::TenantId,
    },
    domain::{
        base_model::{Layers, SourceTask},
        checkpoint::Metrics,
        id::JobId,
        input::{Input, Modality},
        problem::Problem,
    },
    http::{
        api::{
            auth::Tenant,
            error::ApiError,
            extract::{ModelName, Params},
            page::{Deleted, List, Order, page},
            state::AppState,
        },
        models::export,
    },
};

/// A base model or a fine-tuned model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelObject {
    pub id: String,
    /// `model`.
    pub object: &'static str,
    /// Unix seconds.
    pub created: i64,
    /// `base` for base models, `user` for fine-tuned models.
    pub owned_by: Owner,
    pub status: ModelStatus,
    pub architecture: String,
    pub modality: Modality,
    /// Number of parameters.
    pub parameters: Option<u64>,
    /// Task that the weights of its base model were trained for.
    pub source_task: SourceTask,
    /// Preprocessing of its input.
    pub input: Option<Input>,
    pub license: Option<String>,
    /// Model or checkpoint that its job started from.
    pub parent: Option<String>,
    /// Base model that it derives from; it may have been deleted.
    pub base_model: Option<String>,
    /// Job that made it.
    pub job: Option<JobId>,
    /// Metrics of its checkpoint.
    pub metrics: Option<Metrics>,
    /// Class names, in label order.
    pub labels: Option<Vec<String>>,
    /// SHA-256 of its `model.safetensors`, lower-case hex.
    pub weights_sha256: Option<String>,
    /// Problems of a refused import.
    pub problems: Vec<Problem>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Owner {
    Base,
    User,
}

impl From<Model> for ModelObject {
    fn from(model: Model) -> Self {
        Self {
            id: model.id,
            object: "model",
            created: model.created_at.unix_timestamp(),
            owned_by: match model.kind {
                ModelKind::Base => Owner::Base,
                ModelKind::FineTuned => Owner::User,
            },
            status: model.status,
            architecture: model.architecture,
            modality: model.modality,
            parameters: model.parameters,
            source_task: model.source_task,
            input: model.input,
            license: model.license,
            parent: model.parent,
            base_model: model.base_model,
            job: model.job,
            metrics: model.metrics,
            labels: model.labels,
            weights_sha256: model.weights_sha256,
            problems: model.problems,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ModelListQuery {
    /// `last_id` of the previous page.
    after: Option<String>,
    /// Rows per page; 20 by default.
    #[param(minimum = 1)]
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
    responses((status = 200, body = List<ModelObject>)))]
pub(crate) async fn list(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Params(query): Params<ModelListQuery>,
) -> Result<axum::Json<List<ModelObject>>, ApiError> {
    let after = query.after.as_deref();
    let page = page(after, query.limit, query.order, state.limits())?;
    let filter = Filter {
        kind: query.owned_by.map(|owner| match owner {
            Owner::Base => ModelKind::Base,
            Owner::User => ModelKind::FineTuned,
        }),
        architecture: query.architecture,
        source_task: query.source_task,
    };
    let slice = db::models::list(state.pool(), tenant, page, &filter).await?;
    Ok(List::of(slice, ModelObject::from, |model| model.id.clone()))
}

/// The model with this id.
///
/// # Errors
/// There is no such model.
pub(crate) async fn find(state: &AppState, tenant: TenantId, id: &str) -> Result<Model, ApiError> {
    db::models::get(state.pool(), tenant, id)
        .await?
        .ok_or_else(|| ApiError::not_found("model", id))
}

/// The model with this id, and the prefix of its objects in the store.
///
/// # Errors
/// There is no such model, or it is not ready.
pub(crate) async fn find_ready(
    state: &AppState,
    tenant: TenantId,
    id: &str,
) -> Result<(Model, String), ApiError> {
    let mut model = find(state, tenant, id).await?;
    match model
        .objects
        .take()
        .filter(|_| model.status == ModelStatus::Ready)
    {
        Some(objects) => Ok((model, objects.trim_end_matches('/').to_owned())),
        None => Err(ApiError::Conflict {
            code: "not_ready",
            message: format!(
                "model `{id}` is not ready: its weights are being imported, or were refused; see `GET /v1/models/{id}`"
            ),
        }),
    }
}

/// Get a model
#[utoipa::path(get, path = "/v1/models/{id}", tag = "models", operation_id = "get_model", params(("id" = String, Path)),
    responses((status = 200, body = ModelObject)))]
pub(crate) async fn get(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    ModelName(id): ModelName,
) -> Result<axum::Json<ModelObject>, ApiError> {
    Ok(axum::Json(find(&state, tenant, &id).await?.into()))
}

/// Get a model's layers
///
/// Stages, blocks and tensors of its backbone in forward order, with the names that `freeze` and
/// `cut` take.
#[utoipa::path(get, path = "/v1/models/{id}/layers", tag = "models", operation_id = "get_model_layers", params(("id" = String, Path)),
    responses((status = 200, body = Layers)))]
pub(crate) async fn layers(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    ModelName(id): ModelName,
) -> Result<axum::Json<Layers>, ApiError> {
    find_ready(&state, tenant, &id).await?;
    let layers = db::models::layers(state.pool(), tenant, &id).await?;
    layers
        .map(axum::Json)
        .ok_or_else(|| ApiError::not_found("model", &id))
}

/// Delete a model
#[utoipa::path(delete, path = "/v1/models/{id}", tag = "models", operation_id = "delete_model", params(("id" = String, Path)),
    responses((status = 200, body = Deleted)))]
pub(crate) async fn delete(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    ModelName(id): ModelName,
) -> Result<axum::Json<Deleted>, ApiError> {
    let model = find(&state, tenant, &id).await?;
    match db::models::delete(state.pool(), tenant, &id).await? {
        Outcome::NotFound => return Err(ApiError::not_found("model", &id)),
        Outcome::InUse(job) => {
            return Err(ApiError::Conflict {
                code: "model_in_use",
                message: format!(
                    "job `{job}` starts from this model and has not ended; cancel it or wait for it"
                ),
            });
        }
        Outcome::Yes { objects_unused } => {
            if let Some(prefix) = model.objects.filter(|_| objects_unused) {
                // In a task of its own: the row is deleted, so a disconnect must not stop the
                // deletion of the objects.
                let objects = state.objects().clone();
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
    Ok(axum::Json(Deleted {
        id,
        object: "model",
        deleted: true,
    }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportQuery {
    /// `zip` (the default) or `torchscript`.
    #[param(inline)]
    format: Option<ExportFormat>,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExportFormat {
    /// The model bundle, not compressed because weights do not shrink.
    Zip,
    /// A file for `torch.jit.load`: preprocessed images [N, C, S, S] in, logits [N, classes] out.
    /// Written on the first request, and checked against the bundle's golden logits.
    Torchscript,
}

/// Export a model
///
/// The model bundle: weights by timm's names, configuration, preprocessing, labels, metrics, model
/// card. Or TorchScript, for a fine-tuned model.
#[utoipa::path(get, path = "/v1/models/{id}/export", tag = "models", operation_id = "export_model", params(("id" = String, Path), ExportQuery),
    responses((status = 200, content((Vec<u8> = "application/zip"), (Vec<u8> = "application/octet-stream")))))]
pub(crate) async fn export(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    ModelName(id): ModelName,
    Params(query): Params<ExportQuery>,
) -> Result<Response, ApiError> {
    let (model, prefix) = find_ready(&state, tenant, &id).await?;
    match query.format.unwrap_or(ExportFormat::Zip) {
        ExportFormat::Zip => export::zip(state.objects(), &prefix, &model.id).await,
        ExportFormat::Torchscript if model.kind == ModelKind::Base => {
            let message = format!(
                "`{id}` is a base model, which has no head; fine-tune it first, or export it as `zip`"
            );
            Err(ApiError::invalid("format", "not_fine_tuned", message))
        }
        ExportFormat::Torchscript => export::torchscript(&state, &model).await,
    }
}
