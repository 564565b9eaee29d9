//! `/v1/fine_tuning/jobs/plan`: checks and resolves a request without creating a job.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    db::{self, files::File, tenants::TenantId},
    domain::{
        estimate::{self, Time},
        file::Dataset,
        id::FileId,
        job_plan::JobPlan,
        problem::Problem,
        ranking::SAMPLES,
        recipe::Recipe,
        request::JobRequest,
    },
    http::{
        api::{auth::Caller, error::ApiError, extract::Json, state::AppState},
        jobs::object::{ResolvedValue, resolved_values},
    },
    jobs::{
        admit::{self, Admitted},
        choose::Choice,
    },
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
    let mut admitted = admit::check(&state.pool, tenant, &body).await?;
    if admitted.start.is_none()
        && let Some(dataset) = &admitted.data_sets.training.dataset
    {
        let choice = choose(&state, tenant, &admitted, dataset).await?;
        admitted = admit::with_choice(&state.pool, tenant, admitted, &choice).await?;
    }
    let Admitted {
        request,
        start,
        seed,
        data_sets,
        resolution,
        ..
    } = admitted;
    let (training, validation) = (data_sets.training, data_sets.validation);
    let (Some(resolution), Some((_, layers)), Some(training_set)) =
        (resolution, start, &training.dataset)
    else {
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

/// Chooses a base model where no worker is needed for it.
async fn choose(
    state: &AppState,
    tenant: TenantId,
    admitted: &Admitted,
    dataset: &Dataset,
) -> Result<Choice, ApiError> {
    let (pool, request) = (&state.pool, &admitted.request);
    let found = &admitted.candidates;
    if let Some(choice) = Choice::only(&found.candidates) {
        return Ok(choice);
    }
    let pack = db::files::pack_sha256(pool, tenant, request.training_file).await?;
    let samples = (pack.as_deref().unwrap_or_default(), dataset.splits.train);
    let order = found.kept_order(pool, tenant, samples).await?;
    let ranked = order.map(|order| order.models(&found.candidates));
    let choice = ranked.and_then(|ranked| Choice::first(&ranked, dataset));
    choice.ok_or_else(|| {
        let file = request.training_file;
        let (count, scored) = (found.candidates.len(), dataset.splits.train.min(SAMPLES));
        let message = format!(
            "`auto` chooses by a ranking that was not made yet: {count} base models on {scored} training samples; \
             `POST /v1/model_rankings` with `{{\"training_file\": \"{file}\"}}` and the same `candidates` makes it, then plan \
             again, or create the job, which waits for it"
        );
        vec![Problem::new("model", "not_ranked", message)].into()
    })
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
