//! Admits a request: checks its values, the layers of its model and its data sets, and creates the
//! job. All problems come back at once.

use serde_json::Value;
use sqlx::PgPool;

use super::{
    candidates::Candidates,
    choose::{Choice, candidates_of},
    data_sets::DataSets,
    resolve_waiting::with_model,
};
use crate::{
    db::{
        self, Page,
        idempotency::Idempotency,
        jobs::{Created, NewJob},
        models::{Filter, ModelStatus, Owner},
        parents::Origin,
        tenants::TenantId,
    },
    domain::{
        base_model::Layers,
        id::{CheckpointId, JobId},
        problem::{Problem, suggestion},
        request::{self, JobRequest},
        resolve::{self, Resolution, Start},
    },
};

/// A request that may become a job.
#[derive(Debug)]
pub struct Admitted {
    pub request: JobRequest,
    /// `None` where the model is to be chosen.
    pub start: Option<(Origin, Layers)>,
    /// Models to choose from: none where the request names one, or while the data set is not known.
    pub candidates: Candidates,
    /// The request's own, or one drawn at random.
    pub seed: u64,
    pub data_sets: DataSets,
    /// `None` while the validation of a data set has not ended, or the model is not chosen.
    pub resolution: Option<Resolution>,
}

/// Why a request was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// All problems of the request; never empty.
    #[error("the request has problems")]
    Refused(Vec<Problem>),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Checks the body of a request and creates its job, or finds the job that its idempotency key
/// made.
///
/// # Errors
/// The request is refused, or the database fails.
pub async fn admit(
    pool: &PgPool,
    tenant: TenantId,
    body: &Value,
    idempotency: Option<Idempotency>,
) -> Result<Created, AdmitError> {
    if let Some(idempotency) = &idempotency
        && let Some(created) = db::jobs::by_idempotency_key(pool, tenant, idempotency).await?
    {
        return Ok(created);
    }
    let admitted = check(pool, tenant, body).await?;
    let job = NewJob {
        id: JobId::new(),
        tenant,
        request: admitted.request,
        origin: admitted.start.map(|(origin, _)| origin),
        seed: admitted.seed,
        resolution: admitted.resolution,
        idempotency,
    };
    Ok(db::jobs::create(pool, &job).await?)
}

/// Checks the body of a request; creates nothing.
///
/// # Errors
/// The request is refused, or the database fails.
pub async fn check(pool: &PgPool, tenant: TenantId, body: &Value) -> Result<Admitted, AdmitError> {
    let (request, mut problems) = request::read(body);
    let Some(request) = request else {
        return Err(AdmitError::Refused(problems));
    };
    // A value that could not be read has its default here, whose problems are not the user's: look
    // up names only.
    let is_sound = problems.is_empty();
    // 31 bits, as in other services, so that every client can hold it.
    let seed = request
        .seed
        .unwrap_or_else(|| u64::from(rand::random::<u32>() >> 1));
    if request.is_auto() {
        return check_auto(pool, tenant, (request, problems), seed).await;
    }
    let start = find_start(pool, tenant, &request.model)
        .await?
        .map_err(|problem| problems.push(problem))
        .ok();
    let data_sets = DataSets::find(pool, tenant, &request, &mut problems).await?;
    let resolution = match (&start, &data_sets) {
        (Some((origin, layers)), data_sets) => {
            let parent = origin.parent.as_ref();
            let start = Start { layers, parent };
            match data_sets {
                Some(data_sets) if is_sound => data_sets.resolve(&request, start, seed),
                _ => resolve::check_layers(&request.transfer, start).map(|()| None),
            }
        }
        (None, _) => Ok(None),
    };
    let resolution = resolution.unwrap_or_else(|more| {
        problems.extend(more);
        None
    });
    match (start, data_sets) {
        (Some(start), Some(data_sets)) if problems.is_empty() => Ok(Admitted {
            request,
            start: Some(start),
            candidates: Candidates::default(),
            seed,
            data_sets,
            resolution,
        }),
        _ => Err(AdmitError::Refused(problems)),
    }
}

/// Checks a request whose model is to be chosen: there must be a candidate, as far as the data set
/// is known.
async fn check_auto(
    pool: &PgPool,
    tenant: TenantId,
    (request, mut problems): (JobRequest, Vec<Problem>),
    seed: u64,
) -> Result<Admitted, AdmitError> {
    let data_sets = DataSets::find(pool, tenant, &request, &mut problems).await?;
    let known = data_sets.as_ref().and_then(|sets| {
        let dataset = sets.training.dataset.as_ref()?;
        Some((sets, dataset))
    });
    let mut candidates = Candidates::default();
    if let Some(known) = known.filter(|_| problems.is_empty()) {
        candidates = candidates_of(pool, tenant, &request, known).await?;
        problems.extend(candidates.none_left("model"));
    }
    match data_sets {
        Some(data_sets) if problems.is_empty() => Ok(Admitted {
            request,
            start: None,
            candidates,
            seed,
            data_sets,
            resolution: None,
        }),
        _ => Err(AdmitError::Refused(problems)),
    }
}

/// Resolves an admitted request as if this model had been asked for.
///
/// # Errors
/// The model is gone, its network or the data cannot do what is requested, or the database fails.
pub async fn with_choice(
    pool: &PgPool,
    tenant: TenantId,
    admitted: Admitted,
    choice: &Choice,
) -> Result<Admitted, AdmitError> {
    let Admitted {
        mut request,
        candidates,
        seed,
        data_sets,
        ..
    } = admitted;
    request.model.clone_from(&choice.model);
    let start = find_start(pool, tenant, &request.model).await?;
    let (origin, layers) = start.map_err(|problem| AdmitError::Refused(vec![problem]))?;
    let network = Start {
        layers: &layers,
        parent: None,
    };
    let resolution = data_sets.resolve(&request, network, seed);
    let resolution = resolution.map_err(AdmitError::Refused)?;
    let reason = Some(choice.reason.as_str());
    Ok(Admitted {
        resolution: resolution.map(|resolution| with_model(resolution, &choice.model, reason)),
        request,
        start: Some((origin, layers)),
        candidates,
        seed,
        data_sets,
    })
}

/// Finds what the request's `model` names, and the layers of its base model.
async fn find_start(
    pool: &PgPool,
    tenant: TenantId,
    id: &str,
) -> sqlx::Result<Result<(Origin, Layers), Problem>> {
    if let Ok(checkpoint) = id.parse::<CheckpointId>() {
        return find_checkpoint(pool, tenant, checkpoint).await;
    }
    let problem = |code, message: String| Ok(Err(Problem::new("model", code, message)));
    let Some(model) = db::models::get(pool, tenant, id).await? else {
        let names = base_model_names(pool, tenant).await?;
        let hint = suggestion(id, names.iter().map(String::as_str));
        return problem("unknown_model", format!("there is no model `{id}`; {hint}"));
    };
    if model.status != ModelStatus::Ready {
        let message =
            format!("model `{id}` is not ready: its weights are being imported, or were refused");
        return problem("not_ready", message);
    }
    let origin = match model.owned_by {
        Owner::Base => Some(Origin::base(id)),
        Owner::User => db::parents::of_model(pool, tenant, id).await?,
    };
    match (origin, db::models::layers(pool, tenant, id).await?) {
        (Some(origin), Some(layers)) => Ok(Ok((origin, layers))),
        _ => problem(
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
            "there is no checkpoint `{id}` to continue from, or the model that its job started from was deleted; \
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
        owned_by: Some(Owner::Base),
        ..Filter::default()
    };
    let slice = db::models::list(pool, tenant, page, &base).await?;
    Ok(slice.rows.into_iter().map(|model| model.id).collect())
}
