//! What a job is checked against before it is queued: its own values, the base model's layers, the data sets. Everything
//! that is wrong comes back at once.

use serde_json::Value;
use sqlx::PgPool;

use crate::{
    db::{
        self, Page,
        files::File,
        models::{Filter, ModelKind, ModelStatus},
        parents::Origin,
        tenants::TenantId,
    },
    domain::{
        base_model::Layers,
        fields,
        file::{FileStatus, Purpose},
        id::{CheckpointId, FileId},
        problem::{Problem, suggestion},
        request::{self, JobRequest},
        resolve::{self, Resolution, Start},
    },
    http::api::error::ApiError,
};

/// A request that may become a job.
pub(crate) struct Admitted {
    pub request: JobRequest,
    pub origin: Origin,
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
pub(crate) async fn check(
    pool: &PgPool,
    tenant: TenantId,
    body: &Value,
) -> Result<Admitted, ApiError> {
    let (request, mut problems) = request::read(body);
    let Some(request) = request else {
        return Err(ApiError::Invalid(problems));
    };
    // What a default stands in for is not to be blamed on the request: then only names are looked up.
    let is_sound = problems.is_empty();
    // As small as other services' seeds, so that every client can hold it.
    let seed = request
        .seed
        .unwrap_or_else(|| u64::from(rand::random::<u32>() >> 1));
    let start = find_start(pool, tenant, &request.model)
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
    let resolution = match (&start, &training, &validation) {
        (Some((origin, layers)), Some(training), None | Some(Some(_))) if is_sound => settle(
            &request,
            Start {
                layers,
                parent: origin.parent.as_ref(),
            },
            training,
            validation.as_ref().and_then(Option::as_ref),
            seed,
        ),
        (Some((origin, layers)), ..) => {
            let parent = origin.parent.as_ref();
            resolve::check_layers(&request.transfer, Start { layers, parent }).map(|()| None)
        }
        (None, ..) => Ok(None),
    };
    let resolution = resolution.unwrap_or_else(|more| {
        problems.extend(more);
        None
    });
    match (start, training) {
        (Some((origin, layers)), Some(training)) if problems.is_empty() => Ok(Admitted {
            request,
            origin,
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
    start: Start<'_>,
    training: &File,
    validation: Option<&File>,
    seed: u64,
) -> Result<Option<Resolution>, Vec<Problem>> {
    match (&training.dataset, validation.map(|file| &file.dataset)) {
        (Some(training), None) => resolve::resolve(request, start, training, None, seed).map(Some),
        (Some(training), Some(Some(validation))) => {
            resolve::resolve(request, start, training, Some(validation), seed).map(Some)
        }
        // What can be told without the data is told now.
        _ => resolve::check_layers(&request.transfer, start).map(|()| None),
    }
}

/// What the request's `model` names, and the layers of its base model.
async fn find_start(
    pool: &PgPool,
    tenant: TenantId,
    id: &str,
) -> sqlx::Result<Result<(Origin, Layers), Problem>> {
    if let Ok(checkpoint) = id.parse::<CheckpointId>() {
        return find_checkpoint(pool, tenant, checkpoint).await;
    }
    let model = db::models::get(pool, tenant, id).await?;
    let wrong = |code, message: String| Ok(Err(Problem::new("model", code, message)));
    let Some(model) = model else {
        let names = base_model_names(pool, tenant).await?;
        let hint = suggestion(id, names.iter().map(String::as_str));
        return wrong("unknown_model", format!("there is no model `{id}`; {hint}"));
    };
    if model.status != ModelStatus::Ready {
        let message =
            format!("model `{id}` is not ready: its weights are being imported, or were refused");
        return wrong("not_ready", message);
    }
    let origin = match model.kind {
        ModelKind::Base => Some(Origin::base(id)),
        ModelKind::FineTuned => db::parents::of_model(pool, tenant, id).await?,
    };
    let Some(origin) = origin else {
        let message = format!(
            "`{id}` was made by a version that kept too little of it to go on from; go on from a newer one"
        );
        return wrong(fields::NOT_AVAILABLE, message);
    };
    match db::models::layers(pool, tenant, id).await? {
        Some(layers) => Ok(Ok((origin, layers))),
        None => wrong(
            "unknown_model",
            format!("there is no model `{id}` any more"),
        ),
    }
}

async fn find_checkpoint(
    pool: &PgPool,
    tenant: TenantId,
    id: CheckpointId,
) -> sqlx::Result<Result<(Origin, Layers), Problem>> {
    let gone = || {
        let message = format!(
            "there is no checkpoint `{id}` to go on from, or the model that its job started from is gone; \
             `GET /v1/fine_tuning/jobs/ID/checkpoints` lists a job's"
        );
        Ok(Err(Problem::new("model", "unknown_model", message)))
    };
    let Some(origin) = db::parents::of_checkpoint(pool, tenant, id).await? else {
        return gone();
    };
    match db::models::layers(pool, tenant, &origin.model).await? {
        Some(layers) => Ok(Ok((origin, layers))),
        None => gone(),
    }
}

async fn base_model_names(pool: &PgPool, tenant: TenantId) -> sqlx::Result<Vec<String>> {
    let page = Page {
        after: None,
        limit: 1_000,
        descending: true,
    };
    let base = Filter {
        kind: Some(ModelKind::Base),
        ..Filter::default()
    };
    let slice = db::models::list(pool, tenant, page, &base).await?;
    Ok(slice.rows.into_iter().map(|model| model.id).collect())
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
