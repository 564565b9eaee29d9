//! What a job is checked against before it is queued: its own values, the base model's layers, the data sets. Everything
//! that is wrong comes back at once.

use serde_json::Value;
use sqlx::PgPool;

use super::error::ApiError;
use crate::{
    db::{
        self, Page,
        files::File,
        models::{ModelKind, ModelStatus},
        tenants::TenantId,
    },
    domain::{
        base_model::Layers,
        fields,
        file::{FileStatus, Purpose},
        freeze,
        id::FileId,
        problem::{Problem, suggestion},
        request::{self, JobRequest},
        resolve::{self, Resolution},
    },
};

/// A request that may become a job.
pub(super) struct Admitted {
    pub request: JobRequest,
    /// The request's, or one drawn for it.
    pub seed: u64,
    pub layers: Layers,
    pub training: File,
    pub validation: Option<File>,
    /// `None` while a file's validation has not ended.
    pub resolution: Option<Resolution>,
}

/// Checks the body of a request.
///
/// # Errors
/// All its problems, or the database's.
pub(super) async fn check(
    pool: &PgPool,
    tenant: TenantId,
    body: &Value,
) -> Result<Admitted, ApiError> {
    let request = request::parse(body).map_err(ApiError::Invalid)?;
    // As small as other services' seeds, so that every client can hold it.
    let seed = request
        .seed
        .unwrap_or_else(|| u64::from(rand::random::<u32>() >> 1));
    let mut problems = Vec::new();
    let layers = base_model(pool, tenant, &request.model)
        .await?
        .map_err(|problem| problems.push(problem))
        .ok();
    let mut file = async |path, id| -> sqlx::Result<Option<File>> {
        Ok(data_set(pool, tenant, path, id)
            .await?
            .map_err(|problem| problems.push(problem))
            .ok())
    };
    let training = file("training_file", request.training_file).await?;
    let validation = match request.validation_file {
        Some(id) => Some(file("validation_file", id).await?),
        None => None,
    };
    let resolution = match (&layers, &training, &validation) {
        (Some(layers), Some(training), None | Some(Some(_))) => settle(
            &request,
            layers,
            training,
            validation.as_ref().and_then(Option::as_ref),
            seed,
        ),
        (Some(layers), ..) => freeze::trainable(&request.transfer.freeze, layers).map(|_| None),
        (None, ..) => Ok(None),
    };
    let resolution = resolution.unwrap_or_else(|more| {
        problems.extend(more);
        None
    });
    match (layers, training) {
        (Some(layers), Some(training)) if problems.is_empty() => Ok(Admitted {
            request,
            seed,
            layers,
            training,
            validation: validation.flatten(),
            resolution,
        }),
        _ => Err(ApiError::Invalid(problems)),
    }
}

/// Settles the request, where all its files are validated.
fn settle(
    request: &JobRequest,
    layers: &Layers,
    training: &File,
    validation: Option<&File>,
    seed: u64,
) -> Result<Option<Resolution>, Vec<Problem>> {
    match (&training.dataset, validation.map(|file| &file.dataset)) {
        (Some(training), None) => resolve::resolve(request, layers, training, None, seed).map(Some),
        (Some(training), Some(Some(validation))) => {
            resolve::resolve(request, layers, training, Some(validation), seed).map(Some)
        }
        // What can be told without the data is told now.
        _ => freeze::trainable(&request.transfer.freeze, layers).map(|_| None),
    }
}

async fn base_model(
    pool: &PgPool,
    tenant: TenantId,
    id: &str,
) -> sqlx::Result<Result<Layers, Problem>> {
    let model = db::models::get(pool, tenant, id).await?;
    let wrong = |code, message: String| Ok(Err(Problem::new("model", code, message)));
    let Some(model) = model else {
        let names = base_model_names(pool, tenant).await?;
        let hint = suggestion(id, names.iter().map(String::as_str));
        return wrong(
            "unknown_model",
            format!("there is no base model `{id}`; {hint}"),
        );
    };
    if model.kind == ModelKind::FineTuned {
        let parent = model.parent.unwrap_or_default();
        let message = format!(
            "`{id}` is a fine-tuned model; a job starts from a base model, such as its parent `{parent}`"
        );
        return wrong(fields::NOT_AVAILABLE, message);
    }
    if model.status != ModelStatus::Ready {
        let message =
            format!("model `{id}` is not ready: its weights are being imported, or were refused");
        return wrong("not_ready", message);
    }
    match db::models::layers(pool, tenant, id).await? {
        Some(layers) => Ok(Ok(layers)),
        None => wrong(
            "unknown_model",
            format!("there is no base model `{id}` any more"),
        ),
    }
}

async fn base_model_names(pool: &PgPool, tenant: TenantId) -> sqlx::Result<Vec<String>> {
    let page = Page {
        after: None,
        limit: 1_000,
        descending: true,
    };
    let slice = db::models::list(pool, tenant, page).await?;
    let base = slice
        .rows
        .into_iter()
        .filter(|model| model.kind == ModelKind::Base);
    Ok(base.map(|model| model.id).collect())
}

async fn data_set(
    pool: &PgPool,
    tenant: TenantId,
    path: &str,
    id: FileId,
) -> sqlx::Result<Result<File, Problem>> {
    let wrong = |code, message: String| Ok(Err(Problem::new(path, code, message)));
    let Some(file) = db::files::get(pool, tenant, id).await? else {
        return wrong("unknown_file", format!("there is no file `{id}`"));
    };
    if file.purpose != Purpose::FineTune {
        let message =
            format!("file `{id}` holds weights; upload a data set with purpose `fine-tune`");
        return wrong("wrong_purpose", message);
    }
    if file.status == FileStatus::Error {
        let details = file.status_details.unwrap_or_default();
        let message =
            format!("file `{id}` cannot be used: {details}; see `GET /v1/files/{id}/report`");
        return wrong("unusable_file", message);
    }
    Ok(Ok(file))
}
