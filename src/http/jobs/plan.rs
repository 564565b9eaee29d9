//! `/v1/fine_tuning/jobs/plan`: checks and resolves a request without creating a job.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    db::{self, files::File},
    domain::{
        estimate::{self, Time},
        id::FileId,
        job_plan::JobPlan,
        problem::Problem,
        recipe::Recipe,
        request::JobRequest,
    },
    http::{
        api::{auth::Caller, error::ApiError, extract::Json},
        jobs::object::{ResolvedValue, resolved_values},
    },
    jobs::admit::{self, Admitted},
};

/// The job that a request would create.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanObject {
    /// `fine_tuning.job.plan`.
    pub object: &'static str,
    /// Model or checkpoint that it would start from.
    pub model: String,
    pub training_file: FileId,
    pub validation_file: Option<FileId>,
    /// The request's seed, or one drawn for this plan only.
    pub seed: u64,
    /// Every training choice; `trainable` names the parameters that `freeze` leaves to train.
    pub recipe: Recipe,
    /// The value of each `"auto"`, requested or by default, by option name.
    pub resolved: BTreeMap<String, ResolvedValue>,
    #[serde(flatten)]
    pub sizes: JobPlan,
    /// Estimated duration on a worker, from earlier jobs; `null` when there is no similar one.
    pub time: Option<Time>,
    /// Warnings of the data sets' validation.
    pub warnings: Vec<Problem>,
}

/// Plan a fine-tuning job
///
/// Checks and resolves the body like a creation, and answers all its problems or what the job would
/// do. Nothing is queued. The data sets must have been validated.
#[utoipa::path(post, path = "/v1/fine_tuning/jobs/plan", tag = "jobs", operation_id = "plan_job", request_body = JobRequest,
    responses((status = 200, body = PlanObject)))]
pub(crate) async fn plan(
    Caller { state, tenant }: Caller,
    Json(body): Json,
) -> Result<axum::Json<PlanObject>, ApiError> {
    let Admitted {
        request,
        seed,
        layers,
        data_sets,
        resolution,
        ..
    } = admit::check(&state.pool, tenant, &body).await?;
    let (training, validation) = (data_sets.training, data_sets.validation);
    let (Some(resolution), Some(training_set)) = (resolution, &training.dataset) else {
        return Err(not_validated(&training, validation.as_ref()));
    };
    let validation_set = validation.as_ref().and_then(|file| file.dataset.as_ref());
    let mut warnings = Vec::new();
    for file in [Some(&training), validation.as_ref()].into_iter().flatten() {
        let report = db::files::report(&state.pool, tenant, file.id).await?;
        warnings.extend(
            report
                .flatten()
                .into_iter()
                .flat_map(|report| report.warnings),
        );
    }
    let recipe = resolution.recipe;
    let sizes = JobPlan::of(&recipe, &layers, training_set, validation_set)?;
    let earlier = db::attempts::measured(&state.pool, tenant).await?;
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
        resolved: resolved_values(resolution.resolved),
        warnings,
    }))
}

fn not_validated(training: &File, validation: Option<&File>) -> ApiError {
    let waiting = [
        ("training_file", Some(training)),
        ("validation_file", validation),
    ];
    let problems = waiting.into_iter().filter_map(|(path, file)| {
        let id = file.filter(|file| file.dataset.is_none())?.id;
        let message = format!(
            "file `{id}` is still being validated; wait with `GET /v1/files/{id}?wait=30&until=processed`, then plan again"
        );
        Some(Problem::new(path, "not_ready", message))
    });
    problems.collect::<Vec<_>>().into()
}
