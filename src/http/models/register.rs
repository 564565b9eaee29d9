//! `POST /v1/base_models`: registers uploaded weights as a base model. A worker validates and
//! converts them; the request waits for the result, so that its response says whether the weights
//! fit.

use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    db::{
        self,
        models::{Inserted, Model, ModelStatus, NewBaseModel},
        tenants::TenantId,
    },
    domain::{
        base_model::{AskedPreprocessing, SourceTask},
        codes,
        id::FileId,
        input::Modality,
        limits::MODEL_ID_CHARACTERS,
        problem::Problem,
    },
    http::api::{
        auth::Caller,
        error::{ApiError, refuse_any},
        extract::Json,
        idempotency::{self, IdempotencyKey},
    },
};

/// The most characters of an architecture, a license, and the texts of a source task.
const WORD_CHARACTERS: usize = 128;

/// A base model to register.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BaseModelRequest {
    /// Id for use in jobs: letters, digits, `-`, `_`, `.`, a letter or digit first. Not one that
    /// begins as those of checkpoints, `ftckpt_`.
    #[schema(max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    id: String,
    /// Network, by timm's name, such as `tf_efficientnet_lite0` or `resnet18`.
    architecture: String,
    weights: Weights,
    /// Task that the weights were trained for; image classification by default.
    source_task: Option<SourceTask>,
    /// Preprocessing of images. Fields left out follow from the weights, then from the
    /// architecture.
    preprocessing: Option<AskedPreprocessing>,
    /// License of the weights, such as `Apache-2.0`.
    license: Option<String>,
}

/// Source of the weights.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Weights {
    /// A file uploaded with purpose `weights`: safetensors, or a PyTorch `.pth` of tensors.
    file: FileId,
}

/// Register a base model
///
/// A refusal names every missing, unexpected or misshapen tensor. Responds once the weights are
/// validated and converted, or with 202 and status `importing` if that takes longer than the
/// service holds a response back.
#[utoipa::path(post, path = "/v1/base_models", tag = "models", operation_id = "register_base_model",
    params(IdempotencyKey), request_body = BaseModelRequest,
    responses(
        (status = 200, body = Model, headers(("idempotent-replayed" = String, description = "`true` when the key was used before."))),
        (status = 202, body = Model, headers(("idempotent-replayed" = String, description = "`true` when the key was used before.")))))]
pub(crate) async fn register(
    Caller { state, tenant }: Caller,
    key: IdempotencyKey,
    body: Json,
) -> Result<Response, ApiError> {
    let idempotency = key.with_body(&body.0);
    let request: BaseModelRequest = body.read()?;
    refuse_any(request.problems())?;
    let mut changes = state.changes.subscribe();
    let model = NewBaseModel {
        idempotency,
        ..request.into_model(tenant)
    };
    let id = model.id.as_str();
    let inserted = db::models::insert_importing(&state.pool, &model).await?;
    match inserted {
        Inserted::Yes | Inserted::Replayed => {}
        Inserted::KeyConflict => return Err(idempotency::key_reused()),
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
    let wait = Duration::from_secs(state.limits.max_wait_seconds);
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
            Some(problems) if !problems.is_empty() => Err(problems.into()),
            _ => Err(ApiError::conflict(
                "import_gone",
                format!(
                    "model `{id}` was deleted or registered again during its import; register it again"
                ),
            )),
        },
    }
}

impl BaseModelRequest {
    fn into_model(self, tenant: TenantId) -> NewBaseModel {
        NewBaseModel {
            tenant,
            id: self.id,
            architecture: self.architecture,
            // Only networks that read images can be imported; the trainer refuses others.
            modality: Modality::Image,
            weights_file: self.weights.file,
            source_task: self.source_task.unwrap_or(SourceTask {
                name: "image classification".to_owned(),
                classes: None,
                dataset: None,
            }),
            preprocessing: self.preprocessing,
            license: self.license,
            idempotency: None,
        }
    }

    /// Problems of the values.
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut refuse =
            |path: &str, code, message: String| problems.push(Problem::new(path, code, message));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let characters = 1..=MODEL_ID_CHARACTERS;
        if !characters.contains(&self.id.len()) || !self.id.chars().all(plain) {
            let message =
                format!("must be 1 to {MODEL_ID_CHARACTERS} letters, digits, `-`, `_` or `.`");
            refuse("id", codes::INVALID_VALUE, message);
        } else if !self.id.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            let message = "must begin with a letter or digit".to_owned();
            refuse("id", codes::INVALID_VALUE, message);
        } else if self.id.starts_with("ftckpt_") {
            let message = "must not begin with `ftckpt_`, as ids of checkpoints do".to_owned();
            refuse("id", codes::INVALID_VALUE, message);
        }
        let source = self.source_task.as_ref();
        for (path, word) in [
            ("architecture", Some(self.architecture.as_str())),
            ("license", self.license.as_deref()),
            ("source_task.name", source.map(|task| task.name.as_str())),
            (
                "source_task.dataset",
                source.and_then(|task| task.dataset.as_deref()),
            ),
        ] {
            let characters = 1..=WORD_CHARACTERS;
            if word.is_some_and(|word| !characters.contains(&word.chars().count())) {
                let message = format!("must be 1 to {WORD_CHARACTERS} characters");
                refuse(path, codes::OUT_OF_RANGE, message);
            }
        }
        if let Some(asked) = &self.preprocessing {
            problems.extend(asked.problems());
        }
        problems
    }
}
