//! `POST /v1/base_models`: a model of the catalog from uploaded weights. A worker checks and converts them; the
//! request waits for the outcome, so that one curl tells whether the weights fit.

use std::time::Duration;

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    db::{
        self,
        models::{Inserted, ModelStatus, NewBaseModel},
    },
    domain::{
        base_model::{AskedPreprocessing, SourceTask},
        codes,
        id::FileId,
        input::Modality,
        limits::MODEL_ID_CHARACTERS,
        problem::Problem,
    },
    http::{
        api::{auth::Tenant, error::ApiError, extract::Json, state::AppState},
        models::catalog::ModelObject,
    },
};

/// Characters of an architecture's name, a license, a source task's words.
const WORD_CHARACTERS: usize = 128;

/// A base model to register.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BaseModelRequest {
    /// The name that jobs will use: letters, digits, `-`, `_`, `.`.
    #[schema(max_length = 64, pattern = "^[A-Za-z0-9._-]+$")]
    id: String,
    /// timm's name of the network, such as `tf_efficientnet_lite0` or `resnet18`.
    architecture: String,
    weights: Weights,
    /// What the weights were trained for; image classification when left out.
    source_task: Option<SourceTask>,
    /// What is left out is as the weights tell, and as is usual for the architecture.
    preprocessing: Option<AskedPreprocessing>,
    /// Of the weights, such as `Apache-2.0`.
    license: Option<String>,
}

/// Where the weights are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Weights {
    /// A file uploaded with purpose `weights`: safetensors, or a PyTorch `.pth` of tensors.
    file: FileId,
}

/// Register a base model
///
/// Every missing, unexpected or misshapen tensor is named. Answers once the weights are checked and converted, or with
/// 202 and status `importing` when that takes longer than this service holds an answer back.
#[utoipa::path(post, path = "/v1/base_models", tag = "models",
    request_body = BaseModelRequest,
    responses((status = 200, body = ModelObject), (status = 202, body = ModelObject)))]
pub(crate) async fn register(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    body: Json,
) -> Result<Response, ApiError> {
    let request: BaseModelRequest = body.read()?;
    let problems = request.problems();
    if !problems.is_empty() {
        return Err(ApiError::Invalid(problems));
    }
    let BaseModelRequest {
        id,
        architecture,
        weights,
        source_task,
        preprocessing,
        license,
    } = request;
    let source_task = source_task.unwrap_or(SourceTask {
        name: "image classification".to_owned(),
        classes: None,
        dataset: None,
    });
    let mut changes = state.changes().subscribe();
    let model = NewBaseModel {
        tenant,
        id: id.clone(),
        architecture,
        // Every import is of a network that reads images; the trainer refuses others.
        modality: Modality::Image,
        weights_file: weights.file,
        source_task,
        preprocessing,
        license,
    };
    match db::models::insert_importing(state.pool(), &model).await? {
        Inserted::Yes => {}
        Inserted::NameTaken => {
            return Err(ApiError::Conflict {
                code: "model_exists",
                message: format!(
                    "there is a model `{id}` already; delete it, or choose another id"
                ),
            });
        }
        Inserted::NoSuchFile => {
            let message = format!("there is no file `{}` with purpose `weights`", weights.file);
            return Err(ApiError::invalid("weights.file", "unknown_file", message));
        }
    }
    let wait = Duration::from_secs(state.limits().max_wait_seconds);
    let look = || db::models::get(state.pool(), tenant, &id);
    let done = |model: &Option<db::models::Model>| {
        model
            .as_ref()
            .is_none_or(|model| model.status != ModelStatus::Importing)
    };
    let model = changes
        .until(&id, wait, state.shutdown(), look, done)
        .await?;
    match model {
        Some(model) if model.status == ModelStatus::Ready => {
            Ok(axum::Json(ModelObject::from(model)).into_response())
        }
        Some(model) if model.status == ModelStatus::Importing => {
            Ok((StatusCode::ACCEPTED, axum::Json(ModelObject::from(model))).into_response())
        }
        _ => match db::models::take_refused(state.pool(), tenant, &id).await? {
            Some(problems) if !problems.is_empty() => Err(ApiError::Invalid(problems)),
            _ => Err(ApiError::Conflict {
                code: "import_gone",
                message: format!(
                    "model `{id}` was deleted or registered anew while it was imported"
                ),
            }),
        },
    }
}

impl BaseModelRequest {
    /// What is wrong with the values.
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut refuse =
            |path: &str, code, message: String| problems.push(Problem::new(path, code, message));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if self.id.is_empty()
            || self.id.chars().count() > MODEL_ID_CHARACTERS
            || !self.id.chars().all(plain)
        {
            let message =
                format!("must be 1 to {MODEL_ID_CHARACTERS} letters, digits, `-`, `_` or `.`");
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
            if word.is_some_and(|word| word.is_empty() || word.chars().count() > WORD_CHARACTERS) {
                refuse(
                    path,
                    codes::OUT_OF_RANGE,
                    format!("must be 1 to {WORD_CHARACTERS} characters"),
                );
            }
        }
        if let Some(asked) = &self.preprocessing {
            problems.extend(asked.problems());
        }
        problems
    }
}
