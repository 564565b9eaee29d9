//! `POST /v1/base_models`: registers uploaded weights as a base model. A worker validates and
//! converts them; the request waits for the result, so that its response says whether the weights
//! fit.

use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{IntoResponse as _, Response},
};

use crate::{
    db::{
        self,
        downloads::{NewDownload, Part},
        idempotency::Idempotency,
        models::{Inserted, Model, ModelStatus, NewBaseModel},
        tenants::TenantId,
    },
    domain::{
        base_model::{AskedPreprocessing, SourceTask},
        codes,
        file::Purpose,
        id::FileId,
        input::Modality,
        limits::MODEL_ID_CHARACTERS,
        problem::Problem,
        request::{BaseModelRequest, Weights},
    },
    http::api::{
        auth::Caller,
        error::{ApiError, OBJECT_DAMAGED},
        extract::Json,
        idempotency::{self, IdempotencyKey},
        identity::Identity,
        outgoing::{Source, too_many_downloads},
        state::AppState,
    },
    outgoing::{HubFile, HubModel},
};

/// Register a base model
///
/// From a repository of a hub, an uploaded file, or a URL; what is downloaded is then in the list
/// of files. A refusal names every missing, unexpected or misshapen tensor. Responds once the
/// weights are validated and
/// converted, or with 202 and status `importing` if that takes longer than the service holds a
/// response back.
#[utoipa::path(post, path = "/v1/base_models", tag = "models", operation_id = "register_base_model",
    params(IdempotencyKey), request_body = BaseModelRequest,
    responses(
        (status = 200, body = Model, headers(("idempotent-replayed" = String, description = "`true` when the key was used before."))),
        (status = 202, body = Model, headers(("idempotent-replayed" = String, description = "`true` when the key was used before.")))))]
pub(crate) async fn register(
    Caller { state, tenant }: Caller,
    identity: Identity,
    key: IdempotencyKey,
    Json(body): Json,
) -> Result<Response, ApiError> {
    let request = BaseModelRequest::parse(&body)?;
    let wait = Duration::from_secs(state.limits.max_wait_seconds);
    let _place = state.quotas.wait(&identity, wait)?;
    let mut changes = state.changes.subscribe();
    let described = describe(&state, request).await?;
    let (model, inserted) = insert(&state, tenant, described, key.with_body(&body)).await?;
    let id = model.id.as_str();
    match inserted {
        Inserted::Yes | Inserted::Replayed => {}
        Inserted::KeyConflict => return Err(idempotency::key_reused()),
        Inserted::NoContent => {
            let file = model.weights_file;
            let message = format!(
                "file `{file}` has no content: its download has not ended, or failed; see `GET /v1/files/{file}`"
            );
            return Err(ApiError::invalid("weights.file", "not_ready", message));
        }
        Inserted::NameTaken => {
            let message = format!("model `{id}` exists already; delete it, or choose another id");
            return Err(ApiError::conflict("model_exists", message));
        }
        Inserted::NoSuchFile => {
            let message = format!(
                "there is no file `{}` with purpose `weights`",
                model.weights_file
            );
            return Err(ApiError::invalid("weights.file", "unknown_file", message));
        }
    }
    let look = || db::models::get(&state.pool, tenant, id);
    let done = |model: &Option<Model>| {
        model
            .as_ref()
            .is_none_or(|model| model.status != ModelStatus::Importing)
    };
    let found = changes.until(id, wait, &state.shutdown, look, done).await?;
    let respond = |status: StatusCode, model: Model| {
        let response = (status, axum::Json(model)).into_response();
        match inserted {
            Inserted::Replayed => idempotency::replayed(response),
            _ => response,
        }
    };
    match found {
        Some(model) if model.status == ModelStatus::Ready => Ok(respond(StatusCode::OK, model)),
        Some(model) if model.status == ModelStatus::Importing => {
            Ok(respond(StatusCode::ACCEPTED, model))
        }
        _ => match db::models::take_refused(&state.pool, tenant, id).await? {
            Some(problems) if !problems.is_empty() => Err(refused(problems)),
            _ => Err(ApiError::conflict(
                "import_gone",
                format!(
                    "model `{id}` was deleted or registered again during its import; register it again"
                ),
            )),
        },
    }
}

/// The error of a refused import. Where the stored upload is damaged, the fault is not its user's.
fn refused(problems: Vec<Problem>) -> ApiError {
    let damaged = problems
        .iter()
        .find(|problem| problem.code == OBJECT_DAMAGED);
    match damaged {
        Some(problem) => ApiError::damaged(problem.message.clone()),
        None => problems.into(),
    }
}

/// A base model with all that a repository or a request tells of it.
struct Described {
    id: String,
    architecture: String,
    weights: Weights,
    /// Files that are downloaded into one, instead of that of `weights`.
    parts: Vec<Part>,
    source_task: Option<SourceTask>,
    preprocessing: Option<AskedPreprocessing>,
    license: Option<String>,
}

/// Adds what a repository tells, where a request names one; the request's own values come first.
///
/// # Errors
/// The repository gives no model.
async fn describe(state: &AppState, request: BaseModelRequest) -> Result<Described, ApiError> {
    let BaseModelRequest {
        hub,
        revision,
        id,
        architecture,
        weights,
        source_task,
        preprocessing,
        license,
    } = request;
    let bug = || anyhow::anyhow!("a base model without a source: this is a bug");
    let Some(repository) = hub else {
        return Ok(Described {
            id: id.ok_or_else(bug)?,
            architecture: architecture.ok_or_else(bug)?,
            weights: weights.ok_or_else(bug)?,
            parts: Vec::new(),
            source_task,
            preprocessing,
            license,
        });
    };
    let name = repository.split('/').next_back().unwrap_or_default();
    if id.is_none() && name.len() > MODEL_ID_CHARACTERS {
        let message = format!(
            "is required: the repository's name has more than {MODEL_ID_CHARACTERS} characters"
        );
        return Err(ApiError::invalid("id", codes::MISSING_FIELD, message));
    }
    let revision = revision.as_deref().unwrap_or("main");
    let found = state.outgoing.hub_model(&repository, revision).await;
    let HubModel {
        description,
        weights,
    } = found.map_err(|error| ApiError::invalid("hub", error.code(), error.to_string()))?;
    let asked = preprocessing.unwrap_or_default();
    let told = description.preprocessing;
    let preprocessing = AskedPreprocessing {
        input_size: asked.input_size.or(told.input_size),
        channels: asked.channels.or(told.channels),
        crop_fraction: asked.crop_fraction.or(told.crop_fraction),
        interpolation: asked.interpolation.or(told.interpolation),
        mean: asked.mean.or(told.mean),
        std: asked.std.or(told.std),
    };
    let problems = preprocessing.problems();
    if !problems.is_empty() {
        return Err(problems.into());
    }
    Ok(Described {
        id: id.unwrap_or_else(|| name.to_owned()),
        architecture: architecture.unwrap_or(description.architecture),
        weights: Weights {
            file: None,
            url: weights.first().map(|file| file.url.clone()),
            sha256: match &*weights {
                [single] => single.sha256.clone(),
                _ => None,
            },
        },
        parts: parts(weights),
        source_task: source_task.or(Some(description.source_task)),
        preprocessing: Some(preprocessing),
        license: license.or(description.license),
    })
}

/// The parts of a download of several files.
fn parts(weights: Vec<HubFile>) -> Vec<Part> {
    if weights.len() == 1 {
        return Vec::new();
    }
    let parts = weights.into_iter().map(|file| Part {
        name: Some(file.name),
        url: file.url,
        sha256: file.sha256,
        bytes: file.bytes,
    });
    parts.collect()
}

/// Adds the model, and the download of its weights, if they are to be downloaded.
async fn insert(
    state: &AppState,
    tenant: TenantId,
    described: Described,
    idempotency: Option<Idempotency>,
) -> Result<(NewBaseModel, Inserted), ApiError> {
    let Weights { file, url, sha256 } = described.weights.clone();
    match (file, url) {
        (Some(file), None) => {
            let model = NewBaseModel {
                idempotency,
                ..new_model(tenant, file, described)
            };
            let inserted = db::models::insert_importing(&state.pool, &model).await?;
            Ok((model, inserted))
        }
        (_, Some(url)) => {
            let is_one = described.parts.is_empty();
            let source = Source {
                url,
                sha256,
                filename: (!is_one).then(|| format!("{}.tar", described.id)),
                purpose: Purpose::Weights,
            };
            let download = source.check(state, tenant, "weights.url").await?;
            let download = NewDownload {
                parts: described.parts.clone(),
                ..download
            };
            let model = NewBaseModel {
                idempotency,
                ..new_model(tenant, download.id, described)
            };
            let limit = state.limits.max_downloads;
            let inserted =
                db::downloads::insert_with_model(&state.pool, &download, &model, limit).await?;
            let inserted = inserted.ok_or_else(|| too_many_downloads(limit))?;
            Ok((model, inserted))
        }
        (None, None) => Err(anyhow::anyhow!("weights without a source: this is a bug").into()),
    }
}

fn new_model(tenant: TenantId, weights_file: FileId, described: Described) -> NewBaseModel {
    NewBaseModel {
        tenant,
        id: described.id,
        architecture: described.architecture,
        // Only networks that read images can be imported; the trainer refuses others.
        modality: Modality::Image,
        weights_file,
        source_task: described.source_task.unwrap_or(SourceTask {
            name: "image classification".to_owned(),
            classes: None,
            dataset: None,
        }),
        preprocessing: described.preprocessing,
        license: described.license,
        idempotency: None,
    }
}
