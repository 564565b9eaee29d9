//! `POST /v1/models/{id}/push` and `/v1/model_pushes`: fine-tuned models as repositories of a hub.

use axum::{http::HeaderMap, response::Response};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::timestamp};
use utoipa::{IntoParams, ToSchema};

use crate::{
    db::{
        models::Owner,
        pushes::{self, NewPush, Push, PushStatus},
    },
    domain::{
        id::PushId,
        publish::{self, TEXT_BYTES},
        repository::{CARD, CONFIG},
        request::PushRequest,
    },
    http::{
        api::{
            auth::Caller,
            conditional::{etag_of, respond},
            error::{ApiError, QUEUE_FULL, unless_deleted},
            extract::{Id, Json, ModelName, Params},
            identity::Identity,
            page::{Deleted, List, PageQuery},
            state::AppState,
            wait::seconds,
        },
        models::catalog,
    },
};

/// A push of a model to a repository of the hub.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PushObject {
    id: PushId,
    /// `model_push`.
    object: &'static str,
    status: PushStatus,
    /// The model, which may have been deleted since.
    model: String,
    repository: String,
    branch: String,
    /// True where a repository that did not exist was to be private.
    private: bool,
    /// First line of the commit.
    message: String,
    /// Commit in which the branch has the model; an earlier one if nothing had changed.
    commit: Option<String>,
    /// Page of the repository.
    url: String,
    /// Why it failed.
    error: Option<PushFailure>,
    #[serde(with = "timestamp")]
    #[schema(value_type = i64)]
    created_at: OffsetDateTime,
    #[serde(with = "timestamp::option")]
    #[schema(value_type = Option<i64>)]
    finished_at: Option<OffsetDateTime>,
}

/// Why a push failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PushFailure {
    /// Listed in docs/errors.md.
    code: String,
    message: String,
}

impl PushObject {
    fn new(state: &AppState, push: Push) -> Self {
        Self {
            id: push.id,
            object: "model_push",
            status: push.status,
            url: state.outgoing.repository_url(&push.repository),
            model: push.model,
            repository: push.repository,
            branch: push.branch,
            private: push.private,
            message: push.message,
            commit: push.commit,
            error: push.error.map(|error| PushFailure {
                code: error.code,
                message: error.message,
            }),
            created_at: push.created_at,
            finished_at: push.finished_at,
        }
    }
}

/// Push a model to the hub
///
/// Weights, configuration and model card of a fine-tuned model become a commit of a repository that
/// timm loads by `timm.create_model("hf-hub:…", pretrained=True)`. Owners must be among
/// `--hub-push-owners`. Doing it again changes nothing.
#[utoipa::path(post, path = "/v1/models/{id}/push", tag = "models", operation_id = "push_model", params(("id" = String, Path)),
    request_body = PushRequest, responses((status = 200, body = PushObject)))]
pub(crate) async fn create(
    Caller { state, tenant }: Caller,
    ModelName(id): ModelName,
    Json(body): Json,
) -> Result<axum::Json<PushObject>, ApiError> {
    let (model, bundle) = catalog::find_ready(&state, tenant, &id).await?;
    let request = PushRequest::parse(&body)?;
    if model.owned_by == Owner::Base {
        let message = format!("`{id}` is a base model, which has no head; fine-tune it first");
        return Err(ApiError::invalid("id", "not_fine_tuned", message));
    }
    let read = async {
        let config = state
            .objects
            .bundle_file(&bundle, CONFIG, TEXT_BYTES)
            .await?;
        let card = state.objects.bundle_file(&bundle, CARD, TEXT_BYTES).await?;
        Ok((config, card))
    };
    let (config, card) = unless_deleted(read.await, catalog::find(&state, tenant, &id)).await?;
    publish::read(&config, &card).map_err(|reason| {
        ApiError::invalid("id", "unfit_model", format!("model `{id}` {reason}"))
    })?;
    let allowed = state.outgoing.check_push(&request.repository).await;
    allowed.map_err(|error| ApiError::invalid("repository", error.code(), error.to_string()))?;
    let push = NewPush {
        id: PushId::new(),
        tenant,
        message: request.message.unwrap_or_else(|| format!("Push {id}")),
        model: model.id,
        repository: request.repository,
        branch: request.branch,
        private: request.private,
    };
    let limit = state.limits.max_pushes;
    if !pushes::create(&state.pool, &push, limit).await? {
        let message = format!(
            "{limit} pushes wait or run, which is the limit; delete some, or try again later"
        );
        return Err(ApiError::too_many(QUEUE_FULL, message, 30));
    }
    let made = pushes::get(&state.pool, tenant, push.id).await?;
    let made = made.ok_or_else(|| ApiError::unknown(push.id))?;
    Ok(axum::Json(PushObject::new(&state, made)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PushQuery {
    /// Seconds to hold the response back, at most, until the push has ended.
    #[param(maximum = 60)]
    wait: Option<u64>,
}

/// Get a push
#[utoipa::path(get, path = "/v1/model_pushes/{id}", tag = "models", operation_id = "get_model_push",
    params(("id" = PushId, Path), PushQuery,
        ("if-none-match" = Option<String>, Header, description = "`ETag` of an earlier response; 304 when nothing has changed.")),
    responses((status = 200, body = PushObject, headers(("etag" = String, description = "Version of the push."))), (status = 304)))]
pub(crate) async fn get(
    Caller { state, tenant }: Caller,
    identity: Identity,
    Id(id): Id<PushId>,
    Params(query): Params<PushQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wait = seconds(query.wait, &state.limits)?;
    let _place = state.quotas.wait(&identity, wait)?;
    let mut changes = state.changes.subscribe();
    let look = || pushes::get(&state.pool, tenant, id);
    let done = |push: &Option<Push>| push.as_ref().is_none_or(|push| push.status.is_terminal());
    let push = changes
        .until(&id.to_string(), wait, &state.shutdown, look, done)
        .await?
        .ok_or_else(|| ApiError::unknown(id))?;
    let object = PushObject::new(&state, push);
    Ok(respond(&headers, etag_of(&object), || object))
}

/// List pushes
#[utoipa::path(get, path = "/v1/model_pushes", tag = "models", operation_id = "list_model_pushes", params(PageQuery<PushId>),
    responses((status = 200, body = List<PushObject>)))]
pub(crate) async fn list(
    Caller { state, tenant }: Caller,
    Params(query): Params<PageQuery<PushId>>,
) -> Result<axum::Json<List<PushObject>>, ApiError> {
    let page = query.page(&state.limits)?;
    let slice = pushes::list(&state.pool, tenant, page).await?;
    let object = |push| PushObject::new(&state, push);
    Ok(List::of(slice, object, |push| push.id.to_string()))
}

/// Delete a push
///
/// One that has not ended is stopped; a commit that the hub has stays there.
#[utoipa::path(delete, path = "/v1/model_pushes/{id}", tag = "models", operation_id = "delete_model_push",
    params(("id" = PushId, Path)), responses((status = 200, body = Deleted)))]
pub(crate) async fn delete(
    Caller { state, tenant }: Caller,
    Id(id): Id<PushId>,
) -> Result<axum::Json<Deleted>, ApiError> {
    match pushes::delete(&state.pool, tenant, id).await? {
        true => Ok(Deleted::of("model_push", id)),
        false => Err(ApiError::unknown(id)),
    }
}
