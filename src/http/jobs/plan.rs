//! `/v1/fine_tuning/jobs/plan`: what a creation would check and settle, with nothing queued.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    db::{self, files::File, tenants::TenantId},
    domain::{
        estimate::{self, Time},
        id::FileId,
        job_plan::JobPlan,
        problem::Problem,
        recipe::Recipe,
        request::JobRequest,
    },
    http::{
        api::{auth::Tenant, error::ApiError, extract::Json, state::AppState},
        jobs::object::{Settled, settled},
    },
    jobs::admit::{self, Admitted},
};

/// What a job would be.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanObject {
    /// `fine_tuning.job.plan`.
    pub object: &'static str,
    /// What it would start from.
    pub model: String,
    pub training_file: FileId,
    pub validation_file: Option<FileId>,
    /// The request's, or one drawn for this plan only.
    pub seed: u64,
    /// Every training choice; `trainable` lists what `freeze` leaves to train.
    pub recipe: Recipe,
    /// Each `"auto"` that was asked for or left out, by its option's name.
    pub resolved: BTreeMap<String, Settled>,
    #[serde(flatten)]
    pub sizes: JobPlan,
    /// How long it will run once it has a worker, by earlier jobs; `null` before there were any of its kind.
    pub time: Option<Time>,
    /// What validation found in the data sets that can be used all the same.
    pub warnings: Vec<Problem>,
}

/// Plan a fine-tuning job
///
/// The body of a creation, checked and settled in the same way: all its problems, or what the job would do. Nothing is
/// queued. The data sets must be validated.
#[utoipa::path(post, path = "/v1/fine_tuning/jobs/plan", tag = "jobs", request_body = JobRequest,
    responses((status = 200, body = PlanObject)))]
pub(crate) async fn plan(
    State(state): State<AppState>,
    Tenant(tenant): Tenant,
    Json(body): Json,
) -> Result<axum::Json<PlanObject>, ApiError> {
    let Admitted {
        request,
        seed,
        layers,
        data_sets,
        resolution,
        ..
    } = admit::check(state.pool(), tenant, &body).await?;
    let (training, validation) = (data_sets.training, data_sets.validation);
    let (Some(resolution), Some(training_set)) = (resolution, &training.dataset) else {
        return Err(not_validated(&training, validation.as_ref()));
    };
    let validation_set = validation.as_ref().and_then(|file| file.dataset.as_ref());
    let mut warnings = warnings(&state, tenant, training.id).await?;
    if let Some(file) = &validation {
        warnings.extend(self::warnings(&state, tenant, file.id).await?);
    }
    let recipe = resolution.recipe;
    let sizes =
        JobPlan::of(&recipe, &layers, training_set, validation_set).map_err(ApiError::Invalid)?;
    let earlier = db::attempts::measured(state.pool(), tenant).await?;
    let time = estimate::time(
        &recipe,
        &layers,
        sizes.samples,
        sizes.parameters.head,
        &earlier,
    );
    Ok(axum::Json(PlanObject {
        object: "fine_tuning.job.plan",
        model: request.model,
        training_file: request.training_file,
        validation_file: request.validation_file,
        seed,
        sizes,
        time,
        recipe,
        resolved: settled(resolution.resolved),
        warnings,
    }))
}

async fn warnings(
    state: &AppState,
    tenant: TenantId,
    id: FileId,
) -> Result<Vec<Problem>, ApiError> {
    let report = db::files::report(state.pool(), tenant, id).await?;
    Ok(report
        .flatten()
        .map_or_else(Vec::new, |report| report.warnings))
}

fn not_validated(training: &File, validation: Option<&File>) -> ApiError {
    let waiting = [
        ("training_file", Some(training)),
        ("validation_file", validation),
    ];
    let problems = waiting
        .into_iter()
        .filter_map(|(path, file)| Some((path, file.filter(|file| file.dataset.is_none())?.id)))
        .map(|(path, id)| {
            let message = format!(
                "file `{id}` is still being validated; wait with `GET /v1/files/{id}?wait=30&until=processed`, then plan again"
            );
            Problem::new(path, "not_ready", message)
        });
    ApiError::Invalid(problems.collect())
}
